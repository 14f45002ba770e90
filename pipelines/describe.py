"""Plans, operators, recipes and results in words, for the terminal."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from inspect import cleandoc
from typing import Any, TextIO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic_core import to_jsonable_python

from corpusmith.operators.contract import Operator
from corpusmith.operators.registry import operators
from corpusmith.operators.sources.files import SourceFile, label
from corpusmith.operators.sources.tables import input_names
from corpusmith.pipelines.bind import RECIPES_PACKAGE, Step, load_recipe, packaged_recipes
from corpusmith.pipelines.harvest import failures_told
from corpusmith.pipelines.progress import duration
from corpusmith.pipelines.run import Prepared, RunResult
from corpusmith.schemas.columns import MEDIA

MEDIA_BYTES_GUESS = 25_000
"""A 256-pixel JPEG of quality 95 takes about this much; for the estimate of disk only."""

FOOTERS_AT_ONCE = 16
TOLD_PATHS = 3

_TYPE_WORDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}


def folded(lines: Iterable[str], stream: TextIO) -> Iterator[str]:
    """Lines as a terminal shows them best: broken at words, indented as they began; untouched for pipes and files."""
    width = shutil.get_terminal_size().columns if stream.isatty() else 0
    for line in lines:
        if not width or len(line) <= width:
            yield line
            continue
        indent = " " * (len(line) - len(line.lstrip()))
        hanging = indent + "  "
        yield from textwrap.wrap(line, width, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False)


def size_text(size_bytes: float) -> str:
    """A size as people say it: `640 B`, `1.5 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"


def plan_lines(prepared: Prepared, output: str, limit: int | None = None) -> Iterator[str]:
    """What a run would do: input, streams and barriers with their columns, an estimate.

    Args:
        prepared: recipe and input.
        output: folder of the corpus.
        limit: rows of the input at most.
    """
    plan, spec = prepared.plan, prepared.spec
    yield f"corpus {spec.corpus}, by {prepared.source_name}, to {output}"
    yield _input_line(prepared)
    yield f"  columns {', '.join(c.name for c in plan.source_columns)}"
    for segment in plan.segments:
        if segment.stream:
            yield f"stream {segment.index + 1} of {len(plan.segments)}: row by row, in parallel"
        for step in segment.stream:
            yield from _step_lines(prepared, step, staged=step.id == segment.staging)
        if segment.reduce is not None:
            yield "barrier: waits for all rows"
            yield from _step_lines(prepared, segment.reduce, staged=False)
    yield f"write: shards of up to {spec.output.samples_per_shard:,} samples"
    yield from _estimate(prepared, limit)
    if prepared.missing:
        skips = " ".join(f"--skip {step}" for step in prepared.missing)
        yield f"`run` would refuse: {', '.join(prepared.missing)} cannot work here; install what they need, or {skips}"


def _input_line(prepared: Prepared) -> str:
    """The input, and which of its columns are address and text: by the recipe, or by habit."""
    given = prepared.spec.input.path or []
    paths = [label(path) for path in ([given] if isinstance(given, str) else given)]
    told = ", ".join([*paths[:TOLD_PATHS], *(["…"] if len(paths) > TOLD_PATHS else [])])
    size = size_text(sum(f.size for f in prepared.files))
    names = input_names(prepared.files, prepared.spec.input)
    columns = [f"url from {names.url!r}"] if names.url is not None else []
    columns += [f"caption from {' or '.join(map(repr, names.captions))}"] if names.captions else []
    return ", ".join([f"input: {told} ({_counted(len(prepared.files), 'file')}, {size})", *columns])


def _step_lines(prepared: Prepared, step: Step, *, staged: bool) -> Iterator[str]:
    operator = step.operator
    fingerprint = prepared.plan.fingerprints[step.id]
    kept = "results kept" if operator.stored else "computed in each run"
    if operator.kind == "reduce":
        kept = "kept for this set of rows"
    yield f"  {step.id} ({operator.kind}; {kept}; {fingerprint[:8]})"
    if parameters := operator.config.model_dump(mode="json", exclude_defaults=True):
        yield f"      with  {', '.join(f'{name}: {_value(value)}' for name, value in parameters.items())}"
    yield f"      reads {', '.join(operator.requires) or 'uid'}"
    if step.produces:
        yield f"      makes {', '.join(c.name for c in step.produces)}{'; media is staged' if staged else ''}"
    if lack := prepared.missing.get(step.id):
        yield f"      LACKS {lack}"


def _value(value: Any) -> str:
    """A parameter's value as a recipe spells it, near enough."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False, default=str)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _estimate(prepared: Prepared, limit: int | None) -> Iterator[str]:
    rows = _known_rows(prepared.files)
    if rows is None and limit is None:
        yield "estimate: none, since only Parquet files tell their number of rows beforehand"
        return
    rows = min(rows if rows is not None else limit or 0, limit or rows or 0)
    steps = prepared.plan.steps
    yield f"estimate, at most: {_counted(rows, 'row')}"
    for step in steps:
        if step.operator.name == "download":
            yield f"  {rows:,} downloads by {step.id}"
    if any(MEDIA.name in (c.name for c in s.operator.produces) for s in steps):
        disk = size_text(2 * rows * MEDIA_BYTES_GUESS)
        yield f"  {disk} of disk for staging and shards, at {size_text(MEDIA_BYTES_GUESS)} an image"
    models = [f"{s.id} ({s.operator.resources.gpus:g} GPU)" for s in steps if s.operator.resources.gpus]
    yield f"  model work over {rows:,} rows: {', '.join(models)}" if models else "  no model work"


def _known_rows(sources: list[SourceFile]) -> int | None:
    """Rows of Parquet inputs, from their footers; None for other formats."""
    if not all(file.path.endswith((".parquet", ".pq")) for file in sources):
        return None
    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        return sum(pool.map(_footer_rows, sources))


def _footer_rows(file: SourceFile) -> int:
    with fsspec.open(file.path, "rb") as opened:
        return pq.read_metadata(opened).num_rows


def result_lines(result: RunResult) -> Iterator[str]:
    """What a run made."""
    counts = result.manifest.counts
    made = f" and {counts.rows_made:,} made" if counts.rows_made else ""
    split = f", {counts.split:,} split" if counts.split else ""
    size = sum(f.size_bytes for shard in result.manifest.shards for f in shard.files.values())
    yield (
        f"{counts.kept:,} of {counts.rows_in:,} rows{made} kept; {counts.rejected:,} rejected, "
        f"{counts.failed:,} failed{split}; took {duration(result.wall_s)}"
    )
    if counts.failed:
        yield f"failures: {failures_told(result.reasons, counts.rows_in + counts.rows_made)}"
    yield f"corpus: {result.corpus.root} ({_counted(len(result.manifest.shards), 'shard')}, {size_text(size)})"
    yield f"report: {result.report}"


def recipe_list() -> Iterator[str]:
    """The packaged recipes: what each is, and its steps."""
    for name in packaged_recipes():
        spec, _ = load_recipe(name)
        yield f"{name}: {spec.description or _leading_comment(name)}"
        yield f"  {' → '.join(step.name for step in spec.steps)}"
    yield ""
    yield "see `corpusmith plan NAME --input FILE`; copy one as a start: it is a YAML file in"
    yield f"  {files(RECIPES_PACKAGE)}"


def _leading_comment(name: str) -> str:
    """The first paragraph of the comment that a packaged recipe starts with."""
    lines = files(RECIPES_PACKAGE).joinpath(f"{name}.yaml").read_text("utf-8").splitlines()
    paragraph: list[str] = []
    for line in lines:
        text = line.removeprefix("#").strip()
        if not line.startswith("#") or not text:
            break
        paragraph.append(text)
    return " ".join(paragraph)


def operator_list() -> Iterator[str]:
    """All operators: name, kind, what each does."""
    known = operators()
    width = max(map(len, known), default=0)
    for name, cls in known.items():
        yield f"{name:<{width}}  {cls.kind:<8}  {_doc(cls)[0]}"
    yield ""
    yield "see `corpusmith operators NAME` for columns and parameters"


def _doc(cls: type[Operator]) -> list[str]:
    return cleandoc(cls.__doc__ or "").splitlines() or [""]


def operator_lines(cls: type[Operator]) -> Iterator[str]:
    """All about one operator: what it does, its columns and parameters, how a recipe writes it."""
    yield f"{cls.name} ({cls.kind}, version {cls.version})"
    yield from (f"  {line}".rstrip() for line in _doc(cls))
    yield f"in a recipe: {_written(cls)}"
    required = [name for name, f in cls.Config.model_fields.items() if f.is_required()]
    if cls.kind != "write":
        yield from _column_lines(cls()) if not required else ["columns depend on the parameters"]
    yield "parameters" if cls.Config.model_fields else "no parameters"
    schema = cls.Config.model_json_schema()
    for name, f in cls.Config.model_fields.items():
        default = "required" if f.is_required() else f"default {_default(f.get_default(call_default_factory=True))}"
        bare = "; may stand alone" if cls.positional == name else ""
        yield f"  {name}: {_type_words(schema['properties'][name], schema)} ({default}{bare})"
        if f.description:
            yield f"      {f.description}"


def _written(cls: type[Operator]) -> str:
    """The shortest form in which a recipe may hold the step."""
    required = [name for name, f in cls.Config.model_fields.items() if f.is_required()]
    if cls.kind == "write":
        return f"no step: `output` writes {cls.name}"
    if not required:
        return f"- {cls.name}"
    if required == [cls.positional]:
        return f"- {cls.name}: …"
    return f"- {cls.name}: {{{', '.join(f'{name}: …' for name in required)}}}"


def _default(value: Any) -> str:
    return json.dumps(to_jsonable_python(value, fallback=str), ensure_ascii=False)


def _type_words(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    """What a parameter may be, from its JSON Schema: `a whole number, 1 to 100`."""
    if "$ref" in schema:
        schema = whole["$defs"][schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type_words(option, whole) for option in schema["anyOf"]))
    choices = [schema["const"]] if "const" in schema else schema.get("enum")
    if choices:
        return " | ".join(map(_value, choices))
    return _TYPE_WORDS.get(schema.get("type", ""), "any value") + _bounds(schema)


def _bounds(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f", {low:,} to {high:,}"
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    return "".join(f", {word} {schema[key]:,}" for key, word in words.items() if key in schema)


def _column_lines(operator: Operator) -> Iterator[str]:
    yield f"reads {', '.join(operator.requires) or 'uid'}"
    if operator.produces:
        yield "makes"
    for column in operator.produces:
        unit = f", {column.unit}" if column.unit else ""
        yield f"  {column.name}: {_arrow_words(column.type)}{unit}; {column.meaning}"
    if operator.resources.gpus:
        yield f"holds {operator.resources.gpus:g} GPU"


def _arrow_words(kind: pa.DataType) -> str:
    """A type as recipes' SQL sees it."""
    return {"large_binary": "bytes", "large_string": "string"}.get(str(kind), str(kind))
