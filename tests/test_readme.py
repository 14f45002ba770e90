"""The README's examples are true: its operator runs, its recipe binds, its commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import fates, run_recipe

from corpusmith.operators.registry import operators, register
from corpusmith.pipelines.bind import bind_steps
from corpusmith.schemas.recipe import parse_recipe

README = Path(__file__).parent.parent / "README.md"


def blocks(language: str) -> list[str]:
    """Code blocks of the README."""
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def brightness() -> type:
    """The README's operator, as a module of its own."""
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 25
    module = types.ModuleType("readme_brightness")
    sys.modules[module.__name__] = module
    exec(compile(code, "readme_brightness.py", "exec"), module.__dict__)
    return register(module.Brightness)


def test_the_operator_runs_in_a_recipe(tmp_path: Path, brightness: type) -> None:
    import http.server
    import threading

    import cv2

    for value in (0, 40, 128, 200, 255):
        (tmp_path / f"{value}.png").write_bytes(
            cv2.imencode(".png", np.full((40, 40, 3), value, np.uint8))[1].tobytes()
        )
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(tmp_path))  # type: ignore[arg-type]

        def log_message(self, format: str, *args: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        names = ["0", "40", "128", "200", "255", "broken"]
        urls = [f"http://127.0.0.1:{server.server_port}/{name}.png" for name in names]
        pq.write_table(pa.table({"url": urls, "caption": names}), tmp_path / "urls.parquet")
        _, lines = blocks("yaml")
        recipe = f"corpus: bright\ninput: {{path: {tmp_path}/urls.parquet}}\nsteps:\n"
        recipe += "  - download: {allow_hosts: ['127.0.0.1'], retries: 0}\n" + lines
        run_recipe(recipe, tmp_path / "corpus")
    finally:
        server.shutdown()
        server.server_close()
    by_name = {Path(row["url"]).stem: row for row in fates(tmp_path / "corpus").values()}
    assert {name for name, row in by_name.items() if row["fate"] == "kept"} == {"40", "128", "200"}
    assert by_name["0"]["step"] == by_name["255"]["step"] == "keep"
    assert "brightness = 0" in by_name["0"]["reason"]
    assert by_name["broken"]["fate"] == "failed"
    assert by_name["broken"]["step"] == "brightness"


def test_the_recipe_binds() -> None:
    recipe, _ = blocks("yaml")
    spec = parse_recipe(recipe, source="README.md")
    assert [step.operator.name for step in bind_steps(spec, source="README.md")] == [s.name for s in spec.steps]
    assert all(step.name in operators() for step in spec.steps)


@pytest.mark.parametrize(("table", "command"), [("command", "--help"), ("recipe", "recipes")])
def test_what_the_tables_name_exists(table: str, command: str) -> None:
    (rows,) = re.findall(rf"^\| {table} \|.*\n\|[-|]+\n((?:\|.*\n)+)", README.read_text(), re.MULTILINE)
    named = [name for row in rows.splitlines() for name in re.findall(r"`(\S+?)(?: .*?)?`", row.split("|")[1])]
    told = subprocess.run(
        [sys.executable, "-m", "corpusmith.pipelines.cli", command], capture_output=True, text=True, check=True
    ).stdout
    assert named
    for name in named:
        assert re.search(rf"^ *{re.escape(name)}\b", told, re.MULTILINE), name


def test_each_step_over_the_whole_pool_is_described() -> None:
    text = (README.parent / "operators" / "README.md").read_text()
    described = set(re.findall(r"^### (\S+)", text, re.MULTILINE))
    ours = {n for n, cls in operators().items() if cls.kind == "reduce" and cls.__module__.startswith("corpusmith.")}
    assert len(ours) > 10 and ours <= described, ours - described
    linked = set(re.findall(r"\]\(#([^)]+)\)", text))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    assert linked == linked & {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
