"""Binding: operators with checked parameters, recipes by name and path, recipes from Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pyarrow as pa
import pytest
from pydantic import Field

from corpusmith.operators import registry
from corpusmith.operators.contract import Annotate, Config, Decision, Part, Select
from corpusmith.pipelines.bind import Pipeline, Step, bind_steps, load_recipe, packaged_recipes, step_schemas
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.recipe import InputSpec, OutputSpec, StepSpec, parse_recipe, recipe_json_schema, recipe_yaml


class Resize(Annotate, name="fake.resize"):
    """Resize what is not there."""

    class Config(Config):
        size: int = Field(default=256, ge=1, le=4096, description="shorter side in pixels")
        mode: str = Field(default="keep_ratio", pattern="^(keep_ratio|center_crop)$", description="how")
        hosts: tuple[str, ...] = ()

    config: Config

    @property
    def requires(self) -> tuple[str, ...]:
        return ("media",)

    def process(self, batch: pa.Table) -> Part:
        return Part({})


class Only(Select, name="fake.only"):
    """Keep only some."""

    class Config(Config):
        where: str = Field(min_length=1, description="a condition")
        strict: bool = False

    positional: ClassVar[str | None] = "where"

    @property
    def requires(self) -> tuple[str, ...]:
        return ()

    def decide(self, batch: pa.Table) -> Decision:
        return Decision([True] * batch.num_rows)


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_added", {})
    registry.register(Resize)
    registry.register(Only)
    yield


def bind(steps: str, *overrides: str) -> list[Step]:
    text = f"corpus: x\nseed: 5\nsteps:\n{steps}"
    positional = {"fake.only": "where"}.get
    spec = parse_recipe(text, source="r.yaml", overrides=overrides, positional=positional)
    return bind_steps(spec, source="r.yaml")


def refusal(steps: str, *overrides: str) -> UserError:
    with pytest.raises(UserError) as caught:
        bind(steps, *overrides)
    return caught.value


def config_of(step: Step) -> dict[str, Any]:
    return step.operator.config.model_dump()


def test_steps_become_operators() -> None:
    first, second, third = bind("  - fake.resize: {size: 64, on_error: null}\n  - fake.only: x > 1\n  - fake.resize\n")
    assert (first.id, first.on_error, first.where) == ("fake.resize", "null", "r.yaml:4")
    assert isinstance(first.operator, Resize)
    assert config_of(first)["size"] == 64
    assert first.operator.seed == 5
    assert config_of(second) == {"where": "x > 1", "strict": False}
    assert (third.id, third.where) == ("fake.resize#2", "r.yaml:6")
    assert config_of(third) == {"size": 256, "mode": "keep_ratio", "hosts": ()}


def test_overrides_reach_the_operator() -> None:
    (only,) = bind("  - fake.only: x > 1\n", "fake.only.strict=true")
    assert config_of(only) == {"where": "x > 1", "strict": True}
    (only,) = bind("  - fake.only: x > 1\n", "fake.only=y > 2")
    assert config_of(only) == {"where": "y > 2", "strict": False}


@pytest.mark.parametrize(
    ("steps", "where", "what", "hint"),
    [
        (
            "  - fake.only: x\n  - fake.rezise: {}\n",
            "r.yaml:5",
            "unknown step 'fake.rezise'",
            "mean 'fake.resize'",
        ),
        (
            "  - fake.resize:\n      size: 1\n      sise: 3\n",
            "r.yaml:6",
            "no parameter 'sise'",
            "mean 'size'",
        ),
        ("  - fake.resize:\n      size: 9999\n", "r.yaml:5", "size = 9999: should be less than or equal", "in pixels"),
        ("  - fake.resize:\n      size: big\n", "r.yaml:5", "size = 'big': should be a valid integer", "in pixels"),
        ("  - fake.resize: {hosts: [a, 1]}\n", "r.yaml:4", "hosts.1 = 1", ""),
        ("  - fake.only\n", "r.yaml:4", "needs the parameter 'where'", "a condition"),
        ("  - fake.only: 5\n", "r.yaml:4", "where = 5: should be a valid string", "a condition"),
        ("  - fake.resize: 5\n", "r.yaml:4", "takes no bare value", "parameters: size, mode, hosts"),
        ("  - keep: 'x >'\n", "r.yaml:4", "SQL", ""),
    ],
)
def test_a_wrong_step_is_told_with_its_line(steps: str, where: str, what: str, hint: str) -> None:
    error = refusal(steps)
    assert error.where == where
    assert what in error.what
    assert hint in (error.hint or "")


def test_every_wrong_parameter_is_told() -> None:
    error = refusal("  - fake.resize:\n      size: 0\n      mode: x\n      foo: 1\n")
    assert error.where == "r.yaml:5"
    assert "also r.yaml:6: step 'fake.resize': mode = 'x'" in str(error)
    assert "also r.yaml:7: step 'fake.resize' has no parameter 'foo'" in str(error)


def test_a_wrong_override_is_named_at_binding() -> None:
    error = refusal("  - fake.resize: {size: 3}\n", "fake.resize.size=0")
    assert error.where == "override fake.resize.size=0"
    error = refusal("  - fake.resize: {size: 3}\n", "fake.resize.sise=4")
    assert error.where == "override fake.resize.sise=4"
    assert "did you mean 'size'?" in (error.hint or "")


def test_packaged_recipes_parse_and_survive_yaml() -> None:
    assert packaged_recipes()
    for name in packaged_recipes():
        spec, source = load_recipe(name)
        assert source == f"{name}.yaml"
        assert parse_recipe(recipe_yaml(spec), source=source).model_dump() == spec.model_dump()


def test_a_recipe_is_found_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xef\xbb\xbfcorpus: mine\nsteps: [{fake.only: x > 1}]\n")
    spec, source = load_recipe(str(path), ["fake.only.strict=true", "seed=2"])
    assert source == str(path)
    assert (spec.corpus, spec.seed, spec.steps[0].params) == ("mine", 2, {"where": "x > 1", "strict": True})
    with fsspec.open("memory://recipes/far.yaml", "wb") as file:
        file.write(b"corpus: far\nsteps: []\n")  # pyright: ignore[reportAttributeAccessIssue]
    assert load_recipe("memory://recipes/far.yaml")[0].corpus == "far"


def test_a_recipe_that_is_not_there_or_not_readable(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no recipe 'metaclop'[^!]*did you mean 'metaclip'"):
        load_recipe("metaclop")
    with pytest.raises(UserError, match="cannot be read"):
        load_recipe(str(tmp_path))
    with pytest.raises(UserError, match="cannot be read"):
        load_recipe("nosuch://x/y.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_bytes(b"corpus: x\nsteps: []\ndescription: \xff\n")
    with pytest.raises(UserError) as caught:
        load_recipe(str(bad))
    assert caught.value.where == f"{bad}:3"


def test_python_builds_the_same_spec_as_yaml() -> None:
    text = """
