"""The command line: `corpusmith run`, `plan`, `verify`, `explain` and the rest. Results to stdout, progress to stderr.

Exit codes: 0, 1 for problems that a check found, 2 for what the user can mend, 130 for ctrl-C. Help is plain text:
it reads the same in a terminal, a pipe and a page of documentation, and examples stay as they are typed.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from corpusmith.schemas.errors import UserError

EXIT_USER_ERROR = 2
EXIT_PROBLEMS = 1
EXIT_INTERRUPTED = 130

GRACE_S = 5.0
"""After ctrl-C, what workers have in hand is given this long to be published."""

_OBSTACLES = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.ENOTDIR,
        errno.ENAMETOOLONG,
    }
)
"""Errors of the file system that are no bug: there is no room, or no right to write."""


class _Group(TyperGroup):
    """All commands: user errors are told in one piece, an interrupt loses nothing."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            _note(f"error: {error}")
        except OSError as error:
            if error.errno not in _OBSTACLES:
                raise
            _note(f"error: {error.filename or 'a file'}: {error.strerror}\n  make room, or choose another place")
        except KeyboardInterrupt:
            _end_now()
        raise typer.Exit(EXIT_USER_ERROR)


app = typer.Typer(
    cls=_Group,
    name="corpusmith",
    help="Build training corpora from the web's images and videos: every sample's fate known, every run resumable.",
    epilog="Start with `corpusmith demo`, or with `corpusmith recipes` and `corpusmith plan`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
)


class ExecutorName(StrEnum):
    """Who runs the work."""

    RAY = "ray"
    INLINE = "inline"


RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe's YAML file, or a packaged recipe's name.", show_default=False)
]
CorpusArgument = Annotated[
    str, typer.Argument(metavar="CORPUS", help="Folder of a corpus, or its URL (s3://…).", show_default=False)
]
InputOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input", metavar="PATH", help="Input: file, folder, pattern or URL. Repeatable.", show_default=False
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change the recipe: image.size=384. Repeatable.", show_default=False
    ),
]
OutputOption = Annotated[
    str | None,
    typer.Option("--output", metavar="PATH", help="Folder of the corpus.", show_default="the recipe's, else ./NAME"),
]
AddressOption = Annotated[
    str | None,
    typer.Option("--address", metavar="HOST:PORT", help="A Ray cluster; or auto.", show_default="this machine"),
]
ExecutorOption = Annotated[
    ExecutorName, typer.Option("--executor", metavar="NAME", help="ray; or inline: threads of one process, no Ray.")
]
CpusOption = Annotated[int | None, typer.Option("--cpus", metavar="N", min=1, help="Cores to use.", show_default="all")]
LimitOption = Annotated[
    int | None, typer.Option("--limit", metavar="N", min=1, help="Take only the first N rows.", show_default="all rows")
]


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"corpusmith {version('corpusmith')}")  # noqa: T201
        raise typer.Exit


@app.callback()
def _options_of_all(
    is_version_asked: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    del is_version_asked


@app.command(short_help="Run a recipe to a finished corpus, or go on with it.")
def run(
    recipe: RecipeArgument,
    inputs: InputOption = None,
    output: OutputOption = None,
    settings: SetOption = None,
    address: AddressOption = None,
    executor: ExecutorOption = ExecutorName.RAY,
    cpus: CpusOption = None,
    limit: LimitOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
) -> None:
    """Run a recipe to a finished corpus.

    It may be stopped anywhere: the same command goes on from there. A changed recipe or a longer input computes only
    what is new.

    \b
    Examples:
      corpusmith run datacomp-basic --input urls.parquet --output corpus
      corpusmith run my-recipe.yaml --set image.size=384 --set download.retries=3
      corpusmith run metaclip --input "s3://bucket/urls/*.parquet" \\
          --output s3://bucket/corpus --address auto
    """
    options = _options(executor, address, cpus, limit)
    prepared = _prepared(recipe, inputs, settings)
    if dry_run:
        _print_plan(prepared, output, limit)
        return
    _run(prepared, _output(prepared, output), options)


@app.command(short_help="Print what a run would do, without doing it.")
def plan(
    recipe: RecipeArgument,
    inputs: InputOption = None,
    output: OutputOption = None,
    settings: SetOption = None,
    limit: LimitOption = None,
) -> None:
    """Check a recipe against its input and print what a run would do, without doing it.

    \b
    Example:
      corpusmith plan metaclip --input urls.parquet
    """
    _print_plan(_prepared(recipe, inputs, settings), output, limit)


@app.command(short_help="List the operators, or tell all about one.")
def operators(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Tell about this one: its columns and parameters.", show_default=False),
    ] = None,
) -> None:
    """List the operators, which are the steps that a recipe may have; or tell all about one.

    \b
    Examples:
      corpusmith operators
      corpusmith operators download
    """
    from corpusmith.operators.registry import operator_class
    from corpusmith.pipelines.describe import operator_lines, operator_list

    _print_lines(operator_lines(operator_class(name)) if name is not None else operator_list())


