"""Fixtures for all tests: one Ray for the session, a file in which fake operators note their calls."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests share `fakes`


@pytest.fixture(scope="session")
def calls_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of calls; set before Ray starts, so that its workers inherit it."""
    path = tmp_path_factory.mktemp("calls") / "calls.txt"
    os.environ["CORPUSMITH_TEST_CALLS"] = str(path)
    return path


@pytest.fixture
def counted(calls_path: Path) -> Iterator[Path]:
    """Count the calls of fake operators from zero."""
    calls_path.unlink(missing_ok=True)
    yield calls_path


@pytest.fixture(scope="session")
def ray_session(calls_path: Path) -> Iterator[None]:
    """One local Ray for all tests that need it."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=256 << 20,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield
    ray.shutdown()