corpus: x
seed: 5
input: {path: a.csv, caption: null}
steps:
  - fake.only: "x > 1"
  - fake.resize: {size: 64, hosts: [a]}
  - fake.only: {where: "y"}
  - fake.resize: {on_error: null, size: 8}
  - fake.resize
output: {path: out, samples_per_shard: 3}
"""
    written = parse_recipe(text, source="r.yaml")
    pipeline = Pipeline(
        [
            ("fake.only", "x > 1"),
            Resize(Resize.Config(size=64, hosts=("a",))),
            ("fake.only", {"where": "y"}),
            StepSpec(name="fake.resize", params={"size": 8}, on_error="null"),
            "fake.resize",
        ],
        corpus="x",
        seed=5,
        input=InputSpec(path="a.csv", caption=None),
        output=OutputSpec(path="out", samples_per_shard=3),
    )
    built = pipeline.spec()
    assert built.model_dump() == written.model_dump()
    steps = bind_steps(built, source="pipeline")
    assert [config_of(s) for s in steps] == [config_of(s) for s in bind_steps(written, source="r.yaml")]
    assert Pipeline(["fake.resize"], input="a.csv").spec().input.path == "a.csv"


def test_errors_of_python_pipelines_name_the_step() -> None:
    with pytest.raises(UserError, match=r"script\.py, step fake\.resize: step 'fake.resize' has no parameter 'sise'"):
        bind_steps(Pipeline([("fake.resize", {"sise": 3})]).spec(), source="script.py")
    with pytest.raises(UserError, match="corpus = 'a/b'"):
        Pipeline(["fake.resize"], corpus="a/b").spec()


def test_schemas_of_all_operators_make_one_schema() -> None:
    from jsonschema import Draft202012Validator

    schemas = step_schemas()
    assert schemas["fake.only"]["x-positional"] == "where"
    assert schemas["fake.resize"]["description"] == "Resize what is not there."
    schema = recipe_json_schema(schemas)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    right = [{"fake.only": "x"}, "fake.resize", {"fake.resize": {"size": 3}}]
    assert validator.is_valid({"corpus": "x", "steps": right})
    for wrong in ({"size": 0}, {"sise": 3}, 5):
        assert not validator.is_valid({"corpus": "x", "steps": [{"fake.resize": wrong}]})