@app.command(short_help="List the packaged recipes.")
def recipes() -> None:
    """List the packaged recipes: what each is, and its steps.

    \b
    Example:
      corpusmith recipes
    """
    from corpusmith.pipelines.describe import recipe_list

    _print_lines(recipe_list())


@app.command(short_help="Print the JSON Schema of recipes, for editors.")
def schema() -> None:
    """Print the JSON Schema of recipe files, by which editors complete and check them.

    \b
    Example:
      corpusmith schema > recipe.schema.json
    """
    from corpusmith.pipelines.bind import step_schemas
    from corpusmith.schemas.recipe import recipe_json_schema

    print(json.dumps(recipe_json_schema(step_schemas()), indent=1))  # noqa: T201


@app.command(short_help="Say how far a corpus is.")
def status(corpus: CorpusArgument) -> None:
    """Say how far a corpus is: finished or not, its counts, who works on it, what its steps have published.

    \b
    Example:
      corpusmith status corpus
    """
    from corpusmith.pipelines.status import corpus_status

    _print_lines(corpus_status(_existing(corpus)))


@app.command(short_help="Check a finished corpus; exit code 1 if something is wrong.")
def verify(corpus: CorpusArgument) -> None:
    """Check a finished corpus: hashes, tar and Parquet agree, no gaps, no duplicates, one fate a row.

    Prints a line for each problem, and then ends with exit code 1.

    \b
    Example:
      corpusmith verify corpus
    """
    from corpusmith.pipelines.verify import verify as verify_corpus

    problems = verify_corpus(_existing(corpus), _note)
    _print_lines(problems)
    if problems:
        raise typer.Exit(EXIT_PROBLEMS)
    print("sound: every file is as the manifest says, and every row has one fate")  # noqa: T201


@app.command(short_help="Tell what became of a sample, and why.")
def explain(
    corpus: CorpusArgument,
    sample: Annotated[
        str,
        typer.Argument(metavar="SAMPLE", help="A uid, or a URL exactly as the input has it.", show_default=False),
    ],
) -> None:
    """Tell what became of a sample, and why.

    \b
    Examples:
      corpusmith explain corpus https://example.org/cat.jpg
      corpusmith explain corpus 0f3c2a9be17d4e558c6a1b2d3e4f5a6b
    """
    from corpusmith.pipelines.explain import explain as explain_sample
    from corpusmith.pipelines.explain import explanation_lines

    for explanation in explain_sample(_existing(corpus), sample):
        _print_lines(explanation_lines(explanation))


@app.command(short_help="Try failed rows again.")
def retry(
    corpus: CorpusArgument,
    failed: Annotated[bool, typer.Option("--failed", help="Try failed rows again.")] = False,
    reason: Annotated[
        str | None,
        typer.Option("--reason", metavar="CLASS", help="Only failures of this class.", show_default="all"),
    ] = None,
    address: AddressOption = None,
    executor: ExecutorOption = ExecutorName.RAY,
    cpus: CpusOption = None,
) -> None:
    """Try failed rows again, with the recipe and the input of the corpus's last run.

    \b
    Examples:
      corpusmith retry corpus --failed
      corpusmith retry corpus --failed --reason Timeout
    """
    from corpusmith.pipelines.run import last_run
    from corpusmith.pipelines.upkeep import forget_failures
    from corpusmith.schemas.manifest import WORK_FOLDER

    if not failed:
        raise UserError("say what to retry", where="retry", hint="corpusmith retry CORPUS --failed")
    storage = _existing(corpus)
    prepared, limit = last_run(storage)
    options = _options(executor, address, cpus, limit)
    dropped = forget_failures(storage.below(WORK_FOLDER), prepared.plan, reason=reason)
    for step, number in dropped.items():
        _note(f"{step}: {number:,} failures will be tried again")
    if not dropped:
        _note("no published failure to retry; the run goes on with what is left")
    _run(prepared, corpus, options)


