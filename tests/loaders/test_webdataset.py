"""webdataset gives every sample once, in the order of the shards, with the bytes, captions and rows of the Parquets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from loading import Corpus, read_by, sha256
from peers import peer

RELEASES = ("0.2.86", "1.0.2")
"""The newest that open_clip allows, and the newest of all; ours is between them."""


def check(python: Path | str, corpus: Corpus) -> None:
    """Read under one Python and compare with the Parquets."""
    found: list[dict[str, Any]] = read_by(python, "webdataset_reads.py", {"tars": corpus.tars})
    assert [sample["key"] for sample in found] == [sample.key for sample in corpus.samples]
    for sample, expected in zip(found, corpus.samples, strict=True):
        has_caption = expected.caption is not None
        assert sample["extensions"] == [expected.extension, *["txt"] * has_caption, "json"]
        assert sample["sha256"] == sha256(expected.media)
        assert tuple(sample["size"]) == expected.size
        assert sample["caption"] == expected.caption
        offsets = {"tar_offset", "tar_size"}
        assert sample["row"] == {name: value for name, value in expected.row.items() if name not in offsets}


def test_ours(plain: Corpus, mixed: Corpus) -> None:
    check(sys.executable, plain)
    check(sys.executable, mixed)


@pytest.mark.slow
@pytest.mark.timeout(700)
@pytest.mark.parametrize("release", RELEASES)
def test_other_releases(plain: Corpus, mixed: Corpus, release: str) -> None:
    python = peer(f"webdataset-{release}", [f"webdataset=={release}", "numpy", "pillow"])
    check(python, plain)
    check(python, mixed)
