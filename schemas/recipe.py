"""The recipe: input, steps, output, as people write them in YAML and as everything else reads them.

A spec is generic: it knows that a step has a name and parameters, not which operators exist; `corpusmith.pipelines`
binds the parameters. Each value remembers where it was written (a line of the file, or an override), so that an error
that is found later, at binding, still points there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from corpusmith.schemas.errors import UserError
from corpusmith.schemas.located import Document, dump_yaml, load_yaml
from corpusmith.schemas.validation import did_you_mean, listed, unknown_name, validation_error

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
STEP_KEYS = ("on_error", "mark", "id")
"""Keys beside a step's parameters that belong to the step itself."""


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")


AUTO = "auto"
"""Asks for a column under one of the names that it has by habit; see `corpusmith.operators.sources.names`."""


class InputSpec(_Closed):
    """Where the samples come from: tables of URLs and texts, or files that carry the media themselves."""

    path: str | list[str] | None = Field(
        default=None,
        description="files, folders or patterns such as urls/*.parquet; local paths or URLs such as s3://bucket/urls",
    )
    origins: list[str] | None = Field(
        default=None,
        description="names for the entries of `path`, in their order: a column `origin` then says which of them a row "
        "came from, such as for `mix`; several entries may share a name",
    )
    format: Literal["parquet", "csv", "tsv", "jsonl", "txt", "webdataset", "img2dataset", "folder", "hf"] | None = (
        Field(
            default=None,
            description="null: by name and content; txt: a URL a line, without captions; webdataset: tars of samples; "
            "img2dataset: tars with their Parquets; folder: images with texts beside them; hf: a dataset saved to disk",
        )
    )
    split: str | None = Field(default=None, description="hf: the split to take; null for all of them")
    url: str | None = Field(
        default=AUTO,
        description="column of the media's address; null for media or texts without one; auto: url, URL, image_url, …",
    )
    caption: str | list[str] | None = Field(
        default=AUTO,
        description="column of the text, or several; null for media without texts; auto: caption, TEXT, text, …",
    )
    media: str = Field(default=AUTO, description="hf: column of the images; auto: the first one that holds some")
    source_uid: str | None = Field(
        default=AUTO, description="column of the source's own id; null for none; auto: uid, SAMPLE_ID, id, key, …"
    )
    columns: list[str] | None = Field(default=None, description="further columns to carry through; null for all")


class StepSpec(_Closed):
    """One step: an operator's name and its parameters, or a bare value for its main parameter."""

    name: str = Field(min_length=1)
    params: dict[str, Any] | list[Any] | str | int | float | bool = Field(default_factory=dict)
    on_error: Literal["fail", "null"] = Field(
        default="fail", description="what a row's error does: fail the row, or let it go on without the step's values"
    )
    mark: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$",
        description="reject no rows: add a column of this name that says whether the step would keep the row, for a "
        "later `keep` to combine: `in_top AND NOT is_seen`",
    )
    id: str | None = None
    line: int | None = Field(default=None, exclude=True)

    @field_validator("on_error", mode="before")
    @classmethod
    def _null_is_a_word(cls, value: Any) -> Any:
        return "null" if value is None else value


class OutputSpec(_Closed):
    """Where the corpus goes, and its form."""

    path: str | None = Field(
        default=None, description="folder of the corpus: a local path, or a URL such as s3://bucket/corpus"
    )
    samples_per_shard: int = Field(default=10_000, ge=1, description="samples in a shard")
    keep_originals: bool = Field(default=False, description="stage the media as it came, too")


class RecipeSpec(_Closed):
    """A recipe."""

    corpus: str = Field(
        pattern=f"^{NAME_PATTERN}$", description="name of the corpus: letters, digits, dots, dashes, underscores"
    )
    description: str = Field(default="", description="what the recipe is for")
    seed: int = Field(default=0, ge=0, lt=2**63, description="decides all draws")
    input: InputSpec = Field(default_factory=InputSpec)
    steps: list[StepSpec]
    output: OutputSpec = Field(default_factory=OutputSpec)
    _places: dict[tuple[int, str], str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _name_steps(self) -> Self:
        for _, problem in _name_and_check(self.steps):
            raise ValueError(problem)
        return self

    def place(self, step_index: int, key: str = "") -> str | None:
        """Where a step's parameter was written: `file:line`, or the override; the step's own place without a key."""
        return self._places.get((step_index, key)) or self._places.get((step_index, ""))


def step_ids(named: Sequence[tuple[str, str | None]]) -> list[str]:
    """Ids of steps from their names and the ids given to them: the name, and `name#2`, `name#3` for repeats."""
    seen: Counter[str] = Counter()
    ids: list[str] = []
    for name, given in named:
        seen[name] += given is None or given == _numbered(name, seen[name] + 1)
        ids.append(given or _numbered(name, seen[name]))
    return ids


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}#{number}"


