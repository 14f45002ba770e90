"""Recipes: what is read, what is refused and where, overrides, and the way back to YAML."""

import json
import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmith.schemas.errors import UserError
from corpusmith.schemas.recipe import RecipeSpec, StepSpec, parse_recipe, recipe_json_schema, recipe_yaml, step_ids

RECIPE = """\
corpus: mini
seed: 7
input: {path: "urls/*.parquet", url: URL, caption: null}
steps:
  - language
  - keep: "language = 'en'"
  - dedup.exact: {on: [url]}
  - image:
      size: 256
      resize: keep_ratio
      on_error: null
  - keep: {where: "width > 2", id: wide}
  - keep: "x > 1"
output: {samples_per_shard: 100}
"""


def parse(text: str, *overrides: str) -> RecipeSpec:
    return parse_recipe(text, source="r.yaml", overrides=overrides, positional={"keep": "where"}.get)


def refusal(text: str, *overrides: str) -> UserError:
    with pytest.raises(UserError) as caught:
        parse(text, *overrides)
    return caught.value


def with_steps(steps: str) -> str:
    return f"corpus: x\nsteps:\n{steps}"


def test_a_recipe_is_read_whole() -> None:
    spec = parse(RECIPE)
    assert (spec.corpus, spec.seed, spec.output.samples_per_shard) == ("mini", 7, 100)
    assert (spec.input.path, spec.input.url, spec.input.caption) == ("urls/*.parquet", "URL", None)
    assert [step.id for step in spec.steps] == ["language", "keep", "dedup.exact", "image", "wide", "keep#2"]
    assert spec.steps[0].params == {}
    assert spec.steps[1].params == "language = 'en'"
    assert spec.steps[2].params == {"on": ["url"]}
    assert spec.steps[3].params == {"size": 256, "resize": "keep_ratio"}
    assert [step.on_error for step in spec.steps] == ["fail", "fail", "fail", "null", "fail", "fail"]
    assert [step.line for step in spec.steps] == [5, 6, 7, 8, 12, 13]
    assert spec.place(3) == "r.yaml:8"
    assert spec.place(3, "resize") == "r.yaml:10"
    assert spec.place(3, "unheard") == "r.yaml:8"
    assert "line" not in json.dumps(spec.model_dump(mode="json"))


def test_what_is_left_out_has_defaults() -> None:
    spec = parse("corpus: x\nsteps: []\ninput:\n")
    assert (spec.seed, spec.input.path, spec.input.url, spec.input.caption) == (0, None, "auto", "auto")
    assert (spec.output.samples_per_shard, spec.output.keep_originals) == (10_000, False)


