"""decontaminate: copies of evaluation images go, others stay, and no part of a set is left out in silence."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import fates, outcome, run_recipe
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import all_photos, crops, jpeg
from pydantic import ValidationError
from shuffled import table_of

from corpusmith.operators.contract import Decision
from corpusmith.operators.dedup import decontaminate
from corpusmith.operators.dedup.decontaminate import Decontaminate
from corpusmith.operators.registry import operator_class
from corpusmith.pipelines.run import prepare
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.recipe import parse_recipe


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "corpusmith" / "evaluation_images"


def decide(table: pa.Table, sets: Mapping[str, Any], **config: Any) -> Decision:
    operator = Decontaminate(Decontaminate.Config.model_validate({"sets": sets, **config}))
    assert set(operator.requires) <= set(table.column_names)
    operator.setup()
    decision = operator.decide(table)
    keep = pa.array(decision.keep).to_pylist()
    assert {i for i, kept in enumerate(keep) if not kept} == decision.reasons.keys()
    return decision


def folder_of(path: Path, pictures: Mapping[str, bytes]) -> Path:
    for name, data in pictures.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def tar_of(path: Path, pictures: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in pictures.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def copies(photo: np.ndarray) -> list[bytes]:
    half = cv2.resize(photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return [jpeg(photo, 92), jpeg(photo, 40), jpeg(half, 85)]


RECIPE = """
    corpus: t
    input: {{path: {pool}}}
    steps:
      - {hash}
      - decontaminate: {{sets: {{photos: {{images: {images}}}}}, hash: {hash}}}