def _name_and_check(steps: Sequence[StepSpec]) -> Iterator[tuple[int, str]]:
    """Give each step its id; yields position and problem of those that cannot be."""
    seen: set[str] = set()
    for i, (step, sid) in enumerate(zip(steps, step_ids([(s.name, s.id) for s in steps]), strict=True)):
        step.id = sid
        if sid in seen:
            yield i, f"two steps have the id {sid!r}: give one of them another `id`"
        elif sid in RecipeSpec.model_fields or not re.fullmatch(NAME_PATTERN + r"(#\d+)?", sid):
            yield i, f"{sid!r} cannot be the id of a step: use letters, digits, dots and dashes; no key of recipes"
        elif isinstance(step.params, dict) and (own := sorted(step.params.keys() & set(STEP_KEYS))):
            yield i, f"step {sid!r} has {', '.join(own)} among its parameters: they belong to the step"
        elif not isinstance(step.params, dict) and (
            step.on_error != "fail" or step.mark is not None or not _is_automatic(sid, step.name)
        ):
            yield i, f"step {sid!r} has a bare value: name its parameter to set {', '.join(STEP_KEYS)} as well"
        seen.add(sid)


def _is_automatic(sid: str, name: str) -> bool:
    return re.fullmatch(re.escape(name) + r"(#\d+)?", sid) is not None


def parse_recipe(
    text: str,
    *,
    source: str,
    overrides: Sequence[str] = (),
    positional: Callable[[str], str | None] = lambda name: None,
) -> RecipeSpec:
    """Read a recipe.

    Args:
        text: the YAML.
        source: name of the file, for errors.
        overrides: `seed=3`, `input.path=…`, `image.size=512`, `keep#2.where=…`; values are YAML.
        positional: operator name → the parameter that a bare value sets; needed where an override names a parameter of
            a step that is written with a bare value.

    Raises:
        UserError: the recipe or an override is wrong; says where and lists the choices.
    """
    return _Parser(text, source, positional).parse(overrides)


