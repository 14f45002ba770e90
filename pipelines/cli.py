"""The command line: `corpusmith run`, `plan`, `verify`, `explain` and the rest. Results to stdout, progress to stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from corpusmith.schemas.errors import UserError

app = typer.Typer(
    name="corpusmith",
    help="Build training corpora from the web's images and videos: every sample's fate known, every run resumable.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

EXIT_USER_ERROR = 2
EXIT_PROBLEMS = 1
EXIT_INTERRUPTED = 130

RecipeArgument = Annotated[
    str, typer.Argument(help="a recipe's YAML file, or the name of a packaged one (see `corpusmith recipes`)")
]
CorpusArgument = Annotated[str, typer.Argument(help="folder of a corpus, or its URL (s3://…)")]
InputOption = Annotated[
    list[str] | None, typer.Option("--input", help="file, folder, glob or URL of the input; repeatable")
]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="change a parameter: step.param=value; repeatable")]
OutputOption = Annotated[
    str | None, typer.Option("--output", help="folder of the corpus [default: the recipe's, else ./NAME]")
]
AddressOption = Annotated[
    str | None, typer.Option("--address", help="a Ray cluster, such as auto or host:port [default: this machine]")
]
ExecutorOption = Annotated[str, typer.Option("--executor", help="ray, or inline: one process with threads, no Ray")]
CpusOption = Annotated[int | None, typer.Option("--cpus", min=1, help="cores to use [default: all]")]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="take only the first N rows of the input")]


def _prepared(recipe: str, inputs: Sequence[str] | None, settings: Sequence[str] | None) -> Any:
    from corpusmith.pipelines.bind import load_recipe
    from corpusmith.pipelines.run import prepare

    overrides = list(settings or [])
    if inputs:
        overrides.append(f"input.path={json.dumps([_absolute(path) for path in inputs])}")
    spec, source = load_recipe(recipe, overrides)
    return prepare(spec, source)


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).absolute())


def _output(prepared: Any, output: str | None) -> str:
    return output or prepared.spec.output.path or prepared.spec.corpus


def _options(executor: str, address: str | None, cpus: int | None, limit: int | None) -> Any:
    from corpusmith.pipelines.run import RunOptions

    if executor not in ("ray", "inline"):
        raise UserError(f"unknown executor {executor!r}", where="--executor", hint="choices: ray, inline")
    if executor == "inline" and address is not None:
        raise UserError("--address is for --executor ray", where="--address")
    return RunOptions(executor, address, cpus, limit)


@app.command()
def run(
    recipe: RecipeArgument,
    inputs: InputOption = None,
    output: OutputOption = None,
    settings: SetOption = None,
    address: AddressOption = None,
    executor: ExecutorOption = "ray",
    cpus: CpusOption = None,
    limit: LimitOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the plan and stop")] = False,
) -> None:
    """Run a recipe to a finished corpus; run it again to go on where it was stopped.

    Examples:

      corpusmith run datacomp-basic --input urls.parquet --output corpus

      corpusmith run my-recipe.yaml --set image.size=384 --set download.retries=3

      corpusmith run metaclip --input "s3://bucket/urls/*.parquet" --output s3://bucket/corpus --address auto
    """
    from corpusmith.pipelines.progress import Progress
    from corpusmith.pipelines.run import run as run_recipe

    options = _options(executor, address, cpus, limit)
    prepared = _prepared(recipe, inputs, settings)
    if dry_run:
        _print_plan(prepared)
        return
    result = run_recipe(prepared, _output(prepared, output), options, Progress())
    _print_result(result)


@app.command()
def plan(
    recipe: RecipeArgument,
    inputs: InputOption = None,
    output: OutputOption = None,
    settings: SetOption = None,
) -> None:
    """Check a recipe against its input and print what a run would do, without doing it.

    Example: corpusmith plan metaclip --input urls.parquet
    """
    del output
    _print_plan(_prepared(recipe, inputs, settings))


@app.command()
def operators(
    name: Annotated[str | None, typer.Argument(help="print this operator's columns and parameters")] = None,
) -> None:
    """List the operators, or tell all about one.

    Example: corpusmith operators download
    """
    from corpusmith.operators.registry import operator_class
    from corpusmith.operators.registry import operators as all_operators

    if name is not None:
        _print_operator(operator_class(name))
        return
    table = _table("operator", "kind", "what it does")
    for known, cls in all_operators().items():
        table.add_row(known, cls.kind, (cls.__doc__ or "").strip().split("\n")[0])
    Console().print(table)


@app.command()
def recipes() -> None:
    """List the packaged recipes."""
    from corpusmith.pipelines.bind import load_recipe, packaged_recipes

    table = _table("recipe", "steps", "what it is")
    for name in packaged_recipes():
        spec, _ = load_recipe(name, [])
        table.add_row(name, " → ".join(step.name for step in spec.steps), spec.description)
    Console().print(table)


@app.command()
def schema() -> None:
    """Print the JSON Schema of recipe files, for editors.

    Example: corpusmith schema > recipe.schema.json
    """
    from corpusmith.pipelines.bind import step_schemas
    from corpusmith.schemas.recipe import recipe_json_schema

    print(json.dumps(recipe_json_schema(step_schemas()), indent=1))  # noqa: T201


@app.command()
def status(corpus: CorpusArgument) -> None:
    """Say how far a corpus is: finished or not, its counts, and what its steps have published."""
    from corpusmith.pipelines.status import corpus_status

    for line in corpus_status(_existing(corpus)):
        print(line)  # noqa: T201


@app.command()
def verify(corpus: CorpusArgument) -> None:
    """Check a finished corpus: hashes, tar and Parquet agree, no gaps, no duplicates, one fate a row."""
    from corpusmith.pipelines.verify import verify as verify_corpus

    problems = verify_corpus(_existing(corpus), _note)
    for problem in problems:
        print(problem)  # noqa: T201
    if problems:
        raise typer.Exit(EXIT_PROBLEMS)
    print("sound: every file is as the manifest says, and every row has one fate")  # noqa: T201


@app.command()
def explain(
    corpus: CorpusArgument, sample: Annotated[str, typer.Argument(help="a uid, or a URL exactly as the input gave it")]
) -> None:
    """Tell what became of a sample, and why.

    Example: corpusmith explain corpus https://example.org/cat.jpg
    """
    from corpusmith.pipelines.explain import explain as explain_sample

    for explanation in explain_sample(_existing(corpus), sample):
        _print_explanation(explanation)


@app.command()
def retry(
    corpus: CorpusArgument,
    failed: Annotated[bool, typer.Option("--failed", help="try failed rows again")] = False,
    reason: Annotated[str | None, typer.Option("--reason", help="only failures of this class, such as Timeout")] = None,
    address: AddressOption = None,
    executor: ExecutorOption = "ray",
    cpus: CpusOption = None,
) -> None:
    """Try failed rows of a corpus again, with the recipe and input of its last run.

    Example: corpusmith retry corpus --failed --reason Timeout
    """
    from corpusmith.pipelines.progress import Progress
    from corpusmith.pipelines.run import WORK_FOLDER, last_run
    from corpusmith.pipelines.run import run as run_recipe
    from corpusmith.pipelines.upkeep import forget_failures

    if not failed:
        raise UserError("say what to retry", where="retry", hint="corpusmith retry CORPUS --failed")
    storage = _existing(corpus)
    prepared, limit = last_run(storage)
    dropped = forget_failures(storage.below(WORK_FOLDER), prepared.plan, reason=reason)
    for step, number in dropped.items():
        _note(f"{step}: {number:,} failures will be tried again")
    if not dropped:
        _note("no published failure to retry; the run goes on with what is left")
    _print_result(run_recipe(prepared, corpus, _options(executor, address, cpus, limit), Progress()))


@app.command()
def clean(
    corpus: CorpusArgument,
    staging: Annotated[bool, typer.Option("--staging", help="also staged media; a later run fetches it again")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would go")] = False,
) -> None:
    """Remove results of old parameters, left-overs of killed runs and, if asked, staged media."""
    from corpusmith.pipelines.run import last_run
    from corpusmith.pipelines.upkeep import clean as clean_corpus

    storage = _existing(corpus)
    prepared, _ = last_run(storage)
    cleaned = clean_corpus(storage, prepared.plan, staging=staging, dry_run=dry_run)
    verb = "would remove" if dry_run else "removed"
    print(f"{verb} {len(cleaned.paths):,} files, {_size(cleaned.size_bytes)}")  # noqa: T201


@app.command()
def remove(
    corpus: CorpusArgument,
    uids: Annotated[Path, typer.Option("--uids", exists=True, dir_okay=False, help="a text file, one uid a line")],
) -> None:
    """Take samples out of a finished corpus, and record that it was done.

    Example: corpusmith remove corpus --uids opted-out.txt
    """
    from corpusmith.pipelines.upkeep import remove as remove_samples

    wanted = [line.strip() for line in uids.read_text().splitlines() if line.strip()]
    number = remove_samples(_existing(corpus), wanted)
    print(f"removed {number:,} samples; the ledger says so, and later runs leave them out")  # noqa: T201


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="where pictures and corpus go")] = Path("demo"),
    executor: ExecutorOption = "ray",
    cpus: CpusOption = None,
) -> None:
    """Build a small corpus of real pictures from a misbehaving web server on this machine; print the report's path."""
    from corpusmith.pipelines.demo.pictures import prepare as prepare_pictures
    from corpusmith.pipelines.demo.server import DemoServer
    from corpusmith.pipelines.progress import Progress
    from corpusmith.pipelines.run import run as run_recipe
    from corpusmith.pipelines.verify import verify as verify_corpus

    _note(f"rendering pictures below {folder}")
    progress = Progress()
    demo_input = prepare_pictures(folder, progress=_drawing(progress))
    for note in demo_input.notes:
        _note(note)
    with DemoServer(demo_input.folder) as server:
        urls = server.write_urls()
        prepared = _prepared("demo-images", [str(urls)], None)
        result = run_recipe(prepared, str(folder / "corpus"), _options(executor, None, cpus, None), progress)
    _print_result(result)
    problems = verify_corpus(result.corpus)
    if problems:
        raise UserError("the demo's corpus does not verify: " + "; ".join(problems), where=result.corpus.root)


