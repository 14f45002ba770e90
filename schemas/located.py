"""YAML that knows its lines: the safe subset that recipes are written in, read with the line of every value.

Scalars follow YAML 1.2's core schema. PyYAML's own rules are those of YAML 1.1, by which the key `on` and the language
`no` are booleans, `1e-3` is a text and `12:30` a number: each would turn a recipe into another one without a word.
Anything but plain values is refused (tags, several documents), a key may stand once, and size, depth and the expansion
of aliases are bounded, so that a hostile file costs little.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from corpusmith.schemas.errors import UserError

MAX_DOCUMENT_BYTES = 1 << 20
MAX_VALUES = 50_000
"""Values in a document after aliases are expanded."""
MAX_DEPTH = 32

Path = tuple[str | int, ...]

_RARE_BREAKS = re.compile("[\x85\u2028\u2029\ufeff]")
"""What YAML 1.1 takes for the end of a line or for a mark; it survives between double quotes alone."""

_TAG = "tag:yaml.org,2002:"
_RULES: tuple[tuple[str, str, str], ...] = (
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
)


@dataclass(frozen=True)
class Document:
    """A parsed document.

    Args:
        value: dicts with text keys, lists, texts, numbers, booleans, None.
        lines: path of keys and positions → line, from 1, where it stands.
    """

    value: Any
    lines: Mapping[Path, int]

    def line(self, path: Path) -> int:
        """Line of a value; that of the nearest one around it where it has none of its own."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str | None, list[tuple[str, re.Pattern[str]]]] = {}
    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem=f"values nested more than {MAX_DEPTH} deep", problem_mark=mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes each text that a reader of YAML 1.1 or of 1.2 would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = '"' if _RARE_BREAKS.search(data) else None
        return self.represent_scalar(_TAG + "str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


for _name, _pattern, _first in _RULES:
    for _class in (_Loader, _Dumper):
        _starts = [*_first, ""] if _name == "null" else [*_first]
        _class.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), _starts)


def load_yaml(text: str, *, source: str) -> Document:
    """Read one YAML document.

    Args:
        text: the document.
        source: name of the file, for errors.

    Raises:
        UserError: no valid YAML, something that recipes do not hold, or above the bounds; `where` is `source:line`.
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_DOCUMENT_BYTES:
        raise UserError(
            f"the file has {size} bytes, more than {MAX_DOCUMENT_BYTES}", where=source, hint="is it a recipe?"
        )
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}" if mark else source
        problem = " ".join(filter(None, (error.context, error.problem)))
        raise UserError(f"no valid YAML: {problem}", where=where) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"no valid YAML: {error.reason}", where=f"{source}:{line}") from error
    reader = _Reader(source)
    return Document(reader.value(node, ()), reader.lines)


def dump_yaml(value: Any) -> str:
    """YAML text of plain values, in the order given; `load_yaml` gives the same values back."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Reader:
    """Plain values from a tree of nodes, each visit counted: an alias counts as often as it is used."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.lines: dict[Path, int] = {}
        self.visits = 0

    def value(self, node: yaml.Node | None, path: Path) -> Any:
        if node is None:
            return None
        self.visits += 1
        if self.visits > MAX_VALUES or len(path) > MAX_DEPTH:
            raise self._refusal(f"more than {MAX_VALUES} values, or nested too deep, once aliases are expanded", node)
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        raise self._refusal(f"the tag {node.tag.replace(_TAG, '!!')} is not allowed", node)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._refusal("a key has to be a plain text", key)
            if key.value in plain:
                first = self.lines[(*path, key.value)]
                raise self._refusal(f"the key {key.value!r} stands twice, first in line {first}", key)
            self.lines[(*path, key.value)] = key.start_mark.line + 1
            plain[key.value] = self.value(item, (*path, key.value))
        return plain

    def _scalar(self, node: yaml.ScalarNode) -> str | int | float | bool | None:
        text = node.value
        kind = node.tag.removeprefix(_TAG)
        try:
            if kind == "str":
                return text
            if kind == "null":
                return None
            if kind == "bool":
                return {"true": True, "false": False}[text.lower()]
            if kind == "int":
                return int(text, 0 if text[:2] in ("0x", "0o") else 10)
            if kind == "float":
                return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
        except (KeyError, ValueError) as error:
            raise self._refusal(f"{text[:60]!r} is no {kind}", node) from error
        raise self._refusal(f"the tag {node.tag.replace(_TAG, '!!')} is not allowed", node)

    def _refusal(self, what: str, node: yaml.Node) -> UserError:
        return UserError(what, where=f"{self.source}:{node.start_mark.line + 1}")
