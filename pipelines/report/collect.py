"""From a finished run to the report's facts, and to the page on storage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.pipelines.harvest import Harvest, ReasonKey, failures_told, value_columns
from corpusmith.pipelines.plan import Plan
from corpusmith.pipelines.report.data import (
    Categories,
    Histogram,
    PoolFacts,
    ReasonFacts,
    ReportData,
    SampleCard,
    StepFacts,
)
from corpusmith.pipelines.report.pool import pool_facts
from corpusmith.pipelines.report.render import render_report
from corpusmith.pipelines.report.shrink import Shrinker
from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.units import StepStats, load_media
from corpusmith.schemas.columns import CAPTION, FATE, MEDIA_REF, UID, URL
from corpusmith.schemas.fates import Fate
from corpusmith.schemas.manifest import Manifest
from corpusmith.schemas.recipe import RecipeSpec, recipe_yaml
from corpusmith.schemas.urls import redact_url

REPORT_PATH = "report/index.html"
BINS = 30
MAX_DISTRIBUTIONS = 12
MAX_CATEGORIES = 12
FAILURE_WARNING_SHARE = 0.3
INPUT_STEP = "input"


@dataclass(frozen=True)
class RunFacts:
    """What a run knows of itself at its end."""

    spec: RecipeSpec
    plan: Plan
    manifest: Manifest
    harvest: Harvest
    stats: Mapping[str, StepStats]
    summaries: Mapping[str, Mapping[str, Any]]
    wall_s: float


def publish_report(corpus: Storage, work: Storage, facts: RunFacts) -> str:
    """Write the page; returns its path or URL."""
    shrinker = Shrinker()
    try:
        page = render_report(report_data(work, facts, shrinker))
    finally:
        shrinker.close()
    corpus.publish(REPORT_PATH, page.encode("utf-8"))
    return f"{corpus.root}/{REPORT_PATH}"


def report_data(work: Storage, facts: RunFacts, shrinker: Shrinker) -> ReportData:
    """Gather the report's facts; media of the samples shown is read from staging."""
    manifest = facts.manifest
    steps = list(_steps(facts))
    values = _values(facts)
    return ReportData(
        corpus=facts.spec.corpus,
        description=facts.spec.description,
        created=manifest.created,
        recipe_yaml=recipe_yaml(facts.spec),
        rows_in=manifest.counts.rows_in,
        duplicates=manifest.counts.duplicates,
        rows_made=manifest.counts.rows_made,
        fates={fate.value: getattr(manifest.counts, fate.value) for fate in Fate},
        shards=len(manifest.shards),
        corpus_bytes=sum(f.size_bytes for shard in manifest.shards for f in shard.files.values()),
        wall_s=facts.wall_s,
        steps=steps,
        reasons=list(_reasons(work, facts.harvest, shrinker)),
        kept=_cards(work, facts.harvest.samples.get(("", Fate.KEPT.value, ""), []), shrinker),
        histograms=list(_histograms(facts.plan, values)),
        categories=list(_categories(facts.plan, values)),
        pools=list(_pools(facts)),
        warnings=list(_warnings(steps, facts.harvest)),
        versions=manifest.versions,
    )


def _steps(facts: RunFacts) -> Iterator[StepFacts]:
    counts = facts.harvest.counts
    bad = sum(n for (step, _, _), n in facts.harvest.reasons.items() if step == INPUT_STEP)
    yield _step(INPUT_STEP, "input", "source", {}, StepStats(counts.rows_in, counts.rows_in - bad, failed=bad))
    for step in facts.plan.steps:
        parameters = step.operator.config.model_dump(mode="json", exclude_defaults=True)
        stats = facts.stats.get(step.id, StepStats())
        yield _step(step.id, step.operator.name, step.operator.kind, parameters, stats)
    yield _step("shards", "shards", "write", {}, facts.stats.get("shards", StepStats()))


def _step(step_id: str, operator: str, kind: str, parameters: Mapping[str, Any], stats: StepStats) -> StepFacts:
    return StepFacts(
        id=step_id,
        operator=operator,
        kind=kind,
        parameters=parameters,
        rows_in=stats.rows_in,
        rows_out=stats.rows_out,
        rejected=stats.rejected,
        failed=stats.failed,
        split=stats.split,
        made=stats.made,
        computed=stats.computed,
        reused=stats.reused,
        time_s=stats.time_s,
        bytes=stats.bytes,
    )


