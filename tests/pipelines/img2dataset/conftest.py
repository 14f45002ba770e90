"""Fixtures: a small web, and the command's work in this process."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from corpusmith.pipelines.img2dataset.arguments import parse_flags
from corpusmith.pipelines.img2dataset.job import run_job
from corpusmith.pipelines.img2dataset.telling import Telling

sys.path.insert(0, str(Path(__file__).parent))
from small_web import Web


@pytest.fixture
def web() -> Iterator[Web]:
    """The web."""
    with Web() as served:
        yield served


@pytest.fixture
def download() -> Callable[..., str]:
    """Runs `corpusmith download` in this process: words of the command line, then flags; returns what was told."""

    def run(*words: Any, **flags: Any) -> str:
        flags = {"allow_hosts": "127.0.0.1", "processes_count": 1, "thread_count": 16, "timeout": 5} | flags
        told = io.StringIO()
        with Telling(told) as telling:
            run_job(parse_flags([*map(str, words), *(f"--{name}={value}" for name, value in flags.items())]), telling)
        return told.getvalue() + telling.summary()

    return run