@app.command(short_help="Remove results and left-overs that are of no more use.")
def clean(
    corpus: CorpusArgument,
    staging: Annotated[bool, typer.Option("--staging", help="Staged media, too; a later run makes it again.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove results of old parameters and left-overs of killed runs; the corpus itself stays as it is.

    \b
    Examples:
      corpusmith clean corpus --dry-run
      corpusmith clean corpus --staging
    """
    from corpusmith.pipelines.describe import size_text
    from corpusmith.pipelines.run import last_run
    from corpusmith.pipelines.upkeep import clean as clean_corpus

    storage = _existing(corpus)
    prepared, _ = last_run(storage)
    cleaned = clean_corpus(storage, prepared.plan, staging=staging, dry_run=dry_run)
    verb = "would remove" if dry_run else "removed"
    for folder, (files, size) in cleaned.by_folder().items():
        print(f"  {folder}: {files:,} files, {size_text(size)}")  # noqa: T201
    print(f"{verb} {len(cleaned.entries):,} files, {size_text(cleaned.size_bytes)}")  # noqa: T201


@app.command(short_help="Take samples out of a finished corpus.")
def remove(
    corpus: CorpusArgument,
    uids: Annotated[
        Path,
        typer.Option(
            "--uids",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="A text file, one uid a line.",
            show_default=False,
        ),
    ],
) -> None:
    """Take samples, and what was split from them, out of a finished corpus, and record that it was done.

    \b
    Example:
      corpusmith remove corpus --uids opted-out.txt
    """
    from corpusmith.pipelines.removal import read_uids
    from corpusmith.pipelines.removal import remove as remove_samples

    removed = remove_samples(_existing(corpus), read_uids(uids))
    if removed.ended:
        _note(f"an earlier removal was interrupted: {removed.ended:,} samples have gone only now")
    if removed.unknown:
        _note(f"{removed.unknown:,} of the uids are not in this corpus")
    print(f"removed {removed.samples:,} samples; the ledger says so, and later runs leave them out")  # noqa: T201


@app.command(short_help="Build a small corpus from a misbehaving web server on this machine.")
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

    _note(f"rendering pictures below {folder}")
    for note in prepare_pictures(folder).notes:
        _note(note)
    with DemoServer(folder) as server:
        urls = server.write_urls()
        prepared = _prepared("demo-images", [str(urls)], None)
        result = _run(prepared, str(folder / "corpus"), _options(executor, None, cpus, None))
    problems = verify_corpus(result.corpus)
    if problems:
        raise UserError("the demo's corpus does not verify: " + "; ".join(problems), where=result.corpus.root)


def _prepared(recipe: str, inputs: Sequence[str] | None, settings: Sequence[str] | None) -> Any:
    from corpusmith.pipelines.bind import load_recipe
    from corpusmith.pipelines.run import prepare

    overrides = list(settings or [])
    if inputs:
        overrides.append(f"input.path={json.dumps(list(inputs))}")
    spec, source = load_recipe(recipe, overrides)
    # `retry` and `clean` find the input from any folder
    paths = [spec.input.path] if isinstance(spec.input.path, str) else spec.input.path
    spec.input.path = [_absolute(path) for path in paths] if paths else None
    return prepare(spec, source)


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).expanduser().absolute())


def _output(prepared: Any, output: str | None) -> str:
    return output or prepared.spec.output.path or prepared.spec.corpus


def _options(executor: ExecutorName, address: str | None, cpus: int | None, limit: int | None) -> Any:
    from corpusmith.pipelines.run import RunOptions

    if executor is ExecutorName.INLINE and address is not None:
        raise UserError("a cluster is for --executor ray", where="--address", hint="leave one of the two out")
    return RunOptions(executor.value, address, cpus, limit)


def _run(prepared: Any, output: str, options: Any) -> Any:
    from corpusmith.pipelines.describe import result_lines
    from corpusmith.pipelines.progress import Progress
    from corpusmith.pipelines.run import run as run_recipe

    with Progress() as progress:
        result = run_recipe(prepared, output, options, progress)
    _print_lines(result_lines(result))
    return result


def _print_plan(prepared: Any, output: str | None, limit: int | None) -> None:
    from corpusmith.pipelines.describe import plan_lines

    _print_lines(plan_lines(prepared, _output(prepared, output), limit))


def _existing(corpus: str) -> Any:
    from corpusmith.pipelines.storage import Storage

    storage = Storage(corpus)
    if not storage.fs.exists(storage.full("")):
        raise UserError("there is no such folder", where=corpus, hint="give the folder that `corpusmith run` wrote to")
    return storage


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def _print_lines(lines: Iterable[str]) -> None:
    from corpusmith.pipelines.describe import folded

    for line in folded(lines, sys.stdout):
        print(line)  # noqa: T201


def _end_now() -> NoReturn:
    """End the process whatever its threads are at: state depends on no tidy end, children die with their parent."""
    show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
    os.write(2, f"{show_cursor}stopped; what was published is safe, and the same command goes on from there\n".encode())
    os._exit(EXIT_INTERRUPTED)


def _interrupted(signal_number: int, frame: FrameType | None) -> None:
    """Ctrl-C: workers may publish what they have in hand; a second one, or too long a wait, ends it."""
    del signal_number, frame
    signal.signal(signal.SIGINT, lambda *_: _end_now())
    # not print(): the interrupted code may be in the middle of one
    os.write(2, b"\nstopping (ctrl-C again: at once)\n")
    timer = threading.Timer(GRACE_S, _end_now)
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt


@contextmanager
def _interruptible() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, _interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point.

    Args:
        arguments: what follows the program's name; None for those of the process.

    Raises:
        SystemExit: always; see the module's exit codes.
    """
    with _interruptible():
        app(args=list(arguments) if arguments is not None else None, prog_name="corpusmith")
    sys.exit(0)


if __name__ == "__main__":
    main()
