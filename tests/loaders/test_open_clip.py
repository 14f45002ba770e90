"""open_clip's training reads a corpus with its own data loader, transform and tokenizer, unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest
from loading import Corpus, Expected, read_by
from peers import peer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

REQUIREMENTS = ("open_clip_torch==3.3.0", "webdataset==0.2.86", "pandas")
KNOWN_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
"""What open_clip takes for an image; it passes over samples without one, and over those without a caption."""


@pytest.fixture(scope="module")
def python() -> Path:
    """An environment with open_clip: torch makes it large."""
    return peer("open-clip", REQUIREMENTS, build_timeout_s=1200)


@pytest.mark.parametrize("name", ["plain", "mixed"])
@pytest.mark.parametrize("workers", [0, 2])
def test_it_loads(name: str, workers: int, python: Path, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    corpus: Corpus = request.getfixturevalue(name)
    readable = [s for s in corpus.samples if s.caption is not None and s.extension in KNOWN_EXTENSIONS]
    assert readable == corpus.samples or name == "mixed"
    shards = str(corpus.folder / "shards") + f"/{{00000..{len(corpus.tars) - 1:05d}}}.tar"
    expected = [[str(written(tmp_path, sample)), sample.caption] for sample in readable]
    asked = {"shards": shards, "count": len(readable), "workers": workers, "expected": expected}
    found = read_by(python, "open_clip_reads.py", asked)
    assert found["shape"] == [1, 3, 64, 64]
    assert len(set(found["expected"])) == len(readable)
    assert sorted(found["validation"]) == sorted(found["expected"])
    if workers == 0:
        assert found["validation"] == found["expected"], "in the order of the shards"
        assert sorted(found["training"]) == sorted(found["expected"]), "an epoch gives each sample once"
    assert set(found["training"]) <= set(found["expected"])


def written(folder: Path, sample: Expected) -> Path:
    """The sample's media as a file."""
    path = folder / f"{sample.key}.{sample.extension}"
    path.write_bytes(sample.media)
    return path
