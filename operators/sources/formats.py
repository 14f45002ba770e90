"""Which table reads which format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor

from corpusmith.operators.sources.arrow_table import ArrowTable
from corpusmith.operators.sources.csv_table import CsvTable
from corpusmith.operators.sources.files import SourceFile, format_of
from corpusmith.operators.sources.folder_table import folder_tables
from corpusmith.operators.sources.json_table import JsonTable
from corpusmith.operators.sources.names import list_column
from corpusmith.operators.sources.parquet_table import ParquetTable
from corpusmith.operators.sources.rows import Table
from corpusmith.operators.sources.shard_table import ShardTable
from corpusmith.operators.sources.tar_table import TarTable
from corpusmith.operators.sources.text_list import TextList
from corpusmith.schemas.recipe import InputSpec

_LOOK_ROWS = 20_000
"""Samples of all tars, or images of all folders, whose sidecars are read to learn columns and types."""
_LEAST_LOOK_ROWS = 16
_MOST_LOOK_ROWS = 1000


def open_tables(files: Sequence[SourceFile], spec: InputSpec, pool: Executor) -> Iterator[tuple[SourceFile, Table]]:
    """Look at the columns of all tables that input files make, in the order of the files.

    Args:
        files: see `list_files`; a file that belongs to another makes no table of its own.
        spec: of the input.
        pool: does the looking.

    Raises:
        UserError: a file cannot be read, or is not of its format.
    """
    look_rows = min(_MOST_LOOK_ROWS, max(_LEAST_LOOK_ROWS, _LOOK_ROWS // max(1, len(files))))
    by_path = {file.path: file for file in files}
    folders = [file for file in files if file.kind == "folder"]
    if folders:
        yield from folder_tables(folders, _MOST_LOOK_ROWS)
    heads = [file for file in files if file.kind != "folder" and not _belongs_to_another(file, by_path)]
    yield from zip(heads, pool.map(lambda file: _open_table(file, by_path, spec, look_rows), heads), strict=True)


def _belongs_to_another(file: SourceFile, by_path: dict[str, SourceFile]) -> bool:
    return file.kind == "img2dataset" and file.path.endswith(".tar") and _parquet_of(file) in by_path


def _parquet_of(file: SourceFile) -> str:
    return file.path.removesuffix(".tar") + ".parquet"


def _open_table(file: SourceFile, by_path: dict[str, SourceFile], spec: InputSpec, look_rows: int) -> Table:
    match file.kind:
        case "webdataset":
            return TarTable(file, look_rows)
        case "img2dataset":
            return ShardTable(file, by_path.get(file.path.removesuffix(".parquet") + ".tar"))
        case "hf":
            return ArrowTable(file, spec.media)
    match format_of(file.path, spec.format):
        case "parquet":
            return ParquetTable(file.path)
        case "jsonl":
            return JsonTable(file.path)
        case "txt":
            return TextList(file.path, list_column(spec))
        case format:
            return CsvTable(file.path, "\t" if format == "tsv" else ",")
