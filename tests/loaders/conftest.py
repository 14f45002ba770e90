"""The two corpora, made once for all loaders."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the tests share `loading`

from loading import Corpus, make_mixed, make_plain


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """13 samples in shards of 4, 4 and 5."""
    return make_plain(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """9 samples as they came, in a shard of 1 and four of 2; each third without a caption."""
    return make_mixed(tmp_path_factory.mktemp("mixed"))