class _Parser:
    """A recipe between its text and its spec."""

    def __init__(self, text: str, source: str, positional: Callable[[str], str | None]) -> None:
        self.source = source
        self.positional = positional
        self.document: Document = load_yaml(text, source=source)
        self.overridden: dict[tuple[str | int, ...], str] = {}

    def parse(self, overrides: Sequence[str]) -> RecipeSpec:
        plain = self.document.value
        if not isinstance(plain, dict):
            raise UserError(
                "a recipe is a mapping", where=f"{self.source}:1", hint=f"keys: {listed(RecipeSpec.model_fields)}"
            )
        for key in (key for key in plain if key not in RecipeSpec.model_fields):
            what, hint = unknown_name(key, "key", "the recipe", list(RecipeSpec.model_fields))
            raise UserError(what, where=self._where((key,)), hint=hint)
        written = plain.get("steps")
        if not isinstance(written, list):
            what = "`steps` has to be a list" if "steps" in plain else "a recipe needs `steps`"
            raise UserError(what, where=self._where(("steps",)), hint="write one step a line: `- image: {size: 256}`")
        steps = [self._step(i, item) for i, item in enumerate(written)]
        recipe = {**plain, "steps": steps}
        ids = step_ids([(step["name"], step.get("id")) for step in steps])
        for override in overrides:
            self._override(recipe, ids, override)
        spec = self._validated(recipe)
        spec._places.update(self._places(steps))
        return spec

    def _where(self, path: tuple[str | int, ...]) -> str:
        for end in range(len(path), 0, -1):
            if path[:end] in self.overridden:
                return self.overridden[path[:end]]
        return f"{self.source}:{self.document.line(self._written(path))}"

    def _written(self, path: tuple[str | int, ...]) -> tuple[str | int, ...]:
        """Path in the document of a path in the spec: a step's parameters stand below its name."""
        if len(path) < 3 or path[0] != "steps":
            return path
        step = self.document.value["steps"][path[1]]
        name = next(iter(step)) if isinstance(step, dict) and step else ""
        return (*path[:2], name, *(path[3:] if path[2] == "params" else path[2:]))

    def _step(self, i: int, written: Any) -> dict[str, Any]:
        path = ("steps", i)
        line = self.document.line(path)
        if isinstance(written, str):
            return {"name": written, "params": {}, "line": line}
        if not isinstance(written, dict) or len(written) != 1:
            what = f"step {i + 1} has {len(written)} keys" if isinstance(written, dict) else f"step {i + 1} is no step"
            hint = "a step is its name alone, or its name and its parameters: `- image: {size: 256}`"
            raise UserError(what, where=self._where(path), hint=hint)
        ((name, params),) = written.items()
        params = {} if params is None else params
        if not isinstance(params, dict):
            return {"name": name, "params": params, "line": line}
        own = {key: params[key] for key in STEP_KEYS if key in params}
        return {"name": name, "params": {k: v for k, v in params.items() if k not in own}, "line": line, **own}

    def _override(self, recipe: dict[str, Any], ids: list[str], override: str) -> None:
        where = f"override {override}"
        key, equals, text = override.partition("=")
        key = key.strip()
        if not equals:
            raise UserError("an override is KEY=VALUE", where=where, hint="such as image.size=512")
        value = load_yaml(text, source=where).value
        step = max((sid for sid in ids if key == sid or key.startswith(f"{sid}.")), key=len, default=None)
        if step is not None:
            self._override_step(recipe["steps"], ids.index(step), key[len(step) + 1 :], value, where)
            return
        section, _, name = key.partition(".")
        if section in ("input", "output") and name:
            recipe[section] = {**(recipe.get(section) or {}), name: value}
            self.overridden[(section, name)] = where
        elif section in ("corpus", "description", "seed") and not name:
            recipe[section] = value
            self.overridden[(section,)] = where
        else:
            choices = ["corpus", "description", "seed", "input.…", "output.…", *(f"{sid}.…" for sid in ids)]
            close = did_you_mean(section, [choice.removesuffix(".…") for choice in choices])
            raise UserError(f"nothing is called {key!r}", where=where, hint=f"{close}choices: {listed(choices)}")

    def _override_step(self, steps: list[dict[str, Any]], i: int, name: str, value: Any, where: str) -> None:
        step = steps[i]
        if not name:
            step["params"] = {} if value is None else value
            self.overridden[("steps", i, "params")] = where
            return
        if name == "id":
            raise UserError(
                "an id cannot be overridden", where=where, hint="other overrides go by it: change the recipe"
            )
        if not isinstance(step["params"], dict):
            main = self.positional(step["name"])
            if main is None:
                hint = f"override the value itself, {step['name']}=…, or name its parameter in the recipe"
                raise UserError("the step is written with a bare value", where=where, hint=hint)
            step["params"] = {main: step["params"]}
        if name in STEP_KEYS:
            step[name] = value
            self.overridden[("steps", i, name)] = where
            return
        *outer, last = name.split(".")
        target = step["params"]
        for part in outer:
            inner = target.get(part)
            target[part] = target = dict(inner) if isinstance(inner, dict) else {}
        target[last] = value
        self.overridden[("steps", i, "params", name.split(".")[0])] = where

    def _validated(self, recipe: dict[str, Any]) -> RecipeSpec:
        for section, model in (("input", InputSpec), ("output", OutputSpec)):
            if recipe.get(section, 0) is None:
                recipe[section] = {}
            self._check(model, recipe.get(section, {}), (section,))
        steps = [self._check(StepSpec, step, ("steps", i)) for i, step in enumerate(recipe["steps"])]
        for i, problem in _name_and_check(steps):
            raise UserError(problem, where=self._where(("steps", i)))
        return self._check(RecipeSpec, recipe, ())

    def _check(self, model: type[BaseModel], value: Any, path: tuple[str | int, ...]) -> Any:
        try:
            return model.model_validate(value)
        except ValidationError as error:
            what = ".".join(str(part) for part in path if not isinstance(part, int))
            raise validation_error(
                error,
                model,
                place=lambda key: self._where((*path, key) if key else path),
                noun="key",
                owner=f"`{what}`" if what else "the recipe",
            ) from error

    def _places(self, steps: list[dict[str, Any]]) -> Iterable[tuple[tuple[int, str], str]]:
        for i, step in enumerate(steps):
            yield (i, ""), self._where(("steps", i, "params"))
            for key in step["params"] if isinstance(step["params"], dict) else ():
                yield (i, key), self._where(("steps", i, "params", key))