def test_scalars_are_those_of_yaml_1_2() -> None:
    written = "{on: no, t: 1e-3, at: 12:30, day: 2024-01-01, n: 010, h: 0x10, yes: true, e: , f: .5, big: -.inf}"
    (step,) = parse(with_steps(f"  - a: {written}")).steps
    assert step.params == {
        "on": "no",
        "t": 0.001,
        "at": "12:30",
        "day": "2024-01-01",
        "n": 10,
        "h": 16,
        "yes": True,
        "e": None,
        "f": 0.5,
        "big": float("-inf"),
    }


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("- a\n", "r.yaml:1", "a recipe is a mapping"),
        ("", "r.yaml:1", "a recipe is a mapping"),
        ("corpus: x\n", "r.yaml:1", "a recipe needs `steps`"),
        ("corpus: x\nsteps: {}\n", "r.yaml:2", "`steps` has to be a list"),
        ("steps: []\n", "r.yaml:1", "the recipe needs the key 'corpus'"),
        ("seed: 1\ncorpus: ../evil\nsteps: []\n", "r.yaml:2", "corpus = '../evil'"),
        ("corpus: x\nsteps: []\nseed: -1\n", "r.yaml:3", "seed = -1"),
        ("corpus: x\nsteps: []\ninput:\n  path: 5\n", "r.yaml:4", "path = 5"),
        ("corpus: x\nsteps: []\ninput:\n  url: u\n  format: tar\n", "r.yaml:5", "format = 'tar'"),
        ("corpus: x\nsteps: []\noutput: {samples_per_shard: 0}\n", "r.yaml:3", "samples_per_shard = 0"),
        ("corpus: x\nsteps: []\noutput: []\n", "r.yaml:3", "`output`"),
        (with_steps("  - a\n  - {b: {}, c: {}}\n"), "r.yaml:4", "step 2 has 2 keys"),
        (with_steps("  - a\n  - 5\n"), "r.yaml:4", "step 2 is no step"),
        (with_steps("  - a: {id: b}\n  - b\n"), "r.yaml:4", "two steps have the id 'b'"),
        (with_steps("  - a: {id: a#2}\n  - a\n  - a\n"), "r.yaml:5", "two steps have the id 'a#2'"),
        (with_steps("  - a: {id: input}\n"), "r.yaml:3", "'input' cannot be the id"),
        (with_steps("  - a:\n      size: 1\n      on_error: skip\n"), "r.yaml:5", "on_error = 'skip'"),
        (with_steps("  - a:\n      x: 1\n      x: 2\n"), "r.yaml:5", "'x' stands twice, first in line 4"),
        ("corpus: x\ncorpus: y\nsteps: []\n", "r.yaml:2", "'corpus' stands twice"),
        (with_steps("  - a: {x: !!python/object:os.system {}}\n"), "r.yaml:3", "tag"),
        (with_steps("  - a: {x: !secret y}\n"), "r.yaml:3", "tag !secret"),
        (with_steps("  - a: {[1]: y}\n"), "r.yaml:3", "a key has to be a plain text"),
        (with_steps("  - a: {x: !!int y}\n"), "r.yaml:3", "'y' is no int"),
        (with_steps("  - a: {x: " + "9" * 5000 + "}\n"), "r.yaml:3", "is no int"),
        (with_steps("  - a: {x: [1\n"), "r.yaml:4", "no valid YAML"),
        (with_steps("  - a: \tx: y: z\n"), "r.yaml:3", "no valid YAML"),
        (with_steps("  - a: *nobody\n"), "r.yaml:3", "no valid YAML"),
        ("corpus: x\nsteps: []\n---\ncorpus: y\n", "r.yaml:3", "no valid YAML"),
        ("corpus: x\ndescription: \x07\n", "r.yaml:2", "no valid YAML"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_line(text: str, where: str, what: str) -> None:
    error = refusal(text)
    assert error.where == where
    assert what in error.what


@pytest.mark.parametrize(
    ("text", "where", "guess", "choice"),
    [
        ("corpus: x\nstep: []\n", "r.yaml:2", "did you mean 'steps'?", "output"),
        ("corpus: x\nsteps: []\ninput:\n  CAPTIONS: y\n", "r.yaml:4", "did you mean 'caption'?", "source_uid"),
        ("corpus: x\nsteps: []\noutput: {pth: y}\n", "r.yaml:3", "did you mean 'path'?", "keep_originals"),
    ],
)
def test_an_unknown_key_lists_the_choices(text: str, where: str, guess: str, choice: str) -> None:
    error = refusal(text)
    assert error.where == where
    assert error.hint is not None
    assert guess in error.hint
    assert choice in error.hint


def test_all_that_is_wrong_in_a_section_is_told_at_once() -> None:
    error = refusal("corpus: x\nsteps: []\ninput:\n  url: [1]\n  format: tar\n")
    assert error.where == "r.yaml:5"
    assert "also r.yaml:4: `input`: url = [1]: should be a valid string" in str(error)


def test_aliases_may_be_used_and_cannot_explode() -> None:
    spec = parse(with_steps("  - a: &p {x: [1, 2]}\n  - b: *p\n"))
    assert spec.steps[1].params == {"x": [1, 2]}
    laughs = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 31))
    started = time.perf_counter()
    assert "aliases" in refusal(laughs).what
    assert "aliases" in refusal("corpus: &a [*a]\n").what
    assert time.perf_counter() - started < 5


def test_size_and_depth_are_bounded() -> None:
    assert "more than 1048576" in refusal("# " + "x" * (1 << 20)).what
    assert "deep" in refusal("corpus: " + "[" * 100_000).what
    assert "deep" in refusal("corpus: " + "{a: " * 40 + "}" * 40).what


def test_overrides_reach_every_part() -> None:
    spec = parse(
        RECIPE,
        "seed=3",
        "corpus=other",
        "input.path=[a.csv, b.csv]",
        "input.caption=TEXT",
        "output.samples_per_shard=9",
        "image.size=512",
        "image.quality=95",
        "dedup.exact.on=[url, caption]",
        "keep#2.where=y > 2",
        "keep=language = 'de'",
        "wide.on_error=null",
        "language.models.name=fast",
        "language.on_error=null",
    )
    assert (spec.seed, spec.corpus, spec.output.samples_per_shard) == (3, "other", 9)
    assert (spec.input.path, spec.input.caption, spec.input.url) == (["a.csv", "b.csv"], "TEXT", "URL")
    by_id = {step.id: step for step in spec.steps}
    assert by_id["image"].params == {"size": 512, "resize": "keep_ratio", "quality": 95}
    assert by_id["dedup.exact"].params == {"on": ["url", "caption"]}
    assert by_id["keep#2"].params == {"where": "y > 2"}
    assert by_id["keep"].params == "language = 'de'"
    assert (by_id["wide"].on_error, by_id["wide"].params) == ("null", {"where": "width > 2"})
    assert (by_id["language"].on_error, by_id["language"].params) == ("null", {"models": {"name": "fast"}})
    assert spec.place(3, "size") == "override image.size=512"
    assert spec.place(3, "resize") == "r.yaml:10"


def test_an_override_goes_to_the_longest_id() -> None:
    spec = parse(with_steps("  - dedup: {}\n  - dedup.exact: {}\n"), "dedup.exact.on=[url]", "dedup.near=1")
    assert [step.params for step in spec.steps] == [{"near": 1}, {"on": ["url"]}]


