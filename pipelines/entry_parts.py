"""The sources of a list of entries: each looked at before any is read, and read with its progress told."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpusmith.operators.balance.entries import MAX_CHARS, Part, listed_part, numbers_part, wordnet_part
from corpusmith.operators.balance.entry_files import is_entries_file, list_metadata, read_entries, read_table
from corpusmith.operators.balance.entry_sources import ColumnSource, as_texts
from corpusmith.operators.balance.ngrams import Choice, count_grams
from corpusmith.operators.balance.titles import TitleChoice, count_titles
from corpusmith.operators.balance.wordnet import find_wordnet
from corpusmith.operators.sources.files import SourceFile, shown
from corpusmith.operators.sources.streams import open_stored
from corpusmith.pipelines.progress import Progress

ENTRY_COLUMN, LANGUAGE_COLUMN = "entry", "language"
ENGLISH = "en"

_LISTED = pa.schema([(ENTRY_COLUMN, pa.large_string()), (LANGUAGE_COLUMN, pa.string())])


@dataclass(frozen=True)
class ListSpec:
    """What a list is made of.

    Args:
        has_numbers: the numbers 0 to 99; WordNet brings them, too.
        has_wordnet: names of WordNet's synsets.
        wordnet_path: where WordNet is; None to look for it.
        texts: tables whose texts are counted.
        text_column: their column.
        choice: of words and pairs.
        titles: tables of page titles and views.
        title_column: their column of titles.
        views_column: their column of views.
        title_choice: of titles.
        lists: lists to take as they are.
        language: of whatever names no language.
        language_column: column of the tables' languages.
        max_chars: of an entry that is no list's.
    """

    has_numbers: bool = False
    has_wordnet: bool = False
    wordnet_path: str | None = None
    texts: Sequence[str] = ()
    text_column: str = "caption"
    choice: Choice = field(default_factory=Choice)
    titles: Sequence[str] = ()
    title_column: str = "title"
    views_column: str = "views"
    title_choice: TitleChoice = field(default_factory=TitleChoice)
    lists: Sequence[str] = ()
    language: str | None = None
    language_column: str | None = None
    max_chars: int = MAX_CHARS


@dataclass(frozen=True)
class Source:
    """One source of a prepared list.

    Args:
        told: what it is, for people.
        how: what it is, for the file's metadata.
        read: gives its entries.
    """

    told: str
    how: dict[str, Any]
    read: Callable[[Progress, Notes], list[Part]]


@dataclass
class Notes:
    """What a person should know of a build.

    Args:
        left_out: why → how many rows or entries.
        remarks: sentences.
    """

    left_out: Counter[str] = field(default_factory=Counter)
    remarks: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """All of it, for a terminal."""
        told = [f"{why}: {count:,}" for why, count in self.left_out.items() if count]
        return [*(["left out", *(f"  {one}" for one in told)] if told else []), *self.remarks]


def fixed_sources(spec: ListSpec) -> Iterator[Source]:
    """WordNet and numbers."""
    if spec.has_numbers and not spec.has_wordnet:
        yield Source("the numbers 0 to 99", {"source": "number"}, lambda *_: [numbers_part()])
    if spec.has_wordnet:
        folder = find_wordnet(spec.wordnet_path)
        language = spec.language or (ENGLISH if spec.language_column else None)
        how = {"source": "wordnet", "folder": folder, "language": language}
        yield Source(
            f"the numbers 0 to 99, and names of WordNet's synsets: {folder}",
            how,
            lambda *_: [wordnet_part(folder, language)],
        )


def _columns(spec: ListSpec, **columns: str) -> dict[str, str]:
    own = {f"--{option.replace('_', '-')}": name for option, name in columns.items()}
    return own | ({"--language-column": spec.language_column} if spec.language_column else {})


def text_sources(spec: ListSpec) -> Iterator[Source]:
    """Words and pairs of texts."""
    if not spec.texts:
        return
    table = ColumnSource(spec.texts, _columns(spec, text_column=spec.text_column))
    choice, rule = spec.choice, _rule(spec.choice)

    def read(progress: Progress, notes: Notes) -> list[Part]:
        def batches() -> Iterator[tuple[pa.Array, pa.Array | None]]:
            for file, columns in _told(table, "count words", progress):
                texts = as_texts(columns[0], spec.text_column, shown(file.path))
                notes.left_out["rows without a text"] += texts.null_count
                texts, languages = _with_languages(texts, columns[1:], spec, notes, file)
                yield texts, languages

        with tempfile.TemporaryDirectory() as scratch:
            grams = count_grams(batches(), choice, scratch)
        _count_bad(table, notes)
        if grams.highest_pmi is not None:
            notes.remarks.append(
                f"no word pair reaches a PMI of {choice.min_pmi:g} bits, the highest has {grams.highest_pmi:.1f}: "
                f"a corpus of {grams.words:,} words is small for this threshold, lower --min-pmi"
            )
        return [Part(grams.table)]

    how = {"source": "texts", "files": _names(table), "column": spec.text_column, **rule}
    told = f"words{' and word pairs' if choice.min_pmi is not None else ''} of texts: {_files(table)}; {_said(rule)}"
    yield Source(told, how, read)


def title_sources(spec: ListSpec) -> Iterator[Source]:
    """Titles of pages."""
    if not spec.titles:
        return
    columns = _columns(spec, title_column=spec.title_column, views_column=spec.views_column)
    table = ColumnSource(spec.titles, columns)
    choice = spec.title_choice
    rule = {"min_views": choice.min_views, "title_share": choice.share, "max_titles": choice.max_titles}
    rule = {key: value for key, value in rule.items() if value not in (None, 1.0)}

    def read(progress: Progress, notes: Notes) -> list[Part]:
        def batches() -> Iterator[tuple[pa.Array, pa.Array, pa.Array | None]]:
            for file, (titles, views, *languages) in _told(table, "sum views", progress):
                texts = as_texts(titles, spec.title_column, shown(file.path))
                both = pa.StructArray.from_arrays([texts, as_texts(views, spec.views_column, shown(file.path))], "tv")
                both, named = _with_languages(both, languages, spec, notes, file)
                yield both.field("t"), both.field("v"), named

        with tempfile.TemporaryDirectory() as scratch:
            titles = count_titles(batches(), choice, scratch)
        _count_bad(table, notes)
        notes.left_out["rows without a title or a whole number of views"] += titles.unusable
        notes.left_out["rows whose title has a colon"] += titles.with_colon
        return [Part(titles.table)]

    how = {"source": "titles", "files": _names(table), "column": spec.title_column, **rule}
    yield Source(f"titles of pages: {_files(table)}; {_said(rule)}", how, read)


def listed_source(path: str, spec: ListSpec) -> Source:
    """A list that was handed in; null is the language of all in an entries file, and of none elsewhere."""
    how: dict[str, Any] = {"source": "list", "files": [shown(path)]}
    told = f"a list as it is: {shown(path)}"
    if path.lower().endswith((".json", ".txt")):
        entries = read_entries(path)
        part = listed_part(entries.texts, entries.languages, spec.language)
        return Source(f"{told}, {len(entries):,} entries", how, lambda *_: [part])
    if path.lower().endswith(".parquet") and is_entries_file(path):
        table = read_table(path)
        how["fingerprint"] = list_metadata(table)["fingerprint"]
        return Source(f"{told}, {table.num_rows:,} entries", how, lambda *_: [Part(table, is_listed=True)])
    return Source(told, how, _table_reader(path, spec))


def _table_reader(path: str, spec: ListSpec) -> Callable[[Progress, Notes], list[Part]]:
    table = ColumnSource([path], {"the column of entries": ENTRY_COLUMN})
    language_column = spec.language_column or LANGUAGE_COLUMN
    has_language = all(language_column in one.columns for _, one in table.tables)
    if has_language:
        table = ColumnSource([path], {"the column of entries": ENTRY_COLUMN, "--language-column": language_column})

    def read(progress: Progress, notes: Notes) -> list[Part]:
        parts = [_LISTED.empty_table()]
        for file, (entries, *languages) in _told(table, "read entries", progress):
            named = as_texts(languages[0], language_column, shown(file.path)) if languages else None
            if named is None:
                named = pa.nulls(len(entries))
            columns = [as_texts(entries, ENTRY_COLUMN, shown(file.path)), named]
            parts.append(pa.table(columns, names=_LISTED.names).cast(_LISTED))
        whole = pa.concat_tables(parts).combine_chunks()
        kept = whole.filter(pc.is_valid(whole.column(ENTRY_COLUMN)))
        _count_bad(table, notes)
        notes.left_out["rows without an entry"] += whole.num_rows - kept.num_rows
        return [listed_part(_one(kept, ENTRY_COLUMN), _one(kept, LANGUAGE_COLUMN), spec.language)]

    return read


def _one(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _with_languages(
    rows: pa.Array, languages: Sequence[pa.Array], spec: ListSpec, notes: Notes, file: SourceFile
) -> tuple[pa.Array, pa.Array | None]:
    """Rows and their languages; rows that have none, where a column should tell it, are left out."""
    if not languages:
        return rows, pa.repeat(pa.scalar(spec.language), len(rows)) if spec.language else None
    named = as_texts(languages[0], spec.language_column or "", shown(file.path)).cast(pa.string())
    if spec.language is not None:
        named = pc.fill_null(named, spec.language)
    notes.left_out["rows without a language"] += named.null_count
    is_named = pc.is_valid(named)
    return rows.filter(is_named), named.filter(is_named)


def _told(table: ColumnSource, phase: str, progress: Progress) -> Iterator[tuple[SourceFile, list[pa.Array]]]:
    """The batches of a source, with progress: in rows where all files say how many they have, else in files."""
    rows = _rows(table)
    progress.start(phase, len(table.tables) if rows is None else rows, "files" if rows is None else "rows")
    before = None
    for file, columns in table.batches():
        if rows is not None:
            progress.advance(len(columns[0]))
        elif before not in (None, file.path):
            progress.advance(1)
        before = file.path
        yield file, columns
    if rows is None:
        progress.advance(1)
    progress.end()


def _rows(table: ColumnSource) -> int | None:
    if not all(file.path.lower().endswith((".parquet", ".pq")) and not file.kind for file, _ in table.tables):
        return None
    rows = 0
    for file, _ in table.tables:
        with open_stored(file.path) as stream:
            rows += pq.read_metadata(stream).num_rows
    return rows


def _count_bad(table: ColumnSource, notes: Notes) -> None:
    notes.left_out["rows that cannot be read"] += table.bad.total()


def _rule(choice: Choice) -> dict[str, Any]:
    rule: dict[str, Any] = {
        "min_count": choice.min_count,
        "word_share": choice.word_share,
        "max_words": choice.max_words,
    }
    if choice.min_pmi is not None:
        rule |= {"min_pmi": choice.min_pmi, "min_pair_count": choice.min_pair_count, "max_pairs": choice.max_pairs}
    return {key: value for key, value in rule.items() if value is not None and (key, value) != ("word_share", 1.0)}


def _said(rule: dict[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', '-')} {value:g}" for key, value in rule.items())


def _names(table: ColumnSource) -> list[str]:
    return [shown(file.path) for file, _ in table.tables]


def _files(table: ColumnSource) -> str:
    names = _names(table)
    return names[0] if len(names) == 1 else f"{len(names):,} files, {names[0]} …"
