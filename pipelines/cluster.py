"""Running on Ray: streams as actor pools of Ray Data, shards as tasks.

Ray Data brings scheduling, back-pressure and memory limits. It is not the state: a unit's published rows say that it is
done, so whatever Ray loses is found missing and run again, a bounded number of times.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import platform
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from itertools import groupby
from typing import Any, TypeVar

import pyarrow as pa
import ray
import ray.data
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from corpusmith.pipelines.bind import Step
from corpusmith.pipelines.cell import pickled_by_value
from corpusmith.pipelines.executors import WAITING_UNITS, available_cpus, waits
from corpusmith.pipelines.stream import InFlight, StreamJob, StreamWorker
from corpusmith.pipelines.units import Unit, decode_stats
from corpusmith.schemas.errors import UserError

TASK_RETRIES = 3
STREAM_ATTEMPTS = 4
OBJECT_STORE_BYTES = 1 << 30
ACTOR_START_TIMEOUT_S = 300

Item = TypeVar("Item")
Result = TypeVar("Result")


class RayExecutor:
    """Runs on Ray: a cluster at `address`, or one that is started on this machine for the run."""

    name = "ray"

    def __init__(self, address: str | None = None, cpus: int | None = None) -> None:
        self._owned = not ray.is_initialized()
        if self._owned:
            _connect(address, cpus)
        self.cpus = int(ray.cluster_resources().get("CPU", 1))
        if address is not None:
            _compare_versions()

    def run_stream(self, job: StreamJob, units: Sequence[Unit]) -> Iterator[dict[str, Any]]:
        """See Executor."""
        pending = {unit.name: unit for unit in units}
        for attempt in range(STREAM_ATTEMPTS):
            before = len(pending)
            try:
                for summary in _run_once(job, list(pending.values()), self.cpus):
                    if pending.pop(summary["unit"], None) is not None:
                        yield summary
            except ray.exceptions.RayTaskError as error:
                raise _cause(error) from None
            except ray.exceptions.RayError as error:
                stuck = attempt > 0 and len(pending) == before
                if stuck or attempt == STREAM_ATTEMPTS - 1:
                    raise _lost(error, len(pending)) from error
                logging.getLogger(__name__).warning("workers were lost, %d units run again: %s", len(pending), error)
            if not pending:
                return
        raise UserError(
            f"{len(pending)} units have not come back from Ray", hint="run the same command again: it goes on"
        )

    def run_tasks(self, task: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """See Executor."""
        remote = ray.remote(num_cpus=1, max_retries=TASK_RETRIES)(lambda item: task(item))
        waiting = list(items)
        running: list[Any] = []
        while waiting or running:
            while waiting and len(running) < 2 * self.cpus:
                running.append(remote.remote(waiting.pop(0)))
            finished, running = ray.wait(running)
            try:
                yield from ray.get(finished)
            except ray.exceptions.RayTaskError as error:
                raise _cause(error) from None

    def close(self) -> None:
        """Stop the Ray that was started or joined for this run."""
        if self._owned:
            ray.shutdown()


def _connect(address: str | None, cpus: int | None) -> None:
    # Ray's core complains at length about restartable actors whose arguments are large, on the terminal
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address is None:
        options |= {
            "num_cpus": cpus or available_cpus(),
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
    try:
        ray.init(address=address or "local", **options)
    except ConnectionError as error:
        raise UserError(
            f"no Ray cluster answers at {address}: {error}", hint="check --address; leave it out to run on this machine"
        ) from error


def _compare_versions() -> None:
    """Refuse a cluster whose nodes run another corpusmith, Python or Arrow than this process."""
    here = _versions()
    probe = ray.remote(num_cpus=0)(_versions)
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        try:
            there = ray.get(probe.options(scheduling_strategy=strategy).remote())
        except ray.exceptions.RayTaskError as error:
            there = {"corpusmith": f"not importable ({_cause(error)})"}
        if there != here:
            raise UserError(
                f"node {node['NodeManagerAddress']} runs {there}, this process {here}",
                hint="install the same corpusmith wheel and constraints.txt on every node",
            )


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("corpusmith", "pyarrow")} | {"python": platform.python_version()}


def _cause(error: ray.exceptions.RayTaskError) -> BaseException:
    return error.cause if isinstance(error.cause, Exception) else error


def _lost(error: BaseException, units: int) -> UserError:
    return UserError(
        f"Ray lost its workers time and again, {units} units are not done: {error}",
        hint="a step that kills its worker should be isolated (see the operator's `isolated`); memory may be short: "
        "fewer --cpus, or more memory. What was published is safe, and the same command goes on",
    )


def _stages(steps: Sequence[Step]) -> list[tuple[Step, ...]]:
    """Consecutive steps that need the same card share their workers; media between stages goes through Ray."""
    return [tuple(group) for _, group in groupby(steps, key=lambda s: s.operator.resources.gpus)] or [()]


class _StageActor:
    """A worker of one stage, as Ray Data holds it."""

    def __init__(self, pickled: bytes, first: bool, last: bool) -> None:
        job, steps = pickle.loads(pickled)
        self._worker = StreamWorker(job, steps, first=first, last=last)

    def __call__(self, block: pa.Table) -> pa.Table:
        (row,) = block.to_pylist()
        unit = Unit.from_json(row["unit"])
        rows = self._worker.advance(unit, None if self._worker.first else _decode(row))
        if self._worker.last:
            return pa.table({"summary": [json.dumps(self._worker.finish(unit, rows))]})
        return pa.table(
            {
                "unit": [row["unit"]],
                "live": pa.array([_to_ipc(rows.live)], pa.large_binary()),
                "done": pa.array([_to_ipc(rows.done)], pa.large_binary()),
                "stats": [json.dumps({step: asdict(count) for step, count in rows.stats.items()})],
            }
        )


def _run_once(job: StreamJob, units: Sequence[Unit], cpus: int) -> Iterator[dict[str, Any]]:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = None  # one block out for each block in: a unit stays one unit
    context.wait_for_min_actors_s = ACTOR_START_TIMEOUT_S
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    blocks = [pa.table({"unit": [unit.to_json()]}) for unit in units]
    dataset = ray.data.from_blocks(blocks)
    stages = _stages(job.segment.stream)
    operators = [step.operator for step in job.segment.stream]
    for number, steps in enumerate(stages):
        ends = (number == 0, number == len(stages) - 1)
        with warnings.catch_warnings():
            # restarts and retries without end are Ray Data's default, and this is the only way to bound them
            warnings.simplefilter("ignore", category=DeprecationWarning)
            dataset = dataset.map_batches(
                _StageActor,
                batch_size=1,
                batch_format="pyarrow",
                fn_constructor_args=(pickled_by_value((job, steps), operators), *ends),
                **_stage_options(steps, cpus, len(units), len(stages)),
            )
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for text in batch.column("summary").to_pylist():
            yield json.loads(text)


def _stage_options(steps: Sequence[Step], cpus: int, units: int, stages: int) -> dict[str, Any]:
    """Actor pool of a stage: as many workers as its cores allow, many units in each when it waits."""
    needs = [s.operator.resources for s in steps]
    stage_cpus = max([r.cpus for r in needs], default=1.0)
    gpus = max([r.gpus for r in needs], default=0.0)
    memory = max([r.memory_bytes for r in needs], default=0)
    share = cpus if stages == 1 else max(1, cpus - (stages - 1))
    if gpus:
        size = max(1, int(ray.cluster_resources().get("GPU", 0) / gpus))
        stage_cpus = min(stage_cpus, 0.5)
    else:
        size = max(1, int(share / stage_cpus))
    inside = WAITING_UNITS if waits(steps) else 1
    options: dict[str, Any] = {
        "compute": ray.data.ActorPoolStrategy(
            size=max(1, min(size, units)),
            max_tasks_in_flight_per_actor=inside + 1,
            max_concurrent_calls_per_actor=inside,
            enable_true_multi_threading=inside > 1,
        ),
        "num_cpus": stage_cpus,
        "max_restarts": TASK_RETRIES,
        "max_task_retries": TASK_RETRIES,
    }
    return options | ({"num_gpus": gpus} if gpus else {}) | ({"memory": memory} if memory else {})


def _decode(row: dict[str, Any]) -> InFlight:
    return InFlight(_from_ipc(row["live"]), _from_ipc(row["done"]), decode_stats(json.loads(row["stats"])))


def _to_ipc(tables: Sequence[pa.Table]) -> bytes:
    """Tables of different schemas as one run of length-prefixed IPC streams."""
    sink = pa.BufferOutputStream()
    for table in tables:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _from_ipc(data: bytes) -> list[pa.Table]:
    source = pa.BufferReader(data)
    tables = []
    while source.tell() < len(data):
        tables.append(pa.ipc.open_stream(source).read_all())
    return tables
