"""`corpusmith balance`: MetaCLIP's balancing of any Parquet with texts, without a recipe."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from corpusmith.pipelines.commands.options import CpusOption
from corpusmith.pipelines.commands.telling import note
from corpusmith.schemas.errors import UserError


def balance(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT…", help="Parquet: files, folders, patterns or URLs.", show_default=False),
    ],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="PATH", help="Parquet file to write.", show_default=False)
    ],
    entries: Annotated[
        str,
        typer.Option(metavar="LIST", help="pool, wordnet, pool+wordnet, or a file: .parquet, .json, .txt."),
    ] = "pool",
    t: Annotated[
        int | None,
        typer.Option("--t", metavar="N", help="Rows up to which an entry keeps all.", show_default=False),
    ] = None,
    tail_share: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Instead of --t: share of matches of the tail.", show_default="0.06"),
    ] = None,
    rule: Annotated[str, typer.Option(metavar="NAME", help="How entries match: metaclip or metaclip2.")] = "metaclip",
    text_column: Annotated[str, typer.Option(metavar="NAME", help="Column of the texts.")] = "caption",
    language_column: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Column of languages: each is balanced by itself.", show_default="none"),
    ] = None,
    reference_language: Annotated[
        str, typer.Option(metavar="CODE", help="With --language-column: the language that --t is of.")
    ] = "en",
    uid_column: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Column of ids to draw by.", show_default="uid, else URL and text"),
    ] = None,
    url_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of URLs, for the draw.", show_default="by habit")
    ] = None,
    online: Annotated[
        bool, typer.Option("--online", help="Keep all rows and add their weight, balance_probability.")
    ] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the draws.")] = 0,
    cpus: CpusOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="The output may be there already.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what a sample would match; write nothing.")] = False,
) -> None:
    """Balance texts over entries: thin what the frequent ones match, keep the rest.

    Rows are drawn by their identity: order and sharding of the input change nothing, and rows that are alike in URL
    and text stay or go together. Rows without a text, or that match no entry, go; with --online all rows stay, and a
    loader takes a row with probability balance_probability each time it comes by (null without a text: never).
    The counts before and after are written beside the output, as .json.

    \b
    Examples:
      corpusmith balance captions.parquet --entries words.txt --t 20 -o kept.parquet
      corpusmith balance "laion/*.parquet" --text-column TEXT --entries wordnet --tail-share 0.06 -o kept.parquet
      corpusmith balance pool --entries entries.parquet --rule metaclip2 --language-column language \\
          --t 20000 --online -o weighted.parquet
    """
    from corpusmith.pipelines.balancing import Job, balance_files, balance_sample
    from corpusmith.pipelines.lean import collect_seldom
    from corpusmith.pipelines.progress import Progress

    collect_seldom()
    config = _config(
        column=text_column,
        entries=entries,
        rule=rule,
        language_column=language_column,
        reference_language=reference_language,
        t=t,
        tail_share=tail_share,
        mode="online" if online else "cut",
    )
    job = Job(inputs, output, config, seed, uid_column, url_column, cpus, overwrite)
    with Progress() as progress:
        summary = (balance_sample if dry_run else balance_files)(job, progress)
    if dry_run:
        note("a sample, taken as if it were the pool; nothing is written")
    print(summary_line(summary))  # noqa: T201
    if not dry_run:
        print(f"{output}, counts in {job.counts_path}")  # noqa: T201


def summary_line(summary: dict[str, Any]) -> str:
    """What a balance did, in one line."""
    rows, taken = summary["rows"], summary["taken"]
    verb = "kept" if summary["mode"] == "cut" else "taken by a draw"
    parts = [
        f"t = {summary['t']:,}: {taken:,} of {rows:,} rows {verb} ({taken / rows if rows else 0:.1%})",
        f"{summary['matched_entries']:,} of {summary['entries']:,} entries matched",
        f"{summary['matches_after']:,} of {summary['matches']:,} matches",
        f"{summary['rows_unmatched']:,} rows matched none",
    ]
    if summary["failed"]:
        parts.append(f"{summary['failed']:,} without a text or a language")
    return ", ".join(parts)


def _config(**parameters: Any) -> Any:
    """The operator's parameters.

    Raises:
        UserError: one is wrong.
    """
    from pydantic import ValidationError

    from corpusmith.operators.balance.balance import Balance

    try:
        return Balance.Config(**parameters)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        options = {"column": "text-column", "entries_sha256": "entries"}
        where = f"--{options.get(name, name).replace('_', '-')}" if name else "options"
        raise UserError(first["msg"].removeprefix("Value error, "), where=where, hint="see --help") from error