def _reasons(work: Storage, harvest: Harvest, shrinker: Shrinker) -> Iterator[ReasonFacts]:
    for key, count in harvest.reasons.most_common():
        step, fate, label = key
        yield ReasonFacts(step, fate, label, count, _cards(work, harvest.samples.get(key, []), shrinker, key))


def _cards(
    work: Storage, rows: Sequence[Mapping[str, Any]], shrinker: Shrinker, key: ReasonKey | None = None
) -> list[SampleCard]:
    pictures = shrinker.shrink(load_media(work, [row[MEDIA_REF.name] for row in rows]))
    return [_card(row, picture, key) for row, picture in zip(rows, pictures, strict=True)]


def _card(row: Mapping[str, Any], picture: bytes | None, key: ReasonKey | None) -> SampleCard:
    reason = row["fate_reason"] or ""
    detail = reason.removeprefix(f"{key[2]}: ") if key else ""
    url = row.get(URL.name)
    return SampleCard(row[UID.name], row.get(CAPTION.name) or "", redact_url(url) if url else "", detail, picture)


def _values(facts: RunFacts) -> pa.Table:
    schema = pa.schema([pa.field(c.name, c.type) for c in (FATE, *value_columns(facts.plan))])
    return pa.concat_tables([schema.empty_table(), *facts.harvest.values])


def _histograms(plan: Plan, values: pa.Table) -> Iterator[Histogram]:
    kept = pc.equal(values.column(FATE.name), Fate.KEPT.value).to_numpy(zero_copy_only=False).astype(bool)
    numeric = [c for c in value_columns(plan) if pa.types.is_integer(c.type) or pa.types.is_floating(c.type)]
    for column in numeric[:MAX_DISTRIBUTIONS]:
        array = pc.cast(values.column(column.name), pa.float64()).to_numpy(zero_copy_only=False)
        finite = np.isfinite(array)
        if not finite.any() or array[finite].min() == array[finite].max():
            continue
        edges = _edges(array[finite])
        before, _ = np.histogram(array[finite], bins=edges)
        after, _ = np.histogram(array[finite & kept], bins=edges)
        yield Histogram(column.name, column.unit, column.meaning, edges.tolist(), before.tolist(), after.tolist())


def _edges(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if low > 0 and high / low > 1000:
        return np.geomspace(low, high, BINS + 1)
    return np.linspace(low, high, BINS + 1)


def _categories(plan: Plan, values: pa.Table) -> Iterator[Categories]:
    kept = pc.equal(values.column(FATE.name), Fate.KEPT.value)
    for column in value_columns(plan):
        if not (pa.types.is_string(column.type) or pa.types.is_boolean(column.type)):
            continue
        texts = pc.cast(values.column(column.name), pa.string())
        before = Counter(texts.drop_null().to_pylist())
        after = Counter(texts.filter(kept).drop_null().to_pylist())
        # identifiers, hashes and captions are no categories
        if 1 < len(before) <= 200 and len(before) < 0.2 * before.total():
            rows = [(value, number, after[value]) for value, number in before.most_common(MAX_CATEGORIES)]
            yield Categories(column.name, column.meaning, rows)


def _pools(facts: RunFacts) -> Iterator[PoolFacts]:
    """What steps over the whole pool tell, in recipe order; none of a step that tells nothing."""
    for step in facts.plan.steps:
        parameters = step.operator.config.model_dump()
        told = pool_facts(step.id, step.operator.name, facts.summaries.get(step.id, {}), parameters, step.mark or "")
        if not told.is_empty:
            yield told


def _warnings(steps: Sequence[StepFacts], harvest: Harvest) -> Iterator[str]:
    for step in steps:
        if step.rows_in and step.failed / step.rows_in > FAILURE_WARNING_SHARE:
            yield (
                f"{step.failed:,} of {step.rows_in:,} rows failed at {step.id}: "
                f"{failures_told(harvest.reasons, step.rows_in, step=step.id)}. See the reasons, and "
                "`corpusmith retry --failed` once their cause is gone"
            )
