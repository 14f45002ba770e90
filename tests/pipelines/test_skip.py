"""Steps that are left out, and steps that cannot work here: all is said before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fakes  # noqa: F401 (registers operators)
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import fates, write_rows

from corpusmith.operators.contract import AnnotateRows
from corpusmith.operators.registry import register
from corpusmith.pipelines.bind import bind_steps, load_recipe
from corpusmith.pipelines.cli import main
from corpusmith.schemas.columns import Column
from corpusmith.schemas.errors import UserError

RECIPE = """
corpus: tiny
steps:
- fake_score
- keep: score >= 100
- keep: score >= 200
- fake_absent
- keep: score >= 300
- keep: beauty > 0
"""


@register
class FakeAbsent(AnnotateRows, name="fake_absent", version=1):
    """Needs a model that nobody has."""

    isolated = False

    @property
    def requires(self) -> tuple[str, ...]:
        return ("caption",)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (Column("beauty", pa.float64(), "a number"),)

    def missing(self) -> str | None:
        return "the model `beauty`: pip install beauty"

    def process_row(self, row: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError("it was said that this cannot work")


def corpusmith(*arguments: str) -> int:
    """Run a command in this process; returns its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recipe and an input; it is the working directory."""
    write_rows(tmp_path / "urls.parquet", range(80))
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def test_a_run_says_what_is_missing_before_anything_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert corpusmith("run", "tiny.yaml", "--input", "urls.parquet", "--executor", "inline") == 2
    told = capsys.readouterr().err
    assert "\n  fake_absent: the model `beauty`: pip install beauty" in told
    assert "--skip fake_absent" in told
    assert not (folder / "tiny").exists()


@pytest.mark.parametrize("command", [["plan"], ["run", "--dry-run"]])
def test_the_plan_is_shown_whole_and_says_what_is_missing(
    command: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert corpusmith(*command, "tiny.yaml", "--input", "urls.parquet") == 1
    lines = capsys.readouterr().out.splitlines()
    assert "      LACKS the model `beauty`: pip install beauty" in lines
    assert any(line.startswith("estimate") for line in lines)
    assert lines[-1].startswith("`run` would refuse: fake_absent cannot work here")


def test_the_plan_says_which_columns_were_taken_by_habit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pa.table({"URL": ["http://web/1"], "TEXT": ["one"], "WIDTH": [3]})
    pq.write_table(table, folder / "laion.parquet")
    (folder / "plain.yaml").write_text("corpus: x\nsteps: [fake_score]\n")
    assert corpusmith("plan", "plain.yaml", "--input", "laion.parquet") == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("input: ")]
    assert line.startswith("input: laion.parquet (1 file, ")
    assert line.endswith("), url from 'URL', caption from 'TEXT'")


@pytest.mark.usefixtures("counted")
def test_steps_are_left_out_and_stay_out_in_a_retry(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    skip = [*("--skip", "keep#2"), *("--skip", "fake_absent"), *("--skip", "keep#4")]
    assert corpusmith("run", "tiny.yaml", "--input", "urls.parquet", "--executor", "inline", *skip) == 0
    ended = {uid: (row["fate"], row["step"]) for uid, row in fates(folder / "tiny").items()}
    steps = {step for _, step in ended.values() if step}
    assert steps == {"keep", "keep#3"}, "the steps that are left keep their names"
    recipe = json.loads((folder / "tiny/.work/recipe.json").read_text())["recipe"]
    assert "beauty" not in recipe and "200" not in recipe
    capsys.readouterr()
    assert corpusmith("retry", "tiny", "--failed", "--executor", "inline") == 0
    assert {uid: (row["fate"], row["step"]) for uid, row in fates(folder / "tiny").items()} == ended


def test_a_column_that_went_with_a_skipped_step(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert corpusmith("plan", "tiny.yaml", "--input", "urls.parquet", "--skip", "fake_absent") == 2
    told = capsys.readouterr().err
    assert "step 'keep#4' needs the column 'beauty'" in told
    assert "you left out fake_absent: leave this step out as well" in told


def test_an_unknown_step_is_told_with_the_choices(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert corpusmith("plan", "tiny.yaml", "--input", "urls.parquet", "--skip", "fake_scor") == 2
    told = capsys.readouterr().err
    assert "no step 'fake_scor'" in told and "did you mean" in told
    assert "fake_score, keep, keep#2, fake_absent, keep#3, keep#4" in told


def test_an_error_in_a_step_behind_a_skipped_one_names_its_own_line(folder: Path) -> None:
    (folder / "wrong.yaml").write_text("corpus: x\nsteps:\n- fake_score\n- fake_fetch: {size: many}\n")
    spec, source = load_recipe("wrong.yaml", skip=["fake_score"])
    with pytest.raises(UserError, match=r"wrong\.yaml:4"):
        bind_steps(spec, source=source)
