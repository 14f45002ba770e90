"""Compiled loops: kept for the next process, compiled anew where what was kept cannot be read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CODE = """
from typing import NamedTuple
import numpy as np
from corpusmith.operators.kernels import compiled
class {name}(NamedTuple):
    values: np.ndarray
@compiled
def total(pair):
    found = 0.0
    for value in pair.values:
        found += value
    return found
assert total({name}(np.arange(4.0))) == 6.0
print(sum(total.stats.cache_hits.values()))
"""


def hits(folder: Path, name: str) -> int:
    (folder / "summing.py").write_text(CODE.format(name=name))
    os.utime(folder / "summing.py", (1, 1))
    command = [sys.executable, "-c", "import summing"]
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_what_is_compiled_is_kept_and_what_cannot_be_read_is_compiled_anew(tmp_path: Path) -> None:
    assert hits(tmp_path, "Pair") == 0
    assert hits(tmp_path, "Pair") == 1
    # as long and as old as the file before: only the name in what was kept is gone
    assert hits(tmp_path, "Riap") == 0
    assert hits(tmp_path, "Riap") == 1
