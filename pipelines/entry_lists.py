"""Building a list of entries: its sources read in MetaCLIP's order and joined, and what a list holds told.

Whatever can be wrong with options and files is found by `prepare`, before the first text is counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib.metadata import version

import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.operators.balance.entries import join, listed_part
from corpusmith.operators.balance.entry_files import entries_table, list_metadata, read_entries, read_table
from corpusmith.operators.sources.files import shown
from corpusmith.pipelines.entry_parts import (
    ListSpec,
    Notes,
    Source,
    fixed_sources,
    listed_source,
    text_sources,
    title_sources,
)
from corpusmith.pipelines.progress import Progress
from corpusmith.pipelines.storage import Storage
from corpusmith.schemas.errors import UserError

MAX_GROUPS = 60
"""Sources and languages that a summary tells each of."""


def prepare(spec: ListSpec) -> list[Source]:
    """The sources of a list, in their order, each looked at.

    Raises:
        UserError: there is none, or one cannot be had.
    """
    sources = [
        *(*fixed_sources(spec), *text_sources(spec), *title_sources(spec)),
        *(listed_source(path, spec) for path in spec.lists),
    ]
    if not sources:
        hint = "name some: --wordnet, --texts FILE, --titles FILE, --from FILE, --numbers; see --help"
        raise UserError("a list of entries needs a source", hint=hint)
    return sources


def build(sources: Sequence[Source], spec: ListSpec, progress: Progress) -> tuple[pa.Table, Notes]:
    """The table of an entries file, ready to be written, and what to say of it.

    Raises:
        UserError: a source cannot be read, or there is no entry at all.
    """
    notes = Notes()
    parts = [part for source in sources for part in source.read(progress, notes)]
    joined = join(parts, spec.max_chars)
    notes.left_out.update({f"entries {why}": count for why, count in joined.left_out.items()})
    if not joined.table.num_rows:
        hint = " ".join(["lower --min-count, --min-pmi or --min-views;", *notes.remarks])
        raise UserError("no entry was found", hint=hint)
    how = {"corpusmith": version("corpusmith"), "max_chars": spec.max_chars, "sources": [s.how for s in sources]}
    return entries_table(joined.table, how), notes


def destination(output: str, *, is_replaced: bool) -> tuple[Storage, str]:
    """The folder and the name of a file to be written.

    Raises:
        UserError: it is no Parquet, or is there already and not to be replaced.
    """
    if not output.lower().endswith(".parquet"):
        raise UserError("an entries file is a Parquet", where=output, hint="let its name end in .parquet")
    folder, _, name = output.rpartition("/")
    storage = Storage(folder or ("/" if output.startswith("/") else "."))
    if storage.exists(name) and not is_replaced:
        raise UserError("the file is there already", where=output, hint="name another, or add --overwrite")
    return storage, name


def list_table(path: str) -> pa.Table:
    """A list as the table of an entries file, whatever it is stored as.

    Raises:
        UserError: it cannot be read.
    """
    if path.lower().endswith(".parquet"):
        return read_table(path)
    entries = read_entries(path)
    return entries_table(join([listed_part(entries.texts, entries.languages, None)]).table, {})


def summary_lines(path: str, table: pa.Table, *, shown_each: int) -> Iterator[str]:
    """How many entries of which source and language a list has.

    Args:
        path: of the list.
        table: of an entries file.
        shown_each: entries to show of each source and language.
    """
    told = list_metadata(table)
    yield f"{shown(path)}: {table.num_rows:,} entries, fingerprint {told['fingerprint']}"
    groups = table.group_by(["source", "language"], use_threads=False).aggregate([([], "count_all")])
    for row in groups.slice(0, MAX_GROUPS).to_pylist():
        source, language = row["source"], row["language"]
        yield f"  {source:9} {language or '':9} {row['count_all']:>11,}"
        if shown_each:
            is_own = pc.field("language").is_null() if language is None else pc.field("language") == language
            own = table.filter((pc.field("source") == source) & is_own).column("entry")
            yield f"    {', '.join(json.dumps(e, ensure_ascii=False) for e in own.slice(0, shown_each).to_pylist())}"
    if groups.num_rows > MAX_GROUPS:
        yield f"  and {groups.num_rows - MAX_GROUPS:,} more sources and languages"
