"""Which table reads which format."""

from __future__ import annotations

from corpusmith.operators.sources.csv_table import CsvTable
from corpusmith.operators.sources.files import format_of
from corpusmith.operators.sources.json_table import JsonTable
from corpusmith.operators.sources.parquet_table import ParquetTable
from corpusmith.operators.sources.rows import Table
from corpusmith.operators.sources.text_list import TextList
from corpusmith.schemas.columns import URL
from corpusmith.schemas.recipe import InputSpec


def open_table(path: str, spec: InputSpec) -> Table:
    """Look at a table's columns.

    Raises:
        UserError: the file cannot be read, or is no table of its format.
    """
    match format_of(path, spec.format):
        case "parquet":
            return ParquetTable(path)
        case "jsonl":
            return JsonTable(path)
        case "txt":
            return TextList(path, spec.url or spec.caption or URL.name)
        case format:
            return CsvTable(path, "\t" if format == "tsv" else ",")