@pytest.mark.parametrize(
    ("override", "what", "hint"),
    [
        ("imge.size=3", "nothing is called 'imge.size'", "did you mean 'image'?"),
        ("inptu.path=3", "nothing is called 'inptu.path'", "did you mean 'input'?"),
        ("input=3", "nothing is called 'input'", "input.…"),
        ("seed.x=3", "nothing is called 'seed.x'", "choices"),
        ("image.size", "KEY=VALUE", "image.size=512"),
        ("image.id=i", "an id cannot be overridden", "recipe"),
        ("image.size=[1", "no valid YAML", None),
        ("output.samples=3", "has no key 'samples'", "did you mean 'samples_per_shard'?"),
        ("output.samples_per_shard=0", "samples_per_shard = 0", None),
        ("image.on_error=skip", "on_error = 'skip'", None),
        ("seed=x", "seed = 'x'", None),
    ],
)
def test_a_wrong_override_is_named(override: str, what: str, hint: str | None) -> None:
    error = refusal(RECIPE, override)
    assert (error.where or "").startswith(f"override {override}")
    assert what in error.what
    assert hint is None or hint in (error.hint or "")


def test_a_parameter_beside_a_bare_value_needs_the_operator() -> None:
    with pytest.raises(UserError, match="bare value"):
        parse_recipe(RECIPE, source="r.yaml", overrides=["keep.where=x"])


def test_ids_count_repeats() -> None:
    named = [("a", None), ("b", None), ("a", None), ("a", "mine"), ("a", None)]
    assert step_ids(named) == ["a", "b", "a#2", "mine", "a#3"]


def test_a_spec_that_yaml_cannot_say_is_refused() -> None:
    for step in (
        StepSpec(name="keep", params="x > 1", on_error="null"),
        StepSpec(name="keep", params="x > 1", id="mine"),
        StepSpec(name="keep", params={"id": 1}),
    ):
        with pytest.raises(ValueError, match="step"):
            RecipeSpec(corpus="x", steps=[step])


def test_canonical_yaml_gives_the_same_recipe_back() -> None:
    spec = parse(RECIPE)
    text = recipe_yaml(spec)
    again = parse(text)
    assert again.model_dump() == spec.model_dump()
    assert recipe_yaml(again) == text
    assert yaml.safe_load(text)["steps"][2] == {"dedup.exact": {"on": ["url"]}}


_scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
_values = st.recursive(
    _scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=5), v, max_size=3), max_leaves=8
)
_names = st.sampled_from(["a", "b", "dedup.exact", "on", "null"])
_steps = st.builds(
    StepSpec,
    name=_names,
    params=st.dictionaries(st.text(max_size=8).filter(lambda k: k not in ("id", "on_error")), _values, max_size=4),
    on_error=st.sampled_from(["fail", "null"]),
)
_bare_steps = st.builds(StepSpec, name=_names, params=st.text() | st.booleans() | st.integers() | st.lists(_values))


@settings(max_examples=50, deadline=None)
@given(st.lists(_steps | _bare_steps, max_size=4), st.text(max_size=30), st.text(max_size=30))
def test_any_recipe_survives_yaml(steps: list[StepSpec], description: str, path: str) -> None:
    spec = RecipeSpec.model_validate(
        {
            "corpus": "x",
            "description": description,
            "input": {"path": path, "caption": None},
            "steps": [step.model_dump() for step in steps],
        }
    )
    assert parse(recipe_yaml(spec)).model_dump() == spec.model_dump()


def test_the_schema_for_editors_tells_right_from_wrong() -> None:
    from jsonschema import Draft202012Validator

    size, where = {"$ref": "#/$defs/Size"}, {"type": "string"}
    image = {"properties": {"size": size}, "required": ["size"], "$defs": {"Size": {"type": "integer"}}}
    keep = {"properties": {"where": where}, "required": ["where"], "x-positional": "where"}
    language = {"properties": {"model": {"type": "string"}}}
    schema = recipe_json_schema({"image": image, "keep": keep, "language": language})
    Draft202012Validator.check_schema(schema)

    def is_valid(text: str) -> bool:
        return Draft202012Validator(schema).is_valid(yaml.safe_load(f"corpus: x\n{text}"))

    assert is_valid("steps: [language, {language: null}, {keep: 'x > 1'}, {image: {size: 3, on_error: null, id: i}}]")
    assert is_valid("steps: [{keep: {where: 'x'}}]\ninput: {path: [a, b], caption: null}\noutput:\n")
    assert is_valid("steps: []\ninput:\n")
    for wrong in (
        *("steps: [image]", "steps: [{image: {size: x}}]", "steps: [{image: {sise: 3}}]", "steps: [{nothing: {}}]"),
        *("steps: [{keep: 3}]", "steps: [{keep: 'x', language: {}}]", "steps: [{language: 'x'}]", "seed: 3"),
        *("steps: []\nsed: 3", "steps: []\noutput: {samples_per_shard: 0}", "steps: []\ninput: {pth: x}"),
    ):
        assert not is_valid(wrong), wrong
