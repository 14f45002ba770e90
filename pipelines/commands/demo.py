"""`corpusmith demo`: a small corpus of real pictures, from a misbehaving server on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from corpusmith.pipelines.commands.options import CpusOption, ExecutorName, ExecutorOption, prepared_recipe, run_options
from corpusmith.pipelines.commands.telling import note, run_to_end
from corpusmith.schemas.errors import UserError


def demo(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where pictures and corpus go.", show_default="demo")
    ] = Path("demo"),
    executor: ExecutorOption = ExecutorName.RAY,
    cpus: CpusOption = None,
) -> None:
    """Build a small corpus of real pictures from a misbehaving web server on this machine; print the report's path.

    \b
    Example:
      corpusmith demo
    """
    from corpusmith.pipelines.demo.pictures import prepare as prepare_pictures
    from corpusmith.pipelines.demo.server import DemoServer
    from corpusmith.pipelines.verify import verify as verify_corpus

    note(f"rendering pictures below {folder}")
    for remark in prepare_pictures(folder).notes:
        note(remark)
    with DemoServer(folder) as server:
        urls = server.write_urls()
        prepared = prepared_recipe("demo-images", [str(urls)])
        result = run_to_end(prepared, str(folder / "corpus"), run_options(executor, None, cpus, None))
    problems = verify_corpus(result.corpus)
    if problems:
        raise UserError("the demo's corpus does not verify: " + "; ".join(problems), where=result.corpus.root)
