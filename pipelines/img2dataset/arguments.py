"""Command-line arguments as img2dataset takes them: flags with underscores or dashes, values as Python literals.

`--flag value`, `--flag=value`, `--flag` and `--noflag` for booleans; lists as `["a","b"]` or `[a,b]`. A command line
that works with img2dataset is to work here as it stands, and a wrong one is to say what is wrong with it.
"""

from __future__ import annotations

import ast
import difflib
import textwrap
import types
import typing
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from corpusmith.pipelines.img2dataset.flags import Flags, refused
from corpusmith.schemas.errors import UserError

HELP_FLAGS = frozenset({"-h", "--help"})
WIDTH = 100
_INDENT = 6
_SHORT = {"p": "processes_count", "b": "bbox_col", "n": "number_sample_per_shard", "w": "wandb_project"}
_SHORT["v"] = "verify_hash"

EXAMPLES = """\
Examples:
  corpusmith download myimglist.txt --output_folder=images --thread_count=64 --image_size=256

  corpusmith download --url_list cc3m.tsv --input_format "tsv" --url_col "url" --caption_col "caption" \\
    --output_format webdataset --output_folder cc3m --processes_count 16 --thread_count 64 --image_size 256

  corpusmith download --url_list laion400m-meta --input_format "parquet" --url_col "URL" --caption_col "TEXT" \\
    --output_format webdataset --output_folder laion400m-data --processes_count 16 --thread_count 128 \\
    --image_size 256 --save_additional_columns '["NSFW","similarity","LICENSE"]'

  corpusmith download … --incremental_mode retry      # failed rows of the same output again
"""


def parse_flags(arguments: Sequence[str]) -> Flags:
    """The flags of a command line.

    Raises:
        UserError: an unknown flag, a wrong value, or no URL list.
    """
    values = _values(arguments)
    if "url_list" not in values:
        raise UserError("there is no list of URLs", where="download", hint="corpusmith download URL_LIST [FLAGS]")
    try:
        return Flags(**{name: _converted(name, value) for name, value in values.items()})
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0]) if problem["loc"] else "download"
        raise _explained(name, problem) from error


def _values(arguments: Sequence[str]) -> dict[str, str | bool]:
    """Name → text as given, True for a flag without a value."""
    values: dict[str, str | bool] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not _is_flag(word):
            if "url_list" in values:
                raise UserError(f"what is {word!r} for?", where="download", hint="values follow their flags")
            values["url_list"] = word
            continue
        given, has_value, value = word.partition("=")
        name, is_negated = _name(given)
        if has_value:
            values[name] = value
        elif _is_boolean(name) and not (rest and rest[0].lower() in ("true", "false")):
            values[name] = "False" if is_negated else True
        elif not rest or (_is_flag(rest[0]) and not is_negated):
            raise refused(name, "a value is missing")
        else:
            values[name] = rest.pop(0)
    return values


def _is_flag(word: str) -> bool:
    return word.startswith("--") or (len(word) > 1 and word[0] == "-" and not word[1:2].isdigit() and word[1] != ".")


def _name(given: str) -> tuple[str, bool]:
    """The flag's name, and whether it is given in the negative (`--noextract_exif`)."""
    text = given.lstrip("-").replace("-", "_")
    text = _SHORT.get(text, text)
    if text in Flags.model_fields:
        return text, False
    negated = text.removeprefix("no").removeprefix("_")
    if text.startswith("no") and negated in Flags.model_fields and _is_boolean(negated):
        return negated, True
    close = difflib.get_close_matches(text, Flags.model_fields, n=1)
    guess = f"did you mean --{close[0]}? " if close else ""
    raise UserError("there is no such flag", where=given, hint=f"{guess}corpusmith download --help lists all flags")


def _is_boolean(name: str) -> bool:
    return Flags.model_fields[name].annotation is bool


def _types(field: FieldInfo) -> tuple[Any, ...]:
    """The types that a flag may have, None as NoneType."""
    is_union = typing.get_origin(field.annotation) in (types.UnionType, typing.Union)
    return typing.get_args(field.annotation) if is_union else (field.annotation,)


def _is_list(name: str) -> bool:
    return any(typing.get_origin(type) in (list, tuple) for type in _types(Flags.model_fields[name]))


def _converted(name: str, value: str | bool) -> Any:
    """A value as the flag's type wants it; text where it is none, which validation then refuses."""
    if isinstance(value, bool):
        return value
    may_be_none = type(None) in _types(Flags.model_fields[name])
    if value in ("None", "null") and may_be_none:
        return None
    if _is_list(name):
        return _list(value)
    return value


def _list(value: str) -> list[str]:
    """A list as Python, JSON, or bare words in brackets or without."""
    try:
        parsed = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        parsed = [word.strip().strip("'\"") for word in value.strip().strip("[]()").split(",")]
        parsed = [word for word in parsed if word]
    return [str(item) for item in parsed] if isinstance(parsed, list | tuple) else [str(parsed)]


def _explained(name: str, problem: Any) -> UserError:
    message = problem["msg"].removeprefix("Value error, ")
    given = problem.get("input")
    shown = f" (given: {given!r})"[:200] if isinstance(given, str | int | float) else ""
    return refused(name, f"{message}{shown}")


def help_text() -> str:
    """The help: how it is used, examples, and the flags in groups, each with type, default and meaning."""
    lines = [
        "Usage: corpusmith download URL_LIST [FLAGS]",
        "",
        *textwrap.wrap(
            "Download images by URL, resize them, and write them in img2dataset's layout, under its flags. Run the "
            "same command again to go on where it stopped.",
            WIDTH,
        ),
        "",
        EXAMPLES,
    ]
    group = None
    for name, field in Flags.model_fields.items():
        assert isinstance(field.json_schema_extra, dict)
        if field.json_schema_extra["group"] != group:
            group = field.json_schema_extra["group"]
            lines += ["", f"{group}:"]
        lines += _flag_lines(name, field)
    return "\n".join(lines)


def _flag_lines(name: str, field: FieldInfo) -> list[str]:
    default = ""
    if not field.is_required() and "[default:" not in (field.description or ""):
        default = f"  [default: {field.default}]"
    text = f"{field.description}{default}"
    head = f"  --{name} {_type_name(field)}"
    indent = " " * _INDENT
    return [head, *textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent)]


def _type_name(field: FieldInfo) -> str:
    names = []
    for kind in _types(field):
        origin = typing.get_origin(kind)
        if origin is typing.Literal:
            names += [str(choice) for choice in typing.get_args(kind)]
        elif kind is type(None):
            names.append("None")
        else:
            names.append("LIST" if origin in (list, tuple) else {bool: "True|False", str: "TEXT"}.get(kind, "NUMBER"))
    return "|".join(names)
