"""The command line as a stranger meets it: help, listings, and a corpus's whole life by commands alone."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import fakes  # noqa: F401 (registers operators)
import jsonschema
import pytest
from corpora import fates, write_rows

from corpusmith.operators.registry import operators
from corpusmith.pipelines.bind import RECIPES_PACKAGE, packaged_recipes
from corpusmith.pipelines.cli import main
from corpusmith.schemas.located import load_yaml

pytestmark = pytest.mark.usefixtures("counted")

COMMANDS = [
    *("run", "plan", "operators", "recipes", "schema", "status"),
    *("verify", "explain", "retry", "clean", "remove", "demo"),
]

RECIPE = """
corpus: tiny
steps:
  - fake_score: {salt: a}
  - fake_fetch: {size: 64}
  - keep: score >= 300
  - fake_top: {keep: 0.9}
output: {samples_per_shard: 20}
"""


def corpusmith(*arguments: str | Path) -> int:
    """Run a command in this process; returns its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recipe and an input of 60 rows, every tenth of which fails; it is the working directory."""
    write_rows(
        tmp_path / "urls.parquet", range(60), url=lambda i: f"http://web/{'fail' if i % 10 == 3 else 'ok'}/{i}?key=s{i}"
    )
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_as_it_is_typed(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert corpusmith(command, "--help") == 0
    text = capsys.readouterr().out
    examples = [line for line in text.splitlines() if line.startswith(f"    corpusmith {command}")]
    assert examples, text
    for ugly in ("\b", "list[", "<bool>", "Annotated"):
        assert ugly not in text


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert corpusmith("-h") == 0
    text = capsys.readouterr().out
    for command in COMMANDS:
        assert f"\n  {command} " in text
    assert "..." not in text.partition("Commands:")[2], "a summary is cut short"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert corpusmith("--version") == 0
    assert capsys.readouterr().out.startswith("corpusmith 0.")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "Usage: corpusmith"),
        (["nosuch"], "No such command 'nosuch'"),
        (["run"], "Missing argument 'RECIPE'"),
        (["run", "x", "--limit", "0"], "--limit"),
        (["run", "x", "--limit", "many"], "--limit"),
        (["run", "x", "--executor", "threads"], "'ray', 'inline'"),
        (["run", "x", "--speed", "9"], "No such option: --speed"),
        (["remove", "x", "--uids", "absent.txt"], "absent.txt"),
        (["retry", "."], "say what to retry"),
        (["run", "tiny.yaml", "--executor", "inline", "--address", "auto"], "--address"),
    ],
)
def test_a_wrong_command_is_told_without_a_traceback(
    arguments: list[str], told: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert corpusmith(*arguments) == 2
    output = capsys.readouterr()
    assert told in output.out + output.err
    assert "Traceback" not in output.err


def test_operators_are_listed_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert corpusmith("operators") == 0
    lines = capsys.readouterr().out.splitlines()
    for name, cls in operators().items():
        assert any(line.split()[:2] == [name, cls.kind] for line in lines), name


@pytest.mark.parametrize("name", sorted(operators()))
def test_all_is_told_about_each_operator(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert corpusmith("operators", name) == 0
    text = capsys.readouterr().out
    cls = operators()[name]
    assert text.startswith(f"{name} ({cls.kind}, version {cls.version})")
    assert "any value" not in text, "a parameter has no type that a person can read"
    for parameter in cls.Config.model_fields:
        assert f"\n  {parameter}: " in text
    if not any(f.is_required() for f in cls.Config.model_fields.values()) and cls.kind != "write":
        for column in cls().produces:
            assert f"\n  {column.name}: " in text


def test_an_operator_tells_types_bounds_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert corpusmith("operators", "image") == 0
    text = capsys.readouterr().out
    assert "quality: a whole number, 1 to 100 (default 95)" in text
    assert 'encode: jpg | png | webp (default "jpg")' in text
    assert "in a recipe: - image" in text


def test_an_unknown_operator_has_a_neighbour(capsys: pytest.CaptureFixture[str]) -> None:
    assert corpusmith("operators", "imagee") == 2
    assert "did you mean 'image'?" in capsys.readouterr().err


def test_recipes_are_listed_with_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert corpusmith("recipes") == 0
    lines = capsys.readouterr().out.splitlines()
    for name in packaged_recipes():
        (line,) = [line for line in lines if line.startswith(f"{name}: ")]
        assert len(line) > len(name) + 20
    assert "  download → image" in lines


def schema_of_recipes(capsys: pytest.CaptureFixture[str]) -> jsonschema.Draft202012Validator:
    """A validator by what `corpusmith schema` prints."""
    assert corpusmith("schema") == 0
    schema: Any = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", packaged_recipes())
def test_packaged_recipes_are_valid_by_the_schema(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = files(RECIPES_PACKAGE).joinpath(f"{name}.yaml").read_text("utf-8")
    recipe = load_yaml(text, source=name).value
    assert [error.message for error in schema_of_recipes(capsys).iter_errors(recipe)] == []


@pytest.mark.parametrize(
    "steps", [["imagee"], [{"image": {"sise": 3}}], [{"image": {"size": "big"}}], ["keep"], [{"keep": {"wher": "x"}}]]
)
def test_the_schema_refuses_what_a_run_refuses(steps: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    validator = schema_of_recipes(capsys)
    assert validator.is_valid({"corpus": "x", "steps": ["image", {"keep": "width > 3"}]})
    assert not validator.is_valid({"corpus": "x", "steps": steps})


def test_plan_tells_streams_barriers_columns_and_an_estimate(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert corpusmith("plan", "tiny.yaml", "--input", "urls.parquet") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "corpus tiny, by tiny.yaml, to tiny"
    assert [line.partition(":")[0] for line in lines if not line.startswith(" ")] == [
        "corpus tiny, by tiny.yaml, to tiny",
        "input",
        "stream 1 of 2",
        "barrier",
        "write",
        "estimate, at most",
    ]
    assert "      reads score" in lines
    assert "      makes media, size_bytes; media is staged" in lines
    assert "estimate, at most: 60 rows" in lines
    assert not (folder / "tiny").exists()


def test_plan_knows_the_limit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert corpusmith("plan", "tiny.yaml", "--input", "urls.parquet", "--limit", "1") == 0
    assert "estimate, at most: 1 row\n" in capsys.readouterr().out


def test_a_dry_run_is_the_plan_and_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.rglob("*"))
    assert corpusmith("plan", "tiny.yaml", "--input", "urls.parquet") == 0
    plan = capsys.readouterr().out
    assert corpusmith("run", "tiny.yaml", "--input", "urls.parquet", "--dry-run") == 0
    assert capsys.readouterr().out == plan
    assert sorted(folder.rglob("*")) == before


def test_a_run_gives_results_to_stdout_and_progress_to_stderr(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert corpusmith("run", "tiny.yaml", "--input", "urls.parquet", "--executor", "inline", "--cpus", "2") == 0
    output = capsys.readouterr()
    kept, failures, corpus, report = output.out.splitlines()
    assert "of 60 rows kept" in kept
    assert "6 failed" in kept
    assert failures == "failures: fake_fetch HTTPStatus 404 6 (10.0%)"
    assert corpus.startswith(f"corpus: {folder}/tiny (")
    assert Path(report.removeprefix("report: ")).is_file()
    assert "60 of 60 rows (100%)" in output.err
    assert "fake_fetch 60 → 54 (6 failed)" in output.err


def test_inputs_limit_and_settings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(folder / "more.parquet", range(60, 90))
    run = [
        "run",
        "tiny.yaml",
        "--executor",
        "inline",
        "--cpus",
        "1",
        "--input",
        "urls.parquet",
        "--input",
        "more.parquet",
    ]
    assert corpusmith(*run, "--output", "both") == 0
    assert "of 90 rows" in capsys.readouterr().out
    assert corpusmith(*run, "--output", "few", "--limit", "7") == 0
    assert "of 7 rows" in capsys.readouterr().out
    assert corpusmith(*run, "--output", "other", "--set", "fake_score.salt=b", "--set", "keep=score >= 0") == 0
    manifest = json.loads((folder / "other" / "manifest.json").read_text())
    assert manifest["recipe"]["steps"][0]["params"] == {"salt": "b"}
    assert manifest["recipe"]["steps"][2]["params"] == "score >= 0"


def test_status_of_what_is_unfinished_finished_and_absent(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert corpusmith("status", "tiny") == 2
    assert "there is no such folder" in capsys.readouterr().err
    (folder / "other").mkdir()
    assert corpusmith("status", "other") == 2
    assert "there is no corpus here" in capsys.readouterr().err
    assert corpusmith("run", "tiny.yaml", "--input", "urls.parquet", "--executor", "inline", "--cpus", "1") == 0
    capsys.readouterr()
    assert corpusmith("status", "tiny") == 0
    finished = capsys.readouterr().out
    assert finished.startswith("tiny: finished 20")
    assert "60 rows in, 0 made" in finished
    assert "60 rows, " in finished
    assert "6 of them failures" in finished
    (folder / "tiny" / "manifest.json").unlink()
    assert corpusmith("status", "tiny") == 0
    assert capsys.readouterr().out.startswith("not finished")


def test_a_corpus_lives_by_commands_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert corpusmith("run", "tiny.yaml", "--input", "urls.parquet", "--executor", "inline", "--cpus", "1") == 0
    assert corpusmith("verify", "tiny") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("sound:")
    uid = next(uid for uid, row in fates(folder / "tiny").items() if row["fate"] == "kept")
    assert corpusmith("explain", "tiny", uid) == 0
    assert capsys.readouterr().out.startswith(f"{uid}  kept\n")
    (folder / "opted-out.txt").write_text(f"{uid}\n")
    assert corpusmith("remove", "tiny", "--uids", "opted-out.txt") == 0
    assert capsys.readouterr().out.startswith("removed 1 samples")
    assert corpusmith("verify", "tiny") == 0
    monkeypatch.chdir("/")
    corpus = folder / "tiny"
    assert corpusmith("retry", corpus, "--failed", "--executor", "inline") == 0
    assert "fake_fetch: 6 failures will be tried again" in capsys.readouterr().err
    assert corpusmith("clean", corpus, "--dry-run") == 0
    assert capsys.readouterr().out == "would remove 0 files, 0 B\n"
    assert corpusmith("clean", corpus, "--staging") == 0
    assert "removed" in capsys.readouterr().out
    assert corpusmith("verify", corpus) == 0
    next((corpus / "shards").glob("*.tar")).unlink()
    capsys.readouterr()
    assert corpusmith("verify", corpus) == 1
    assert capsys.readouterr().out == "shards/00000.tar: missing\n"


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m corpusmith.pipelines.cli schema | head -1"
    ended = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout == "{\n"
    assert ended.stderr == ""
