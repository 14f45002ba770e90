"""The run: a recipe and an input become a finished corpus, or go on from wherever an earlier run was stopped.

Nothing here remembers how far a run is. Each stream is asked for all its units; rows whose results are published cost
a look-up, the others are computed. That is resume, changed thresholds, appended input and reordered steps in one.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from corpusmith.operators.contract import Annotate
from corpusmith.operators.sources.tables import SourceFile, input_schema, list_files
from corpusmith.operators.write.shards import ShardsConfig, shard_bounds
from corpusmith.pipelines.alarm import Alarm
from corpusmith.pipelines.bind import Step, bind_steps
from corpusmith.pipelines.executors import Executor, InlineExecutor
from corpusmith.pipelines.flow import Flow, units_for
from corpusmith.pipelines.harvest import Harvest, ReasonKey, harvest
from corpusmith.pipelines.ingest import Source, ingest
from corpusmith.pipelines.lock import CorpusLock
from corpusmith.pipelines.plan import Plan, Segment, make_plan
from corpusmith.pipelines.progress import Progress, drops_of
from corpusmith.pipelines.reduces import FlowRows, run_reduce
from corpusmith.pipelines.report.collect import RunFacts, publish_report
from corpusmith.pipelines.shelve import SHARDS_FOLDER, ShardTask, lay_out
from corpusmith.pipelines.state import Store
from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.stream import Barrier, StreamJob
from corpusmith.pipelines.units import StepStats, Unit, decode_stats
from corpusmith.pipelines.verify import finished_manifest
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.manifest import MANIFEST_PATH, WORK_FOLDER, FileRecord, Manifest, Removal, ShardRecord
from corpusmith.schemas.recipe import RecipeSpec, parse_recipe, recipe_yaml
from corpusmith.schemas.urls import redact_url

RECIPE_PATH = "recipe.json"
REMOVED_PATH = "removed.parquet"
WRITE_STEP = "shards"
CHEAP_STREAM_ROWS = 1 << 20
"""Streams of cheap steps over so many rows at most are run in this process: actors would take longer to start."""
FEW_SAMPLES = 20_000
"""Shards of so few samples are written in this process: workers would take longer to start."""
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)
VERSIONED = ("corpusmith", "pyarrow", "duckdb", "numpy", "opencv-python-headless", "pillow", "simplejpeg")


@dataclass(frozen=True)
class RunOptions:
    """How to run.

    Args:
        executor: `ray` or `inline`.
        address: of a Ray cluster; None for this machine.
        cpus: cores to use; None for all.
        limit: take only the first rows of the input.
    """

    executor: str = "ray"
    address: str | None = None
    cpus: int | None = None
    limit: int | None = None


@dataclass
class Prepared:
    """A recipe, checked against its input, with nothing started yet."""

    spec: RecipeSpec
    source_name: str
    steps: list[Step]
    files: list[SourceFile]
    plan: Plan
    missing: dict[str, str] = field(default_factory=dict)
    """Step id → what the step needs and this environment lacks, and how to get it."""


@dataclass
class RunResult:
    """What a run made."""

    corpus: Storage
    manifest: Manifest
    stats: dict[str, StepStats]
    report: str
    wall_s: float
    reasons: Counter[ReasonKey] = field(default_factory=Counter)
    """Rows by step, fate and label; see Harvest."""


@dataclass
class _Streamed:
    """What the streams and reduces of a run left behind."""

    flows: list[Flow] = field(default_factory=list)
    units: list[tuple[Unit, ...]] = field(default_factory=list)
    """Of each stream."""
    stats: dict[str, StepStats] = field(default_factory=dict)
    summaries: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, stats: dict[str, StepStats]) -> None:
        for step, count in stats.items():
            self.stats.setdefault(step, StepStats()).add(count)


@dataclass
class _SoFar:
    """What was told of a unit that is not done yet."""

    rows: int = 0
    stats: dict[str, StepStats] = field(default_factory=dict)

    def move_on(self, summary: Mapping[str, Any]) -> tuple[int, dict[str, StepStats]]:
        """Rows and counts of a summary that were not told before."""
        told, before = self.rows, self.stats
        self.rows, self.stats = summary["rows"], decode_stats(summary["stats"])
        fresh = {step: count.since(before.get(step, StepStats())) for step, count in self.stats.items()}
        return self.rows - told, fresh


def prepare(spec: RecipeSpec, source_name: str, *, skipped: Sequence[str] = ()) -> Prepared:
    """Bind the steps, find the input, check the flow of columns, ask the steps what they lack.

    Args:
        spec: the recipe.
        source_name: its file or name, for errors.
        skipped: ids of steps that were left out of it, for errors.

    Raises:
        UserError: for whatever is wrong with recipe or input.
    """
    steps = bind_steps(spec, source=source_name)
    if not spec.input.path:
        raise UserError(
            "the recipe names no input", where=source_name, hint="give --input FILE, or input: {path: …} in the recipe"
        )
    files = list_files(spec.input.path, spec.input.format, spec.input.split, spec.input.origins)
    source = input_schema(files, spec.input)
    missing = {step.id: lack for step in steps if (lack := step.operator.missing())}
    return Prepared(spec, source_name, steps, files, _plan(steps, source, skipped), missing)


def _plan(steps: Sequence[Step], source: pa.Schema, skipped: Sequence[str]) -> Plan:
    try:
        return make_plan(steps, source)
    except UserError as error:
        if not skipped:
            raise
        left_out = f"you left out {', '.join(skipped)}: leave this step out as well, by its id, with another --skip"
        hint = f"{left_out}; or {error.hint}" if error.hint else left_out
        raise UserError(error.what, where=error.where, hint=hint) from error


def last_run(corpus: Storage) -> tuple[Prepared, int | None]:
    """Recipe, input and row limit of the corpus's last run.

    Raises:
        UserError: no run was ever started here, or its input is gone.
    """
    try:
        record = json.loads(corpus.read(f"{WORK_FOLDER}/{RECIPE_PATH}"))
    except FileNotFoundError:
        raise UserError("no run was started here", where=corpus.root, hint="start one with `corpusmith run`") from None
    spec = parse_recipe(record["recipe"], source=f"{corpus.root}/{WORK_FOLDER}/{RECIPE_PATH}")
    return prepare(spec, record["source"]), record["limit"]


def make_executor(options: RunOptions) -> Executor:
    """The executor that the options ask for."""
    if options.executor == "inline":
        return InlineExecutor(options.cpus)
    from corpusmith.pipelines.cluster import RayExecutor

    return RayExecutor(options.address, options.cpus)


def run(prepared: Prepared, output: str, options: RunOptions, progress: Progress) -> RunResult:
    """Run a prepared recipe to its end.

    Raises:
        UserError: a step needs what is not here, the output is locked or cannot be written, or workers were lost.
    """
    _refuse_missing(prepared)
    started = time.monotonic()
    corpus = Storage(output)
    work = corpus.below(WORK_FOLDER)
    with CorpusLock(work):
        work.publish(RECIPE_PATH, _recipe_record(prepared, options))
        executor = make_executor(options)
        try:
            return _Run(prepared, corpus, work, options, executor, progress, started).to_end()
        finally:
            executor.close()


def _refuse_missing(prepared: Prepared) -> None:
    """Raise one error that tells all that the steps lack."""
    if not prepared.missing:
        return
    lacks = "".join(f"\n  {step}: {lack}" for step, lack in prepared.missing.items())
    skips = " ".join(f"--skip {step}" for step in prepared.missing)
    raise UserError(
        f"{len(prepared.missing)} of the steps need what is not here:{lacks}",
        where=prepared.source_name,
        hint=f"install it, or leave the steps out, with those that read their columns: {skips}",
    )


def _recipe_record(prepared: Prepared, options: RunOptions) -> bytes:
    return json.dumps(
        {"recipe": recipe_yaml(prepared.spec), "source": prepared.source_name, "limit": options.limit}
    ).encode()


@dataclass
class _Run:
    prepared: Prepared
    corpus: Storage
    work: Storage
    options: RunOptions
    executor: Executor
    progress: Progress
    started: float

    @property
    def plan(self) -> Plan:
        return self.prepared.plan

    @property
    def spec(self) -> RecipeSpec:
        return self.prepared.spec

    def to_end(self) -> RunResult:
        self.progress.say(f"reading input: {len(self.prepared.files)} file(s)")
        source = ingest(self.work, self.prepared.files, self.spec.input, self.plan, self.options.limit)
        apart = f"; {source.duplicates:,} duplicates counted apart" if source.duplicates else ""
        passed = ", ".join(f"{number:,} {kind}" for kind, number in sorted(source.passed_over.items()))
        self.progress.say(f"{source.rows:,} rows in{apart}{f'; not read: {passed}' if passed else ''}")
        # rows between streams are this run's own: what an earlier one left is of no use
        self.work.delete_folder("flow")
        streamed = self._stream_all(source)
        result = self._finish(source, streamed)
        self.work.delete_folder("flow")
        return result

    def _stores(self) -> list[Store]:
        return [
            Store(self.work, self.plan.store_folder(step), step.operator.produces)
            for step in self.plan.steps
            if isinstance(step.operator, Annotate) and step.operator.stored
        ]

    def _compact(self, source: Source) -> None:
        for store in self._stores():
            store.compact(source.bits)

    def _stream_all(self, source: Source) -> _Streamed:
        self._compact(source)
        streamed = _Streamed()
        barrier: Barrier | None = None
        flow_token = secrets.token_hex(4)
        for segment in self.plan.segments:
            units, row_groups = units_for(segment, self.plan, source.units, source.rows)
            flow = Flow(f"flow/{flow_token}-{segment.index:02d}", row_groups)
            job = self._job(segment.index, barrier, streamed.flows[-1] if streamed.flows else None, flow)
            self._stream(job, source, units, streamed)
            streamed.flows.append(flow)
            streamed.units.append(units)
            if segment.reduce is not None:
                barrier = self._reduce(segment, segment.reduce, source.rows, streamed)
        self._compact(source)
        return streamed

    def _job(self, index: int, barrier: Barrier | None, flow_in: Flow | None, flow_out: Flow) -> StreamJob:
        columns = self.plan.source_columns if index == 0 else self.plan.segments[index - 1].columns
        return StreamJob(
            work=self.work,
            segment=self.plan.segments[index],
            columns_in=columns,
            barrier=barrier,
            flow_in=flow_in,
            flow_out=flow_out,
            folders={s.id: self.plan.store_folder(s) for s in self.plan.steps},
            slots=self.executor.cpus if self.executor.name == "inline" else 1,
            keep_originals=self.spec.output.keep_originals,
            removed=REMOVED_PATH if self.work.exists(REMOVED_PATH) else None,
        )

    def _stream(self, job: StreamJob, source: Source, units: Sequence[Unit], streamed: _Streamed) -> None:
        barrier = [job.barrier.step] if job.barrier is not None else []
        phase = f"stream {job.segment.index + 1} of {len(self.plan.segments)}"
        self.progress.start(phase, source.rows, steps=[step.id for step in (*barrier, *job.segment.stream)])
        alarm = Alarm([step.id for step in job.segment.stream if isinstance(step.operator, Annotate)])
        done = set()
        in_hand: dict[str, _SoFar] = {}
        for summary in self._executor_of(job, source).run_stream(job, units):
            rows, stats = in_hand.setdefault(summary["unit"], _SoFar()).move_on(summary)
            if summary["is_done"]:
                streamed.add(decode_stats(summary["stats"]))
                done.add(summary["unit"])
                del in_hand[summary["unit"]]
            self.progress.advance(rows, drops_of(stats), stats)
            for warning in alarm.add(time.monotonic(), stats):
                self.progress.warn(warning)
        self.progress.end()
        missing = [unit.name for unit in units if unit.name not in done]
        if missing:
            raise UserError(
                f"{len(missing)} units did not finish: {missing[0]} …", hint="run the same command again: it goes on"
            )

    def _executor_of(self, job: StreamJob, source: Source) -> Executor:
        """Threads of this process for a short stream of cheap steps: actors would take longer to start than to run."""
        operators = [step.operator for step in job.segment.stream]
        is_cheap = not any(o.stored or o.isolated or o.resources.waits or o.resources.gpus for o in operators)
        return InlineExecutor(self.options.cpus) if is_cheap and source.rows <= CHEAP_STREAM_ROWS else self.executor

    def _reduce(self, segment: Segment, step: Step, source_rows: int, streamed: _Streamed) -> Barrier:
        executor = InlineExecutor(self.options.cpus) if source_rows <= CHEAP_STREAM_ROWS else self.executor
        units = streamed.units[-1]
        rows = FlowRows(self.work, streamed.flows[-1].folder, units, segment, self.spec.seed, executor)
        self.progress.start(step.id, rows.count)
        folder = self.plan.store_folder(step).replace("results/", "decisions/", 1)
        decided = run_reduce(self.work, folder, step, rows)
        self.progress.advance(rows.count)
        self.progress.end()
        streamed.summaries[step.id] = dict(decided.summary)
        reused = rows.count if decided.reused else 0
        streamed.add({step.id: StepStats(computed=rows.count - reused, reused=reused, time_s=decided.time_s)})
        return Barrier(step, decided.path)

    def _finish(self, source: Source, streamed: _Streamed) -> RunResult:
        before = finished_manifest(self.corpus) if self.corpus.exists(MANIFEST_PATH) else None
        self.corpus.delete(MANIFEST_PATH)
        found, ledger = harvest(self.work, self.corpus, self.plan, streamed.flows, source.units, source.duplicates)
        shards = self._write_shards(found, streamed)
        manifest = self._manifest(found, shards, ledger, before.removals if before else [])
        wall_s = time.monotonic() - self.started
        shown = without_secrets(self.spec)
        facts = RunFacts(shown, self.plan, manifest, found, streamed.stats, streamed.summaries, wall_s)
        report = publish_report(self.corpus, self.work, facts)
        self.corpus.publish(MANIFEST_PATH, manifest.model_dump_json(indent=1).encode())
        return RunResult(self.corpus, manifest, streamed.stats, report, wall_s, found.reasons)

    def _write_shards(self, found: Harvest, streamed: _Streamed) -> list[ShardRecord]:
        bounds = shard_bounds(found.counts.kept, self.spec.output.samples_per_shard)
        tables: list[str] = []
        if bounds:
            flow, units = streamed.flows[-1], streamed.units[-1]
            tables = lay_out(self.work, "flow/order", flow.folder, units, bounds, self.spec.seed)
        config = ShardsConfig(samples_per_shard=self.spec.output.samples_per_shard)
        task = ShardTask(self.corpus, self.work, config, {"pyarrow": version("pyarrow")})
        self.progress.start(WRITE_STEP, found.counts.kept, "samples")
        started = time.perf_counter()
        records = []
        executor = InlineExecutor(self.options.cpus) if found.counts.kept <= FEW_SAMPLES else self.executor
        for record in executor.run_tasks(task, list(enumerate(tables))):
            records.append(record)
            self.progress.advance(record.samples)
        self.progress.end()
        size = sum(f.size_bytes for r in records for f in r.files.values())
        wrote = time.perf_counter() - started
        streamed.add(
            {WRITE_STEP: StepStats(rows_in=found.counts.kept, rows_out=found.counts.kept, time_s=wrote, bytes=size)}
        )
        named = {path for record in records for path in record.files}
        self.corpus.delete(*(e.path for e in self.corpus.list(SHARDS_FOLDER) if e.path not in named))
        return sorted(records, key=lambda r: r.index)

    def _manifest(
        self, found: Harvest, shards: list[ShardRecord], ledger: Sequence[str], removals: list[Removal]
    ) -> Manifest:
        return Manifest(
            corpus=self.spec.corpus,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            recipe=without_secrets(self.spec).model_dump(mode="json"),
            seed=self.spec.seed,
            fingerprints=self.plan.fingerprints,
            versions={name: version(name) for name in VERSIONED},
            counts=found.counts,
            shards=shards,
            ledger={path: record_of(self.corpus, path) for path in ledger},
            removals=removals,
        )


def without_secrets(spec: RecipeSpec) -> RecipeSpec:
    """The recipe as it may be shown: signed addresses, of the input and in parameters, without their signatures."""
    shown = spec.model_copy(update={"input": spec.input.model_copy(update={"path": _redacted(spec.input.path)})})
    shown.steps = [step.model_copy(update={"params": _redacted(step.params)}) for step in spec.steps]
    return shown


def _redacted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _redacted(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_redacted(inner) for inner in value]
    return redact_url(value) if isinstance(value, str) and _ADDRESS.fullmatch(value) else value


def record_of(storage: Storage, path: str) -> FileRecord:
    """Hash and size of a published file."""
    data = storage.read(path)
    return FileRecord(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
