"""Binding: a recipe's steps become operators with checked parameters; recipes are found by path or by name.

The spec knows no operators and operators know no YAML; here they meet, so that a wrong parameter is told with the line
that it stands in, before anything starts. `Pipeline` builds the same spec from Python.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from corpusmith.operators.contract import Config, Operator
from corpusmith.operators.registry import operator_class, operators
from corpusmith.schemas.columns import MEDIA, RESERVED_NAMES, Column
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.recipe import InputSpec, OutputSpec, RecipeSpec, StepSpec, parse_recipe
from corpusmith.schemas.validation import did_you_mean, validation_error

RECIPES_PACKAGE = "corpusmith.pipelines.recipes"


@dataclass(frozen=True)
class Step:
    """A step of a recipe, ready to run.

    Args:
        id: unique in the recipe.
        operator: with its parameters, not set up yet.
        on_error: `fail` or `null`.
        where: file and line where the step is written.
        mark: the column that tells of a row whether the step keeps it; then it rejects none.
    """

    id: str
    operator: Operator
    on_error: str
    where: str
    mark: str | None = None

    @property
    def produces(self) -> tuple[Column, ...]:
        """Columns that the step adds or replaces: the operator's, and the mark."""
        if self.mark is None:
            return self.operator.produces
        return (*self.operator.produces, Column(self.mark, pa.bool_(), f"whether {self.id} would keep the row"))


def bind_steps(spec: RecipeSpec, *, source: str) -> list[Step]:
    """Make the operators of a recipe.

    Args:
        spec: the recipe.
        source: its file or name, for errors about a spec that was built in Python.

    Raises:
        UserError: an operator is unknown, or parameters are wrong; names line, parameter and choices.
    """
    return [_bind(spec, i, source) for i in range(len(spec.steps))]


def _bind(spec: RecipeSpec, i: int, source: str) -> Step:
    step = spec.steps[i]
    where = spec.place(i) or f"{source}, step {step.id}"
    cls = operator_class(step.name, where=where)
    params = _named_params(cls, step, where)
    try:
        config = cls.Config.model_validate(params)
    except ValidationError as error:
        raise validation_error(
            error,
            cls.Config,
            place=lambda key: spec.place(i, key) or where,
            noun="parameter",
            owner=f"step {step.id!r}",
        ) from error
    bound = Step(step.id or step.name, cls(config, seed=spec.seed), step.on_error, where, step.mark)
    if bound.mark is not None:
        _check_mark(bound)
    return bound


def _check_mark(step: Step) -> None:
    if step.operator.kind not in ("select", "reduce"):
        raise UserError(f"step {step.id!r} rejects no rows: nothing to mark", where=step.where, hint="leave `mark` out")
    names = [*RESERVED_NAMES, MEDIA.name, *(c.name for c in step.operator.produces), *step.operator.requires]
    if step.mark in names:
        raise UserError(
            f"step {step.id!r}: {step.mark!r} is a column already", where=step.where, hint="rename the mark"
        )


def _named_params(cls: type[Operator], step: StepSpec, where: str) -> dict[str, Any]:
    if isinstance(step.params, dict):
        return step.params
    if cls.positional is None:
        known = ", ".join(cls.Config.model_fields) or "none"
        hint = f"name its parameters, `- {cls.name}: {{…}}`; parameters: {known}"
        raise UserError(f"step {step.id!r} takes no bare value", where=where, hint=hint)
    return {cls.positional: step.params}


def step_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema of each operator's parameters, by operator name, as `recipe_json_schema` reads them."""
    return {name: _step_schema(cls) for name, cls in operators().items()}


def _step_schema(cls: type[Operator]) -> dict[str, Any]:
    schema = cls.Config.model_json_schema()
    schema["title"] = cls.name
    schema["description"] = (cls.__doc__ or "").strip().partition("\n")[0]
    if cls.positional is not None:
        schema["x-positional"] = cls.positional
    return schema


