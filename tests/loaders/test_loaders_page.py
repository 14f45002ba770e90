"""The snippets of docs/loaders.md run as they stand, in a folder that holds a corpus, and give every sample."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from loading import Corpus
from peers import peer
from test_open_clip import REQUIREMENTS

PAGE = Path(__file__).parents[2] / "docs" / "loaders.md"


def blocks(info: str) -> list[str]:
    """The page's code blocks of one kind."""
    return re.findall(rf"^```{info}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def beside(plain: Corpus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Corpus:
    """The corpus, with the working directory where its folder is called `corpus`."""
    monkeypatch.chdir(plain.folder.parent)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return plain


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: re.findall(r"import (\w+)", code)[-1])
def test_a_snippet(code: str, beside: Corpus) -> None:
    names: dict[str, Any] = {}
    exec(compile(code, "loaders.md", "exec"), names)
    (many,) = [names[name] for name in ("dataset", "rows", "found") if name in names]
    samples = list(many)
    if "found" in names:
        (expected,) = [s for s in beside.samples if "caption" in (s.caption or "")]
        assert (names["uid"], names["media"]) == (expected.row["uid"], expected.media)
        assert len(samples) == 1
    else:
        uids = [sample.get("uid") or sample["json"]["uid"] for sample in samples]
        assert uids == [sample.row["uid"] for sample in beside.samples]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_snippet_with_torch(beside: Corpus) -> None:
    python = peer("open-clip", REQUIREMENTS, build_timeout_s=1200)
    (code,) = blocks("python torch")
    code += "import json\nprint(json.dumps([caption for _, captions in loader for caption in captions]))"
    ended = subprocess.run([str(python), "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    import json

    captions = json.loads(ended.stdout.splitlines()[-1])
    assert sorted(captions) == sorted(sample.caption or "" for sample in beside.samples)


def test_the_page_has_a_section_for_each_loader() -> None:
    assert len(blocks("python")) == 4
    assert len(blocks("python torch")) == 1
