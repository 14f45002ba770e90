"""`mark`: a step tells which rows it would keep, and a later one combines what several told."""

from __future__ import annotations

from pathlib import Path

import fakes
import pytest
from corpora import fates, outcome, run_recipe, write_rows

from corpusmith.pipelines.bind import bind_steps
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.recipe import parse_recipe, recipe_yaml

ROWS = 200


def recipe(folder: Path, *steps: str) -> str:
    lines = "\n".join(f"  - {step}" for step in steps)
    return f"corpus: marks\ninput: {{path: {folder / 'in.parquet'}}}\nsteps:\n{lines}\n"


def kept(folder: Path, name: str, *steps: str, executor: str = "inline") -> set[str]:
    run_recipe(recipe(folder, *steps), folder / name, executor=executor)
    return {uid for uid, row in fates(folder / name).items() if row["fate"] == "kept"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_rows(tmp_path / "in.parquet", range(ROWS), url=lambda i: f"http://web/{'fail' if i % 50 == 7 else ''}{i}")
    return tmp_path


LOW, TOP = "keep: {where: score < 700, mark: is_low}", "fake_top: {keep: 0.5, mark: in_top}"


def test_a_select_and_a_reduce_combine_as_sets(folder: Path) -> None:
    low = kept(folder, "low", "fake_score", "keep: score < 700")
    top = kept(folder, "top", "fake_score", "fake_top: {keep: 0.5}")
    assert 0 < len(low & top) < min(len(low), len(top)) and len(low | top) < ROWS + 1
    steps = ("fake_score", LOW, TOP)
    assert kept(folder, "both", *steps, "keep: is_low AND in_top") == low & top
    assert kept(folder, "either", *steps, "keep: is_low OR in_top") == low | top
    assert kept(folder, "without", *steps, "keep: in_top AND NOT is_low") == top - low
    assert len(kept(folder, "all", *steps)) == ROWS
    # a cut before would have made another top half
    assert kept(folder, "chained", "fake_score", "keep: score < 700", "fake_top: {keep: 0.5}") != low & top


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_workers_mark_as_this_process_does(folder: Path) -> None:
    steps = ("fake_score", LOW, TOP, "fake_fetch", "keep: is_low AND in_top")
    kept(folder, "inline", *steps)
    kept(folder, "ray", *steps, executor="ray")
    assert outcome(folder / "inline") == outcome(folder / "ray")


def test_failed_rows_fail_and_the_others_say_so_by_step(folder: Path) -> None:
    marked = "keep: {where: size_bytes > 400, mark: is_large}"
    text = recipe(folder, "fake_fetch: {on_error: null}", marked, "keep: is_large")
    run_recipe(text, folder / "out")
    rows = fates(folder / "out").values()
    assert {(r["step"], r["error"]) for r in rows if r["fate"] == "failed"} == {("keep", "missing size_bytes")}
    assert {(r["step"], r["reason"]) for r in rows if r["fate"] == "rejected"} == {
        ("keep#2", "is_large: is_large = false")
    }


def test_decisions_are_used_again_with_and_without_a_mark(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fakes.CALLS_ENV, str(folder / "calls"))
    kept(folder, "out", "fake_score", "fake_top: {keep: 0.5}")
    kept(folder, "out", "fake_score", TOP)
    assert len(fakes.calls("fake_top")) == 1


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("fake_score: {mark: seen}", "rejects no rows"),
        ("fake_top: {mark: score}", "'score' is a column already"),
        ("fake_top: {mark: uid}", "'uid' is a column already"),
        ("fake_top: {mark: 'a b'}", "mark"),
    ],
)
def test_what_cannot_be_a_mark(folder: Path, step: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        run_recipe(recipe(folder, "fake_score", step), folder / "out")


def test_a_mark_does_not_hide_a_column(folder: Path) -> None:
    with pytest.raises(UserError, match="'caption' is a column already"):
        run_recipe(recipe(folder, "fake_score", "fake_top: {mark: caption}"), folder / "out")


def test_a_mark_is_written_and_overridden(folder: Path) -> None:
    spec = parse_recipe(recipe(folder, "fake_score", TOP), source="r.yaml", overrides=["fake_top.mark=best"])
    assert [step.mark for step in spec.steps] == [None, "best"]
    assert recipe_yaml(parse_recipe(recipe_yaml(spec), source="r.yaml")) == recipe_yaml(spec)
    assert [c.name for c in bind_steps(spec, source="r.yaml")[1].produces] == ["place", "best"]
