"""Helpers for tests that run recipes: inputs, runs, and what a corpus consists of."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corpusmith.pipelines.progress import Progress
from corpusmith.pipelines.run import RunOptions, RunResult, prepare, run
from corpusmith.schemas.recipe import parse_recipe


def write_rows(
    path: Path,
    numbers: Sequence[int],
    *,
    url: Callable[[int], str] = "http://web/{}".format,
    caption: Callable[[int], str] = "caption {}".format,
) -> None:
    """A Parquet input with one row a number."""
    table = pa.table({"url": [url(i) for i in numbers], "caption": [caption(i) for i in numbers]})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def run_recipe(text: str, output: Path | str, *, executor: str = "inline", cpus: int | None = None) -> RunResult:
    """Run a recipe given as YAML text."""
    prepared = prepare(parse_recipe(text, source="test.yaml"), "test.yaml")
    options = RunOptions(executor=executor, cpus=cpus)
    return run(prepared, str(output), options, Progress(stream=io.StringIO(), quiet=True))


def shard_bytes(corpus: Path) -> dict[str, str]:
    """Hashes of the tars and Parquets of a corpus."""
    files = sorted(p for p in (corpus / "shards").iterdir() if p.suffix in (".tar", ".parquet"))
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def fates(corpus: Path) -> dict[str, dict[str, Any]]:
    """uid → ledger row."""
    tables = [pq.read_table(p) for p in sorted((corpus / "ledger").glob("*.parquet"))]
    return {row["uid"]: row for row in pa.concat_tables(tables).to_pylist()} if tables else {}


def outcome(corpus: Path) -> tuple[dict[str, str], dict[str, tuple[Any, ...]]]:
    """What must be equal between two runs that should have made the same corpus."""
    keys = ("fate", "step", "reason", "error", "children", "parent_uid", "root_uid")
    return shard_bytes(corpus), {uid: tuple(row[k] for k in keys) for uid, row in fates(corpus).items()}


def cli_command(*arguments: str) -> list[str]:
    """The command line of a process of its own that knows the fake operators, too."""
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import fakes; "
    script += "from corpusmith.pipelines.cli import main; main(sys.argv[1:])"
    return [sys.executable, "-c", script, *arguments]