def recipe_yaml(spec: RecipeSpec) -> str:
    """The recipe as YAML text; parsing it gives an equal spec, and equal specs give equal text."""
    plain = spec.model_dump(mode="json")
    head: dict[str, Any] = {"corpus": plain["corpus"]}
    if plain["description"]:
        head["description"] = plain["description"]
    return dump_yaml(
        {
            **head,
            "seed": plain["seed"],
            "input": _without_defaults_of_null(InputSpec, plain["input"]),
            "steps": _yaml_steps(plain["steps"]),
            "output": _without_defaults_of_null(OutputSpec, plain["output"]),
        }
    )


def _without_defaults_of_null(model: type[BaseModel], plain: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in plain.items() if v is not None or model.model_fields[k].default is not None}


def _yaml_steps(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    written: list[dict[str, Any]] = []
    automatic: Counter[str] = Counter()
    for step in steps:
        expected = _numbered(step["name"], automatic[step["name"]] + 1)
        automatic[step["name"]] += step["id"] == expected
        own = {} if step["id"] == expected else {"id": step["id"]}
        if step["on_error"] != "fail":
            own["on_error"] = None
        if step["mark"] is not None:
            own["mark"] = step["mark"]
        written.append(
            {step["name"]: {**step["params"], **own} if isinstance(step["params"], dict) else step["params"]}
        )
    return written


def recipe_json_schema(step_schemas: Mapping[str, Any]) -> dict[str, Any]:
    """JSON Schema of the YAML form, for editors.

    Args:
        step_schemas: operator name → JSON Schema of its parameters; its key `x-positional` names the parameter that a
            bare value sets.
    """
    shared: dict[str, Any] = {}
    steps = {name: _step_schema(name, schema, shared) for name, schema in step_schemas.items()}
    schema = RecipeSpec.model_json_schema()
    definitions = {k: v for k, v in schema["$defs"].items() if k != "StepSpec"}
    by_name = {"enum": [name for name, step in step_schemas.items() if not step.get("required")]}
    one = {"type": "object", "properties": steps, "additionalProperties": False, "minProperties": 1, "maxProperties": 1}
    schema["properties"]["steps"] = {"type": "array", "items": {"anyOf": [one, by_name]}, "title": "Steps"}
    for optional in ("input", "output"):
        schema["properties"][optional] = {"anyOf": [schema["properties"][optional], {"type": "null"}]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "corpusmith recipe",
        "$defs": {**definitions, **shared},
    }


def _step_schema(name: str, schema: Mapping[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """Schema of what stands behind a step's name; definitions move to `shared` under the operator's name."""
    moved = _with_refs_below(schema, name)
    for key, definition in moved.pop("$defs", {}).items():
        shared[f"{name}.{key}"] = definition
    main = moved.pop("x-positional", None)
    properties = moved.get("properties", {})
    on_error = {
        "enum": ["fail", "null", None],
        "default": "fail",
        "description": StepSpec.model_fields["on_error"].description,
    }
    mark = StepSpec.model_json_schema()["properties"]["mark"]
    named = {"type": "string", "description": "name of the step, where it is used twice"}
    own = {"on_error": on_error, "mark": mark, "id": named}
    forms = [{**moved, "type": "object", "properties": {**properties, **own}, "additionalProperties": False}]
    if main in properties:
        forms.append(properties[main])
    if not moved.get("required"):
        forms.append({"type": "null"})
    return {"description": moved.get("description", ""), "anyOf": forms}


def _with_refs_below(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return {
            k: f"#/$defs/{name}.{v.removeprefix('#/$defs/')}"
            if k == "$ref" and isinstance(v, str)
            else _with_refs_below(v, name)
            for k, v in value.items()
        }
    return [_with_refs_below(item, name) for item in value] if isinstance(value, list) else value