def packaged_recipes() -> list[str]:
    """Names of the recipes that come with corpusmith."""
    names = (entry.name for entry in files(RECIPES_PACKAGE).iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def load_recipe(name_or_path: str, overrides: Sequence[str] = (), skip: Sequence[str] = ()) -> tuple[RecipeSpec, str]:
    """Read a recipe.

    Args:
        name_or_path: a YAML file (local, or a URL such as s3://bucket/recipe.yaml), or the name of a packaged recipe.
        overrides: see `parse_recipe`.
        skip: ids of steps to leave out, such as `clip_score` or `keep#3`.

    Returns:
        The spec, and the name of its source for errors.

    Raises:
        UserError: there is no such recipe (lists the packaged ones), it cannot be read, or it is wrong; or it has no
            step to skip of that id (lists them).
    """
    text, source = _recipe_text(name_or_path)
    spec = parse_recipe(text, source=source, overrides=overrides, positional=_positional)
    return (_without(spec, skip) if skip else spec), source


def _without(spec: RecipeSpec, skip: Sequence[str]) -> RecipeSpec:
    """The recipe without some steps; the others keep ids and places."""
    ids = [step.id or step.name for step in spec.steps]
    for sid in skip:
        if sid not in ids:
            hint = f"{did_you_mean(sid, ids)}steps: {', '.join(ids)}"
            raise UserError(f"the recipe has no step {sid!r}", where=f"--skip {sid}", hint=hint)
    left = [i for i, sid in enumerate(ids) if sid not in skip]
    shorter = spec.model_copy(update={"steps": [_with_named_params(spec.steps[i]) for i in left]})
    shorter._places = {(left.index(i), key): place for (i, key), place in spec._places.items() if i in left}
    return shorter


def _with_named_params(step: StepSpec) -> StepSpec:
    """The step in the form that can be written with an id of its own."""
    main = _positional(step.name)
    if isinstance(step.params, dict) or main is None:
        return step
    return step.model_copy(update={"params": {main: step.params}})


def _positional(name: str) -> str | None:
    cls = operators().get(name)
    return cls.positional if cls is not None else None


def _recipe_text(name_or_path: str) -> tuple[str, str]:
    if name_or_path in packaged_recipes():
        source = f"{name_or_path}.yaml"
        return files(RECIPES_PACKAGE).joinpath(source).read_text("utf-8"), source
    try:
        data = _read(name_or_path)
    except FileNotFoundError as error:
        guess = did_you_mean(name_or_path, packaged_recipes())
        hint = f"{guess}give a YAML file or a packaged recipe: {', '.join(packaged_recipes())}"
        raise UserError(f"there is no recipe {name_or_path!r}", hint=hint) from error
    except (OSError, ImportError, ValueError) as error:
        raise UserError(f"the recipe cannot be read: {error}", where=name_or_path) from error
    try:
        return data.decode("utf-8-sig"), name_or_path
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError("the recipe is no UTF-8 text", where=f"{name_or_path}:{line}") from error


def _read(path: str) -> bytes:
    if "://" not in path:
        return Path(path).expanduser().read_bytes()
    fs, inner = fsspec.core.url_to_fs(path)
    return fs.cat_file(inner)


class Pipeline:
    """A recipe built in Python.

    Args:
        steps: operators with their parameters, `(name, parameters)` pairs, bare names, or StepSpecs.
        corpus: name of the corpus.
        input: what the samples come from: paths, or an InputSpec.
        output: folder of the corpus, or an OutputSpec.
        seed: decides all draws.
        description: what the recipe is for.
    """

    def __init__(
        self,
        steps: Sequence[Operator | StepSpec | str | tuple[str, Any]],
        *,
        corpus: str = "corpus",
        input: InputSpec | str | list[str] | None = None,
        output: OutputSpec | str | None = None,
        seed: int = 0,
        description: str = "",
    ) -> None:
        self.steps = tuple(steps)
        self.corpus = corpus
        self.input = input if isinstance(input, InputSpec) else InputSpec(path=input)
        self.output = output if isinstance(output, OutputSpec) else OutputSpec(path=output)
        self.seed = seed
        self.description = description

    def spec(self) -> RecipeSpec:
        """The recipe.

        Raises:
            UserError: corpus, seed, or the shape of a step is wrong; parameters are checked when the steps are bound.
        """
        plain: Mapping[str, Any] = {
            "corpus": self.corpus,
            "description": self.description,
            "seed": self.seed,
            "input": self.input.model_dump(),
            "steps": [_step_spec(step) for step in self.steps],
            "output": self.output.model_dump(),
        }
        try:
            return RecipeSpec.model_validate(plain)
        except ValidationError as error:
            owner = f"pipeline {self.corpus!r}"
            raise validation_error(error, RecipeSpec, place=lambda key: None, noun="argument", owner=owner) from error


def _step_spec(step: Operator | StepSpec | str | tuple[str, Any]) -> dict[str, Any]:
    if isinstance(step, Operator):
        return {"name": step.name, "params": _params_of(step.config)}
    if isinstance(step, StepSpec):
        return step.model_dump(mode="json")
    if isinstance(step, str):
        return {"name": step}
    name, params = step
    return {"name": name, "params": {} if params is None else to_jsonable_python(params)}


def _params_of(config: Config) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude_defaults=True)