"""


@pytest.mark.parametrize(("form", "kind"), [("folder", "phash"), ("tar", "pdq"), ("corpus", "phash")])
def test_copies_of_photos_go_and_others_stay(tmp_path: Path, form: str, kind: str) -> None:
    """From files to fates; evaluation photos as a folder, a tar and a finished corpus."""
    photos = all_photos()
    evaluation = {f"deep/{i}.jpg": jpeg(photo, 97) for i, photo in enumerate(photos[:2])}
    images = folder_of(tmp_path / "evaluation", evaluation)
    if form == "tar":
        images = tar_of(tmp_path / "evaluation.tar", {name[5:]: data for name, data in evaluation.items()})
    if form == "corpus":
        run_recipe(f"{{corpus: e, input: {{path: {images}}}, steps: []}}", tmp_path / "corpus")
        images = tmp_path / "corpus"
    pool = {f"{i}-{k}.jpg": data for i, photo in enumerate(photos) for k, data in enumerate(copies(photo))}
    recipe = RECIPE.format(pool=folder_of(tmp_path / "pool", pool), images=images, hash=kind)
    run_recipe(recipe, tmp_path / "out")
    found = list(fates(tmp_path / "out").values())
    rejected = [row for row in found if row["fate"] == "rejected"]
    assert len(rejected) == 6 and sum(row["fate"] == "kept" for row in found) == 9
    assert all(row["reason"].startswith(f"evaluation set photos: {kind} distance ") for row in rejected)
    told = {row["reason"].partition(" of ")[2] for row in rejected}
    assert len(told) == 2
    if form == "folder":
        assert told == {"deep/0.jpg", "deep/1.jpg"}


def test_files_of_the_input_mean_nothing(tmp_path: Path) -> None:
    """The same rows in one file or seven, in another order: the same shards and the same fates."""
    drawn = np.random.default_rng(0)
    numbers = drawn.integers(0, 2**64, 300, np.uint64, endpoint=False)
    evaluation = [f"{n ^ np.uint64(1 << int(drawn.integers(0, 60))):016x}" for n in numbers[:40]]
    (tmp_path / "hashes.txt").write_text("\n".join(evaluation))
    rows = pa.table(
        {
            "url": [f"http://web/{i}" for i in range(300)],
            "caption": [f"caption {i}" for i in range(300)],
            "phash": [f"{n:016x}" for n in numbers],
        }
    )
    outcomes = []
    for parts in (1, 7):
        folder = tmp_path / f"in{parts}"
        folder.mkdir()
        shuffled = rows.take(pa.array(np.random.default_rng(parts).permutation(300)))
        for part in range(parts):
            places = pa.array(np.arange(part, 300, parts))
            pq.write_table(shuffled.take(places), folder / f"{part}.parquet")
        recipe = f"""
            corpus: t
            input: {{path: "{folder}/*.parquet"}}
            steps:
              - decontaminate: {{sets: {{e: {{hashes: {tmp_path / "hashes.txt"}}}}}}}
        """
        run_recipe(recipe, tmp_path / f"out{parts}")
        outcomes.append(outcome(tmp_path / f"out{parts}"))
    assert outcomes[0] == outcomes[1]
    assert [fate for fate, *_ in outcomes[0][1].values()].count("rejected") == 40


@given(
    evaluation=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=30),
    flips=st.lists(st.tuples(st.integers(0, 29), st.sets(st.integers(0, 63), max_size=9)), min_size=1, max_size=30),
    radius=st.none() | st.integers(0, 12),
)
@settings(max_examples=40, deadline=None)
def test_is_the_nearest_hash(
    tmp_path_factory: pytest.TempPathFactory,
    evaluation: list[int],
    flips: list[tuple[int, set[int]]],
    radius: int | None,
) -> None:
    path = tmp_path_factory.mktemp("lists") / "hashes.json"
    named = {f"image {i:02}": f"{value:016x}" for i, value in enumerate(evaluation)}
    path.write_text(json.dumps(named))
    numbers = [evaluation[i % len(evaluation)] ^ sum(1 << bit for bit in bits) for i, bits in flips]
    found = decide(table_of(phash=[f"{n:016X}" for n in numbers]), {"e": {"hashes": str(path)}}, radius=radius)
    expected = {}
    for i, number in enumerate(numbers):
        distance, k = min(((number ^ value).bit_count(), k) for k, value in enumerate(evaluation))
        if distance <= (4 if radius is None else radius):
            expected[i] = f"evaluation set e: phash distance {distance} of image {k:02}"
    assert dict(found.reasons) == expected and not found.errors


HASH = "0f" * 32


def written(folder: Path, form: str) -> Path:
    """One list in several forms."""
    path = folder / f"list{form}"
    if form == ".txt":
        path.write_text(f"{HASH}\n\n{'f0' * 32}\n")
    elif form == ".json":
        path.write_text(json.dumps([HASH, "f0" * 32]))
    elif form == ".csv":
        path.write_text(f"name,pdq,sha256\na,{HASH},{HASH}\nb,{'f0' * 32},{'f0' * 32}\n")
    else:
        pq.write_table(pa.table({"key": ["a", "b"], "pdq": [HASH, "f0" * 32], "sha256": [HASH, "f0" * 32]}), path)
    return path


@pytest.mark.parametrize(("form", "name"), [(".txt", "line 1"), (".json", "item 1"), (".csv", "a"), (".parquet", "a")])
def test_lists_in_their_forms(tmp_path: Path, form: str, name: str) -> None:
    path = str(written(tmp_path, form))
    near = f"{int(HASH, 16) ^ (2**31 - 1):064x}"
    table = table_of(pdq=[near, "3" * 64, None, "0" * 16], sha256=[HASH, near, HASH.upper(), None])
    found = decide(table, {"e": {"hashes": path}}, hash="pdq")
    assert dict(found.reasons) == {0: f"evaluation set e: pdq distance 31 of {name}"}
    assert {i: (e.error, e.message) for i, e in found.errors.items()} == {
        2: ("missing pdq", ""),
        3: ("malformed pdq", f"not 64 hex digits: {'0' * 16}"),
    }
    found = decide(table, {"e": {"sha256": path}})
    assert dict(found.reasons) == dict.fromkeys((0, 2), f"evaluation set e: sha256 of {name}")
    assert found.errors[3].error == "missing sha256"


def test_first_set_tells_and_a_hit_outweighs_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("0" * 16)
    (tmp_path / "b.txt").write_text("f" * 64)
    sets = {"b": {"sha256": str(tmp_path / "b.txt")}, "a": {"hashes": [str(tmp_path / "a.txt")]}}
    table = table_of(phash=["0" * 16, "0" * 16, None, None], sha256=["f" * 64, None, "f" * 64, None])
    found = decide(table, sets)
    told = {i: reason.partition(":")[0] for i, reason in found.reasons.items()}
    assert told == {0: "evaluation set b", 1: "evaluation set a", 2: "evaluation set b"}
    assert {i: e.error for i, e in found.errors.items()} == {3: "missing sha256"}


def vectors(count: int, dimension: int, seed: int = 0) -> np.ndarray:
    made = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.mark.parametrize("form", ["npy", "parquet"])
def test_embeddings_by_cosine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setattr(decontaminate, "_QUERIES", 7)
    monkeypatch.setattr(decontaminate, "_OTHERS", 11)
    theirs, noise = vectors(60, 32), vectors(60, 32, seed=1)
    ours = np.concatenate([3 * (theirs + 0.9 * noise), vectors(40, 32, seed=2)])
    path = tmp_path / f"e.{form}"
    if form == "npy":
        np.save(path, theirs)
    else:
        pq.write_table(pa.table({"embedding": pa.array(theirs.tolist(), pa.list_(pa.float32()))}), path)
    column = [*ours.tolist(), None, [0.0] * 32, [float("nan")] * 32, [1.0] * 31]
    found = decide(table_of(embedding=pa.array(column, pa.list_(pa.float32()))), {"e": {"embeddings": str(path)}})
    cosines = (ours / np.linalg.norm(ours, axis=1, keepdims=True)) @ theirs.T
    is_clear = np.abs(cosines.max(axis=1) - 0.604) > 2e-3
    rejected = [i in found.reasons for i in range(100)]
    assert np.array_equal(np.array(rejected)[is_clear], (cosines.max(axis=1) >= 0.604)[is_clear])
    assert 40 < sum(rejected) < 80
    for i, reason in found.reasons.items():
        cosine, name = reason.removeprefix("evaluation set e: cosine ").split(" of row ")
        assert cosines[i, int(name) - 1] > cosines[i].max() - 2e-3
        assert abs(float(cosine) - cosines[i].max()) < 2e-3
    errors = {i: e.error for i, e in found.errors.items()}
    assert errors == {100: "missing embedding", **dict.fromkeys((101, 102, 103), "malformed embedding")}
    assert found.errors[103].message == "31 values, where the evaluation set has 32"


def test_batches_mean_nothing(tmp_path: Path) -> None:
    """A wrong length in a batch of its own fails all the same, and a bound is exact in any batch."""
    theirs = vectors(30, 16)
    np.save(tmp_path / "e.npy", theirs)
    ours = [*(theirs + 0.8 * vectors(30, 16, seed=3)).tolist(), [1.0] * 15, [1.0] * 15, None]
    table = table_of(embedding=pa.array(ours, pa.list_(pa.float32())))
    operator = Decontaminate(Decontaminate.Config.model_validate({"sets": {"e": {"embeddings": f"{tmp_path}/e.npy"}}}))
    operator.setup()
    whole = operator.decide(table)
    for i in range(len(ours)):
        one = operator.decide(table.slice(i, 1))
        assert one.reasons.get(0) == whole.reasons.get(i) and one.errors.get(0) == whole.errors.get(i)


def test_an_unreadable_image_is_an_error_that_names_it(tmp_path: Path) -> None:
    photo = jpeg(all_photos()[0])
    pictures = {"a.jpg": photo, "sub/bad.jpg": photo[: len(photo) // 2], "film.mp4": b"no film", "worse.png": b""}
    images = folder_of(tmp_path / "images", pictures)
    recipe = RECIPE.format(pool=images, images=images, hash="phash")
    for _ in range(2):
        with pytest.raises(UserError, match=r"film\.mp4: an evaluation image cannot be hashed.*and 2 others"):
            prepare(parse_recipe(recipe, source="r.yaml"), "r.yaml")
    sets = {"e": {"images": str(images)}}
    found = decide(table_of(phash=["0" * 16]), sets, skip_unreadable=True)
    assert not found.reasons
    tar = tar_of(tmp_path / "t.tar", {"000.jpg": photo, "001.jpg": b"\xff\xd8\xff", "002.txt": b"no image"})
    with pytest.raises(ValidationError, match=r"t\.tar/001: an evaluation image cannot be hashed.*and 1 others"):
        Decontaminate.Config.model_validate({"sets": {"e": {"images": str(tar)}}})


def test_images_are_hashed_once_and_a_changed_set_is_a_changed_step(tmp_path: Path, cache: Path) -> None:
    images = folder_of(tmp_path / "images", {"a.jpg": jpeg(all_photos()[0])})
    sets = {"e": {"images": str(images)}}
    first = Decontaminate.Config.model_validate({"sets": sets})
    [kept] = cache.iterdir()
    stamp = kept.stat().st_mtime_ns
    operator = Decontaminate(first)
    operator.setup()
    assert [path.stat().st_mtime_ns for path in cache.iterdir()] == [stamp]
    kept.write_text("{broken")
    assert Decontaminate.Config.model_validate({"sets": sets}) == first
    folder_of(images, {"b.jpg": jpeg(all_photos()[1])})
    second = Decontaminate.Config.model_validate({"sets": sets})
    assert second.sets_sha256 != first.sets_sha256
    with pytest.raises(UserError, match="changed after the recipe was read"):
        operator.setup()
    with pytest.raises(ValidationError, match="the evaluation sets are others"):
        Decontaminate.Config.model_validate({"sets": sets, "sets_sha256": first.sets_sha256})


def test_without_a_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    photos = crops(all_photos(), 3)
    images = folder_of(tmp_path / "images", {f"{i}.jpg": jpeg(photo) for i, photo in enumerate(photos)})
    assert not decide(table_of(pdq=["0" * 64]), {"e": {"images": str(images)}}, hash="pdq").reasons


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("short.txt", "0" * 16 + "\n" + "0" * 15, "line 2 is no phash of 16 hex digits"),
        ("empty.txt", "\n", "the list is empty"),
        ("latin.txt", "\xff", "cannot be read"),
        ("broken.json", "[", "cannot be read"),
        ("number.json", "3", "neither a list of hashes nor an object"),
        ("numbers.json", "[3]", "item 1 is no phash"),
        ("other.csv", "name,hash\na,0", "no column 'phash'"),
        ("null.csv", "name,phash\na,", "a is no phash"),
        ("broken.parquet", "PAR1", "cannot be read"),
        ("hashes.xml", "", "this is no list of hashes"),
    ],
)
def test_bad_lists_are_errors(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="latin-1")
    with pytest.raises(ValidationError, match=message) as caught:
        Decontaminate.Config.model_validate({"sets": {"e": {"hashes": str(tmp_path / name)}}})
    assert str(tmp_path / name) in str(caught.value)


def test_bad_embeddings_are_errors(tmp_path: Path) -> None:
    def refused(message: str, *values: np.ndarray) -> None:
        paths = [str(tmp_path / f"{i}.npy") for i in range(len(values))]
        for path, value in zip(paths, values, strict=True):
            np.save(path, value)
        with pytest.raises(ValidationError, match=message):
            Decontaminate.Config.model_validate({"sets": {"e": {"embeddings": paths}}})

    refused("row 2 is no usable embedding", np.array([[1.0, 0], [0, 0]]))
    refused("row 1 is no usable embedding", np.array([[1.0, np.nan]]))
    refused("no matrix of floats", np.zeros(3))
    refused("no matrix of floats", np.zeros((2, 2), np.int64))
    refused("embeddings of 3 values, not 2", np.ones((1, 2)), np.ones((1, 3)))
    with pytest.raises(ValidationError, match=r"are a \.npy or a \.parquet file"):
        (tmp_path / "e.csv").write_text("1,2")
        Decontaminate.Config.model_validate({"sets": {"e": {"embeddings": str(tmp_path / "e.csv")}}})


def test_what_recipes_write(tmp_path: Path) -> None:
    assert operator_class("decontaminate") is Decontaminate
    (tmp_path / "a.txt").write_text("0" * 16)
    one = {"hashes": str(tmp_path / "a.txt")}
    lack = Decontaminate(Decontaminate.Config()).missing()
    assert lack is not None and "no evaluation set is named" in lack
    assert Decontaminate(Decontaminate.Config.model_validate({"sets": {"e": one}})).missing() is None
    for wrong in (
        {"sets": {"e": {}}},
        {"sets": {"e: x": one}},
        {"sets": {"e": {**one, "images": "a"}}},
        {"sets": {"e": {"hashes": str(tmp_path / "none.txt")}}},
        {"sets": {"e": {"images": str(tmp_path / "none")}}},
        {"sets": {"e": {"images": str(tmp_path / "a.txt")}}},
        {"sets": {"e": one}, "radius": 13},
        {"sets": {"e": one}, "cosine": 0},
    ):
        with pytest.raises(ValidationError):
            Decontaminate.Config.model_validate(wrong)
    config = Decontaminate.Config.model_validate({"sets": {"e": one}, "column": "look"})
    assert Decontaminate(config).requires == ("look",)
