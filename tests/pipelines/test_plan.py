"""The plan: streams and barriers, the flow of columns, fingerprints that change exactly when results would."""

from __future__ import annotations

import fakes  # registers the fake operators
import pyarrow as pa
import pytest

from corpusmith.pipelines.bind import bind_steps
from corpusmith.pipelines.plan import Plan, make_plan
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.recipe import parse_recipe

SOURCE = pa.schema([("uid", pa.string()), ("url", pa.string()), ("caption", pa.string()), ("extra", pa.int64())])

STEPS = [
    "fake_score: {salt: a}",
    "keep: score > 10",
    "fake_fetch: {}",
    "fake_shrink: {}",
    "fake_rank",
    "fake_top: {keep: 0.5}",
    "fake_crops",
]


def plan_of(*steps: str, seed: int = 0) -> Plan:
    """The plan of a recipe with these steps."""
    assert fakes.FakeScore.name
    lines = ["corpus: x", f"seed: {seed}", "input: {path: x}", "steps:", *(f"  - {step}" for step in steps)]
    return make_plan(bind_steps(parse_recipe("\n".join(lines), source="r.yaml"), source="r.yaml"), SOURCE)


def test_reduces_are_barriers() -> None:
    plan = plan_of(*STEPS)
    streams = [[step.id for step in segment.stream] for segment in plan.segments]
    assert streams == [["fake_score", "keep", "fake_fetch", "fake_shrink", "fake_rank"], ["fake_crops"]]
    assert [segment.reduce.id if segment.reduce else None for segment in plan.segments] == ["fake_top", None]


def test_the_last_maker_of_media_is_staged() -> None:
    assert [segment.staging for segment in plan_of(*STEPS).segments] == ["fake_shrink", None]


def test_columns_flow_through_barriers() -> None:
    first, last = plan_of(*STEPS).segments
    assert {c.name for c in last.columns} - {c.name for c in first.columns} == {"place", "crop"}
    assert "media" not in last.schema.names
    assert {"extra", "media_ref", "media_sha256", "fate"} <= set(last.schema.names)


def test_selections_are_no_part_of_a_fingerprint() -> None:
    plan = plan_of(*STEPS)
    without = plan_of(*(step for step in STEPS if not step.startswith("keep")))
    other = plan_of(*(step.replace("> 10", "> 500") for step in STEPS))
    for step in ("fake_score", "fake_fetch", "fake_shrink", "fake_rank", "fake_top"):
        assert plan.fingerprints[step] == without.fingerprints[step] == other.fingerprints[step]


def test_order_of_independent_steps_is_no_part_of_a_fingerprint() -> None:
    reordered = plan_of("fake_fetch: {}", "fake_score: {salt: a}", *STEPS[3:])
    assert reordered.fingerprints["fake_rank"] == plan_of(*STEPS).fingerprints["fake_rank"]


def test_a_changed_operator_changes_its_readers_alone() -> None:
    plan, changed = plan_of(*STEPS), plan_of("fake_score: {salt: b}", *STEPS[1:])
    same = {step for step, value in plan.fingerprints.items() if changed.fingerprints[step] == value}
    assert same == {"fake_fetch", "fake_shrink"}


def test_the_seed_counts_for_seeded_operators_alone() -> None:
    steps = ["sample: 0.5", "fake_score: {salt: a}"]
    plan, other = plan_of(*steps), plan_of(*steps, seed=1)
    assert plan.fingerprints["sample"] != other.fingerprints["sample"]
    assert plan.fingerprints["fake_score"] == other.fingerprints["fake_score"]


def test_how_the_work_is_done_is_no_part_of_a_fingerprint() -> None:
    plan = plan_of("download: {}")
    patient = plan_of("download: {timeout_s: 60, retries: 9, concurrency: 3, user_agent: me}")
    assert plan.fingerprints["download"] == patient.fingerprints["download"]
    assert plan.fingerprints["download"] != plan_of("download: {max_bytes: 1000}").fingerprints["download"]


def test_a_missing_column_names_the_step_that_makes_it() -> None:
    with pytest.raises(UserError) as caught:
        plan_of("keep: word_count > 2")
    assert caught.value.where == "r.yaml:5"
    assert "word_count" in caught.value.what
    assert "text" in (caught.value.hint or "")


def test_a_misspelt_column_gets_a_guess() -> None:
    with pytest.raises(UserError, match="did you mean 'caption'"):
        plan_of("keep: captoin <> ''")


def test_units_are_many_enough_and_bounded() -> None:
    plan = plan_of(*STEPS)
    assert plan.unit_rows(10) == 32
    assert plan.unit_rows(3200) == 200
    assert plan.unit_rows(10**8) == plan.unit_rows_cap == 512
    assert plan_of("fake_score: {salt: a}").unit_rows(10**8) == 8192
