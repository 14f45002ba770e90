"""The command line: `corpusmith run`, `plan`, `verify`, `explain` and the rest. Results to stdout, progress to stderr.

A command is a file of `corpusmith.pipelines.commands` and a line here. Exit codes: 0, 1 for problems that a check
found, 2 for what the user can mend, 130 for ctrl-C. Help is plain text: it reads the same in a terminal, a pipe and a
page of documentation, and examples stay as they are typed.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from corpusmith.pipelines.commands.balance import balance
from corpusmith.pipelines.commands.clean import clean
from corpusmith.pipelines.commands.demo import demo
from corpusmith.pipelines.commands.download import SETTINGS as DOWNLOAD_SETTINGS
from corpusmith.pipelines.commands.download import download
from corpusmith.pipelines.commands.entries import entries
from corpusmith.pipelines.commands.explain import explain
from corpusmith.pipelines.commands.operators import operators
from corpusmith.pipelines.commands.plan import plan
from corpusmith.pipelines.commands.recipes import recipes
from corpusmith.pipelines.commands.remove import remove
from corpusmith.pipelines.commands.retry import retry
from corpusmith.pipelines.commands.run import run
from corpusmith.pipelines.commands.schema import schema
from corpusmith.pipelines.commands.status import status
from corpusmith.pipelines.commands.subset import subset
from corpusmith.pipelines.commands.telling import EXIT_USER_ERROR, note
from corpusmith.pipelines.commands.verify import verify
from corpusmith.schemas.errors import UserError

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
            note(f"error: {error}")
        except OSError as error:
            if error.errno not in _OBSTACLES:
                raise
            note(f"error: {error.filename or 'a file'}: {error.strerror}\n  make room, or choose another place")
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


app.command(short_help="Run a recipe to a finished corpus, or go on with it.")(run)
app.command(short_help="Print what a run would do, without doing it.")(plan)
app.command(short_help="List the operators, or tell all about one.")(operators)
app.command(short_help="List the packaged recipes.")(recipes)
app.command(short_help="Balance any Parquet with texts by MetaCLIP's rule, without a recipe.")(balance)
app.add_typer(entries, name="entries", short_help="Build a list of entries to balance by, or look at one.")
app.command(short_help="Print the JSON Schema of recipes, for editors.")(schema)
app.command(short_help="Download images with img2dataset's flags, in its layout.", context_settings=DOWNLOAD_SETTINGS)(
    download
)
app.command(short_help="Say how far a corpus is.")(status)
app.command(short_help="Check a finished corpus; exit code 1 if something is wrong.")(verify)
app.command(short_help="Tell what became of a sample, and why.")(explain)
app.command(short_help="Write a selection as a file of ids, as DataComp exchanges them.")(subset)
app.command(short_help="Try failed rows again.")(retry)
app.command(short_help="Remove results and left-overs that are of no more use.")(clean)
app.command(short_help="Take samples out of a finished corpus.")(remove)
app.command(short_help="Build a small corpus from a misbehaving web server on this machine.")(demo)


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