def _drawing(progress: Any) -> Callable[[int, int], None]:
    """Progress of a drawing that tells how much is done of how much."""
    told = 0

    def tell(done: int, total: int) -> None:
        nonlocal told
        if told == 0:
            progress.start("pictures", total, "pictures")
        progress.advance(done - told)
        told = done
        if done == total:
            progress.end()

    return tell


def _existing(corpus: str) -> Any:
    from corpusmith.pipelines.storage import Storage

    storage = Storage(corpus)
    if not storage.fs.exists(storage.full("")):
        raise UserError("there is no such folder", where=corpus, hint="give the folder that `corpusmith run` wrote to")
    return storage


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _size(size_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"


def _print_plan(prepared: Any) -> None:
    from corpusmith.pipelines.describe import plan_lines

    for line in plan_lines(prepared):
        print(line)  # noqa: T201


def _print_operator(cls: Any) -> None:
    from corpusmith.pipelines.describe import operator_lines

    for line in operator_lines(cls):
        print(line)  # noqa: T201


def _print_result(result: Any) -> None:
    from corpusmith.pipelines.progress import duration

    counts = result.manifest.counts
    made = f" and {counts.rows_made:,} made" if counts.rows_made else ""
    size = sum(f.size_bytes for shard in result.manifest.shards for f in shard.files.values())
    lines = [
        f"{counts.kept:,} of {counts.rows_in:,} rows{made} kept; {counts.rejected:,} rejected, {counts.failed:,} failed"
        + (f", {counts.split:,} split" if counts.split else "")
        + f" in {duration(result.wall_s)}",
        f"corpus: {result.corpus.root} ({len(result.manifest.shards)} shards, {_size(size)})",
        f"report: {result.report}",
    ]
    print("\n".join(lines))  # noqa: T201


def _print_explanation(explanation: Any) -> None:
    row = explanation.ledger
    print(f"{row['uid']}  {row['fate']}")  # noqa: T201
    facts = {k: v for k, v in row.items() if v is not None and k not in ("uid", "fate", "url_hash", "root_uid")}
    if explanation.children:
        facts["split into"] = ", ".join(explanation.children)
    if explanation.shard is not None:
        tar, sample = explanation.shard
        facts |= {"shard": f"{tar}, key {sample['key']}", **{k: v for k, v in sample.items() if v is not None}}
        facts = {k: v for k, v in facts.items() if k not in ("key", "uid", "status")}
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        print(f"  {name:<{width}}  {value}")  # noqa: T201


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: user errors are told in one piece, an interrupt loses nothing."""
    code = _guarded(lambda: app(args=list(arguments) if arguments is not None else None, standalone_mode=False))
    sys.stdout.flush()
    sys.exit(code)


def _guarded(command: Callable[[], Any]) -> int:
    import click

    try:
        result = command()
        return result if isinstance(result, int) else 0
    except UserError as error:
        _note(f"error: {error}")
        return EXIT_USER_ERROR
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.exceptions.Abort):
        _note("\nstopped. What was published is safe; the same command goes on from there.")
        # workers may be in the middle of a download: state never depends on a tidy end
        sys.stdout.flush()
        os._exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
