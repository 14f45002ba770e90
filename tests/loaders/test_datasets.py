"""Hugging Face `datasets` gives every sample once: from the tars, at once and streamed, and from the Parquets."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loading import Corpus
from PIL import Image

EXTENSIONS = {"plain": ("jpg",), "mixed": ("jpg", "png", "webp", "gif")}


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """`load_dataset` without a network and without a cache that outlives the test."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    import datasets

    datasets.disable_progress_bars()

    def loaded(kind: str, **arguments: Any) -> Any:
        return datasets.load_dataset(kind, split="train", cache_dir=str(tmp_path / "cache"), **arguments)

    yield loaded


def features(extensions: tuple[str, ...]) -> Any:
    """What the documentation says to give; images are left encoded, so that bytes can be compared."""
    import datasets

    texts = {name: datasets.Value("string") for name in ("__key__", "__url__", "txt")}
    images = {extension: datasets.Image(decode=False) for extension in extensions}
    return datasets.Features({**texts, **images, "json": datasets.Json()})


@pytest.mark.parametrize("name", ["plain", "mixed"])
@pytest.mark.parametrize("streaming", [False, True])
def test_tars(name: str, streaming: bool, load: Any, request: pytest.FixtureRequest) -> None:
    corpus: Corpus = request.getfixturevalue(name)
    extensions = EXTENSIONS[name]
    found = list(load("webdataset", data_files=corpus.tars, features=features(extensions), streaming=streaming))
    assert [sample["__key__"] for sample in found] == [sample.key for sample in corpus.samples]
    for sample, expected in zip(found, corpus.samples, strict=True):
        media = {extension: sample[extension]["bytes"] for extension in extensions if sample[extension] is not None}
        assert media == {expected.extension: expected.media}
        assert sample["txt"] == expected.caption
        assert sample["json"] == {k: v for k, v in expected.row.items() if k not in ("tar_offset", "tar_size")}
        assert Image.open(io.BytesIO(media[expected.extension])).size == expected.size


@pytest.mark.parametrize("name", ["plain", "mixed"])
def test_parquets(name: str, load: Any, request: pytest.FixtureRequest) -> None:
    corpus: Corpus = request.getfixturevalue(name)
    found = load("parquet", data_files=str(corpus.folder / "shards" / "*.parquet"))
    assert list(found) == [sample.row for sample in corpus.samples]
