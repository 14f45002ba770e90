"""Environments of the tools that corpusmith is compared with, each in a folder of its own, built on first use.

Their requirements contradict ours, and some are larger than all of ours together, so none is part of the development
environment. They lie below `.peers` in the repository, which keeps itself out of version control. Where one cannot be
built, no network being the usual cause, the test that asks for it is skipped and says why.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
FOLDER = REPOSITORY / ".peers"


def peer(
    name: str, requirements: Sequence[str], constraints: Sequence[str] = (), *, build_timeout_s: float = 600.0
) -> Path:
    """The Python executable of an environment that holds the given packages; its commands lie beside it.

    The first call builds, which takes from seconds to minutes: a test marks itself slow and sets a time-out that leaves
    room for it. One name stands for one set of requirements: another set rebuilds it. Processes that ask for the same
    environment at once wait for one build.

    Args:
        name: of the environment, and of its folder.
        requirements: as a requirements file holds them, one a line: `img2dataset==1.47.0`, `-e /path[extra]`.
        constraints: bounds on packages that come along, as a constraints file holds them.
        build_timeout_s: what a build may take, in seconds.

    Raises:
        Skipped: the environment cannot be built; the reason is pip's last line.
    """
    python, problem = _built(name, tuple(requirements), tuple(constraints), build_timeout_s)
    if problem is not None:
        pytest.skip(f"no environment for {name}: {problem}", allow_module_level=True)
    return python


@cache
def _built(
    name: str, requirements: tuple[str, ...], constraints: tuple[str, ...], build_timeout_s: float
) -> tuple[Path, str | None]:
    """The executable, and why it cannot be used; a build that failed is not tried again by this process."""
    home = FOLDER / name
    python, stamp = home / "bin" / "python", home / "complete.json"
    wanted = json.dumps({"python": sys.version, "requirements": requirements, "constraints": constraints})
    with _locked(name):
        if stamp.exists() and stamp.read_text() == wanted:
            return python, None
        problem = _build(home, requirements, constraints, build_timeout_s)
        if problem is None:
            stamp.write_text(wanted)
    return python, problem


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """Holds the name against other processes; the system frees it should this one die."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / ".gitignore").write_text("*\n")
    with (FOLDER / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(home: Path, requirements: Sequence[str], constraints: Sequence[str], timeout_s: float) -> str | None:
    """Make the environment anew; why that failed, or None."""
    log = home.with_suffix(".log")
    problem = _run([sys.executable, "-m", "venv", "--clear", str(home)], log, timeout_s)
    if problem is not None:
        return problem
    wanted, bounds = home / "requirements.txt", home / "constraints.txt"
    wanted.write_text("".join(f"{line}\n" for line in requirements))
    bounds.write_text("".join(f"{line}\n" for line in constraints))
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
    return _run([*pip, "-r", str(wanted), "-c", str(bounds)], log, timeout_s)


def _run(command: Sequence[str], log: Path, timeout_s: float) -> str | None:
    """The last line that a command said before it failed; None where it did not.

    Its processes are a group, so that nothing of it outlives the time-out, and none can hold a pipe open.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    with log.open("w") as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said, start_new_session=True)
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"not built within {timeout_s:g} s"
    if status == 0:
        return None
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else f"{command[0]} ended with status {status}"
