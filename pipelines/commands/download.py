"""`corpusmith download`: the work of img2dataset under its flags, in its layout, without Ray."""

from __future__ import annotations

import typer

from corpusmith.pipelines.commands.telling import note

SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""img2dataset's flags are parsed by our own rules: underscores or dashes, `--flag True`, `--noflag`."""


def download(context: typer.Context) -> None:
    """Download images by URL and write them as img2dataset does, under its flags."""
    from corpusmith.pipelines.img2dataset.arguments import HELP_FLAGS, help_text, parse_flags

    if not context.args or HELP_FLAGS.intersection(context.args):
        print(help_text())  # noqa: T201
        return
    flags = parse_flags(context.args)
    from corpusmith.pipelines.lean import collect_seldom, keep_pandas_out

    keep_pandas_out()
    from corpusmith.pipelines.img2dataset.job import run_job
    from corpusmith.pipelines.img2dataset.telling import Telling

    collect_seldom()
    if flags.ignored:
        note(f"no effect here: {', '.join(f'--{name}' for name in flags.ignored)}")
    with Telling() as telling:
        run_job(flags, telling)
    if not flags.dry_run:
        print(telling.summary())  # noqa: T201
