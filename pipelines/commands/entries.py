"""`corpusmith entries`: lists of entries to balance by."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from corpusmith.pipelines.commands.telling import note, print_lines
from corpusmith.schemas.errors import UserError

entries = typer.Typer(
    help="Build the list of entries that a balance matches texts against, or look at one.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_SOURCES, _WORDS, _TITLES, _ALL = "Sources", "Words and pairs", "Titles", "All"


def _paths(option: str, help: str) -> typer.models.OptionInfo:
    return typer.Option(option, metavar="PATH", help=f"{help} Repeatable.", show_default=False)


@entries.command(short_help="Make a list of entries from WordNet, texts, titles and lists.")
def build(
    output: Annotated[
        str, typer.Argument(metavar="OUT.parquet", help="The file to write; local or a URL.", show_default=False)
    ],
    wordnet: Annotated[bool, typer.Option("--wordnet", help="Take names of WordNet's synsets and 0 to 99.")] = False,
    wordnet_path: Annotated[
        str | None,
        typer.Option(
            "--wordnet-path", metavar="FOLDER", help="Where WordNet's data.noun is.", show_default="looked for"
        ),
    ] = None,
    numbers: Annotated[bool, typer.Option("--numbers", help="Take the numbers 0 to 99 without WordNet.")] = False,
    texts: Annotated[list[str] | None, _paths("--texts", "Count words of texts: Parquet, CSV, JSONL, or .txt.")] = None,
    text_column: Annotated[str, typer.Option("--text-column", metavar="NAME", help="Column of the texts.")] = "caption",
    min_count: Annotated[int, typer.Option(metavar="N", min=1, help="Occurrences that a word needs.")] = 100,
    word_share: Annotated[
        float, typer.Option(metavar="SHARE", min=0, max=1, help="Of distinct words, the most frequent.")
    ] = 1.0,
    max_words: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Words of a language at most.", show_default="all")
    ] = None,
    bigrams: Annotated[bool, typer.Option("--bigrams", help="Take word pairs of the texts, too.")] = False,
    min_pmi: Annotated[
        float, typer.Option(metavar="BITS", help="Pointwise mutual information that a pair needs.")
    ] = 30.0,
    min_pair_count: Annotated[int, typer.Option(metavar="N", min=1, help="Occurrences that a pair needs.")] = 1,
    max_pairs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Pairs of a language at most.", show_default="all")
    ] = None,
    titles: Annotated[list[str] | None, _paths("--titles", "Take titles of pages by views.")] = None,
    title_column: Annotated[str, typer.Option(metavar="NAME", help="Column of the titles.")] = "title",
    views_column: Annotated[str, typer.Option(metavar="NAME", help="Column of their views.")] = "views",
    min_views: Annotated[int, typer.Option(metavar="N", min=1, help="Views that a title needs, in all.")] = 70,
    title_share: Annotated[
        float, typer.Option(metavar="SHARE", min=0, max=1, help="Of distinct titles, the most viewed.")
    ] = 1.0,
    max_titles: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Titles of a language at most.", show_default="all")
    ] = None,
    lists: Annotated[
        list[str] | None,
        _paths("--from", "Take a list as it is: .txt, .json, entries.parquet, or a table with a column entry."),
    ] = None,
    language: Annotated[
        str | None,
        typer.Option("--language", metavar="CODE", help="Language of all that names none.", show_default=False),
    ] = None,
    language_column: Annotated[
        str | None,
        typer.Option("--language-column", metavar="NAME", help="Column of the tables' languages.", show_default="none"),
    ] = None,
    max_chars: Annotated[int, typer.Option(metavar="N", min=1, help="Characters of an entry at most.")] = 256,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Look at the sources and tell what would be done.")
    ] = False,
) -> None:
    """Make a list of entries. Sources are joined in this order, an entry that stands already is not added again:
    WordNet, words and word pairs of texts, titles, lists. Only lists keep their duplicates.

    The defaults are MetaCLIP's, for a corpus of a billion words: a smaller one needs lower thresholds, such as
    --min-count 5 --min-pmi 8 --min-pair-count 5. With --language-column or --language it is a list for each
    language, as MetaCLIP 2 has them; its limits are in the third example. Counts are spilled below TMPDIR.

    \b
    Examples:
      corpusmith entries build entries.parquet --wordnet --texts captions.parquet --bigrams --min-pmi 8
      corpusmith entries build entries.parquet --wordnet --titles views.csv --min-views 70
      corpusmith entries build worldwide.parquet --numbers --texts 'pages/*.parquet' --text-column text \\
        --language-column language --min-count 1 --word-share 0.1 --max-words 251465 --bigrams --max-pairs 100646 \\
        --titles views.parquet --min-views 1 --title-share 0.76 --max-titles 61235
      corpusmith entries build entries.parquet --from metadata.json
    """
    from corpusmith.operators.balance.ngrams import Choice
    from corpusmith.operators.balance.titles import TitleChoice
    from corpusmith.pipelines.entry_lists import build, destination, prepare, summary_lines
    from corpusmith.pipelines.entry_parts import ListSpec
    from corpusmith.pipelines.progress import Progress

    if bigrams and not texts:
        raise UserError("word pairs are taken from texts", where="--bigrams", hint="name some with --texts")
    for option, value in {"--min-pmi": min_pmi, "--word-share": word_share, "--title-share": title_share}.items():
        if not math.isfinite(value):
            raise UserError(f"{value} is no number", where=option, hint="leave it out for MetaCLIP's")
    spec = ListSpec(
        has_numbers=numbers,
        has_wordnet=wordnet or wordnet_path is not None,
        wordnet_path=wordnet_path,
        texts=texts or (),
        text_column=text_column,
        choice=Choice(min_count, word_share, max_words, min_pmi if bigrams else None, min_pair_count, max_pairs),
        titles=titles or (),
        title_column=title_column,
        views_column=views_column,
        title_choice=TitleChoice(min_views, title_share, max_titles),
        lists=lists or (),
        language=language,
        language_column=language_column,
        max_chars=max_chars,
    )
    storage, name = destination(output, is_replaced=overwrite)
    sources = prepare(spec)
    if dry_run:
        print_lines([f"would write {output} from", *(f"  {source.told}" for source in sources)])
        return
    with Progress() as progress:
        table, notes = build(sources, spec, progress)
    storage.publish_table(name, table)
    for line in notes.lines():
        note(line)
    print_lines(summary_lines(output, table, shown_each=0))


@entries.command(short_help="Say what a list holds.")
def show(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="An entries file, or a .txt or .json list.", show_default=False)
    ],
) -> None:
    """Say how many entries a list has of which source and language, show some of each, and tell its fingerprint.

    \b
    Example:
      corpusmith entries show entries.parquet
    """
    from corpusmith.pipelines.entry_lists import list_table, summary_lines

    print_lines(summary_lines(file, list_table(file), shown_each=5))
