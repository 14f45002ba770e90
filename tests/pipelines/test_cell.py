"""Cells, held against operators that crash, hang, raise and lie: only the culprits may suffer."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from corpusmith.operators.contract import Annotate, AnnotateRows, Children, Config, Part, Split
from corpusmith.pipelines.capture import OperatorContractError, process_captured
from corpusmith.pipelines.cell import IsolatedOperator
from corpusmith.schemas.columns import Column
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.fates import RowError, RowFailed

DOUBLED = Column("doubled", pa.int64(), "twice the value")


class Mode(Config):
    """How the operators below misbehave."""

    log: str = ""
    offset: int = 0


def misbehave(value: int) -> None:
    """Values below zero name a misfortune."""
    if value == -1:
        os._exit(3)
    if value == -2:
        ctypes.string_at(0)
    if value == -3:
        time.sleep(600)
    if value == -4:
        raise RowFailed("bad value", f"value = {value}")
    if value == -5:
        raise ValueError("a \ud800 lone surrogate")
    if value == -6:
        os.write(1, b"to stdout, which a naive child would share with its protocol")


class Doubler(AnnotateRows, name="test_doubler", version=1):
    """Doubles."""

    Config = Mode
    row_timeout_s = 0.5

    @property
    def requires(self) -> tuple[str, ...]:
        return ("value",)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (DOUBLED,)

    def process_row(self, row: dict[str, Any]) -> Mapping[str, Any]:
        assert isinstance(self.config, Mode)
        if self.config.log:
            with Path(self.config.log).open("a") as log:
                log.write(f"{row['value']}\n")
        misbehave(row["value"])
        return {"doubled": 2 * row["value"] + self.config.offset + self.seed}


class VectorDoubler(Annotate, name="test_vector_doubler", version=1):
    """Doubles whole batches."""

    row_timeout_s = 0.5

    @property
    def requires(self) -> tuple[str, ...]:
        return ("value",)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (DOUBLED,)

    def process(self, batch: pa.Table) -> Part:
        values = batch.column("value").to_pylist()
        for value in values:
            misbehave(value)
        return Part({"doubled": [2 * v for v in values]})


class Twins(Split, name="test_twins", version=1):
    """Splits a row into `value` children."""

    @property
    def requires(self) -> tuple[str, ...]:
        return ("value",)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (Column("index", pa.int64(), "which child"),)

    def process(self, batch: pa.Table) -> Children:
        values = batch.column("value").to_pylist()
        for value in values:
            misbehave(value)
        pairs = [(i, k) for i, v in enumerate(values) for k in range(max(v, 0))]
        return Children([i for i, _ in pairs], [str(k) for _, k in pairs], {"index": [k for _, k in pairs]})


class Flipper(AnnotateRows, name="test_flipper", version=1):
    """Reverses bytes."""

    @property
    def requires(self) -> tuple[str, ...]:
        return ("media",)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (Column("flipped", pa.large_binary(), "reversed"),)

    def process_row(self, row: dict[str, Any]) -> Mapping[str, Any]:
        return {"flipped": row["media"][::-1]}


class Sleeper(AnnotateRows, name="test_sleeper", version=1):
    """Takes its time, within its limit."""

    row_timeout_s = 0.5

    @property
    def requires(self) -> tuple[str, ...]:
        return ("value",)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (Column("pid", pa.int64(), "process"),)

    def process_row(self, row: dict[str, Any]) -> Mapping[str, Any]:
        time.sleep(row["value"] / 1000)
        return {"pid": os.getpid()}


class BadSetup(Sleeper, name="test_bad_setup", version=1):
    """Cannot start."""

    Config = Mode

    def setup(self) -> None:
        assert isinstance(self.config, Mode)
        with Path(self.config.log).open("a") as log:
            log.write("start\n")
        if self.config.offset == 0:
            raise ImportError("no module named blurb")
        if self.config.offset == 1:
            raise UserError("the model file is missing", hint="download it")
        if self.config.log and Path(self.config.log).read_text().count("start") == 1:
            os._exit(7)


class Liar(Annotate, name="test_liar", version=1):
    """Breaks its contract."""

    Config = Mode

    @property
    def requires(self) -> tuple[str, ...]:
        return ("value",)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (DOUBLED,)

    def process(self, batch: pa.Table) -> Part:
        assert isinstance(self.config, Mode)
        return LIES[self.config.offset][0](batch.num_rows)


LIES: list[tuple[Callable[[int], Any], str]] = [
    (lambda n: Part({"doubled": [0] * (n - 1)}), r"column 'doubled': has 3 values for 4 rows"),
    (lambda n: Part({}), "column 'doubled': is missing"),
    (lambda n: Part({"doubled": ["x"] * n}), "column 'doubled': cannot be int64"),
    (lambda n: Part({"doubled": [1.5] * n}), "column 'doubled': cannot be int64"),
    (lambda n: Part({"doubled": [2**70] * n}), "column 'doubled': cannot be int64"),
    (lambda n: Part({"doubled": [0] * n, "trebled": [0] * n}), "column 'trebled': is in the result but not declared"),
    (lambda n: Part({"doubled": [0] * n}, rows=[0] * n), "not distinct positions"),
    (lambda n: Part({"doubled": [0]}, rows=[0]), "no result for 3 of 4"),
    (lambda n: Part({"doubled": [0] * n}, {n: RowError("x")}), "to position 4 of 4"),
    (lambda n: None, "returned NoneType"),
]


def batch_of(values: list[int]) -> pa.Table:
    return pa.table({"uid": [f"{i:032x}" for i in range(len(values))], "value": pa.array(values, pa.int64())})


def arrow_of(outcome: Part | Children, name: str) -> pa.Array:
    column = outcome.columns[name]
    assert isinstance(column, pa.Array)
    return column


def values_of(outcome: Part | Children, name: str) -> list[Any]:
    return arrow_of(outcome, name).to_pylist()


def only_part(outcome: list[Part] | Children) -> Part:
    assert isinstance(outcome, list)
    (part,) = outcome
    return part


def by_row(parts: list[Part] | Children) -> dict[int, Any]:
    """Row → its doubled value or its error; checks that each row is there once."""
    assert isinstance(parts, list)
    found: dict[int, Any] = {}
    for part in parts:
        assert part.rows is not None
        assert arrow_of(part, "doubled").type == pa.int64()
        values = values_of(part, "doubled")
        for k, row in enumerate(part.rows):
            assert row not in found
            assert (values[k] is None) == (k in part.errors)
            found[row] = part.errors.get(k, values[k])
    return found


def expected(values: list[int], errors: Mapping[int, RowError]) -> dict[int, Any]:
    return {i: errors.get(i, 2 * v) for i, v in enumerate(values)}


@contextlib.contextmanager
def isolated(operator: Any, slots: int = 1) -> Iterator[IsolatedOperator]:
    work = IsolatedOperator(operator, slots=slots)
    try:
        yield work
    finally:
        work.close()


def is_gone(pid: int, within_s: float = 3.0) -> bool:
    """Whether a process has ended; a zombie that its reaper has not yet seen has."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


EXITED = RowError("worker died", "exit code 3 while processing this row")
CRASHED = RowError("worker died", "exit signal SIGSEGV while processing this row")
HUNG = RowError("worker hung", "no progress for 0.5 s")


def test_two_culprits_among_64_and_few_attempts(tmp_path: Path) -> None:
    values = list(range(1000, 1064))
    values[10], values[40] = -1, -3
    log = tmp_path / "log"
    with isolated(Doubler(Mode(log=str(log), offset=5), seed=100)) as work:
        found = by_row(work.process(batch_of(values)))
        assert by_row(work.process(batch_of([9]))) == {0: 123}
    errors = {10: EXITED, 40: HUNG}
    assert found == {i: errors.get(i, 2 * v + 105) for i, v in enumerate(values)}
    attempts = log.read_text().split()
    assert max(attempts.count(a) for a in attempts) <= 7
    assert attempts.count("-1") == attempts.count("-3") == 2


def test_a_batch_that_dies_as_one_is_bisected() -> None:
    with isolated(VectorDoubler()) as work:
        found = by_row(work.process(batch_of([1, 2, -2, 4])))
    assert found == {0: 2, 1: 4, 2: CRASHED, 3: 8}


def test_a_row_alone_in_a_used_child_gets_a_fresh_one(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with isolated(Doubler(Mode(log=str(log)))) as work:
        work.process(batch_of([1]))
        found = by_row(work.process(batch_of([-1])))
    assert found == {0: EXITED}
    assert log.read_text().split() == ["1", "-1", "-1"]


@pytest.mark.parametrize(("operator", "in_child"), [(Doubler, False), (VectorDoubler, False), (VectorDoubler, True)])
def test_exceptions_fail_their_rows_alike_in_and_out_of_a_child(operator: Any, in_child: bool) -> None:
    values = [1, -4, 3, -5, -6, 6]
    with isolated(operator()) as work:
        parts = work.process(batch_of(values)) if in_child else process_captured(operator(), batch_of(values))
        assert len(work.pids) == in_child
    errors = {1: RowError("bad value", "value = -4"), 3: RowError("ValueError", "a ? lone surrogate")}
    assert by_row(parts) == expected(values, errors)


def test_an_operator_of_the_main_module_travels(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import pyarrow as pa, sibling\n"
        "from corpusmith.operators.contract import AnnotateRows, Config\n"
        "from corpusmith.pipelines.cell import IsolatedOperator\n"
        "from corpusmith.schemas.columns import Column\n"
        "class C(Config):\n    add: int = 1\n"
        "class Plus(AnnotateRows, name='plus', version=1):\n"
        "    'Adds.'\n    Config = C\n    requires = ('value',)\n    produces = (Column('sum', pa.int64(), 'sum'),)\n"
        "    def process_row(self, row):\n        return {'sum': sibling.plus(row['value'], self.config.add)}\n"
        "if __name__ == '__main__':\n"
        "    work = IsolatedOperator(Plus(C(add=3)))\n"
        "    print(work.process(pa.table({'uid': ['a'], 'value': [4]}))[0].columns['sum'].to_pylist())\n"
        "    print(work.pids[0])\n"
    )
    (tmp_path / "sibling.py").write_text("def plus(a, b):\n    return a + b\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=True)
    result, pid = done.stdout.split()
    assert result == "[7]"
    assert is_gone(int(pid)), "a parent that ends without close() leaves no child"


def test_a_killed_parent_leaves_no_child_not_even_a_hung_one(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import pyarrow as pa, time\n"
        "from corpusmith.operators.contract import AnnotateRows\n"
        "from corpusmith.pipelines.cell import IsolatedOperator\n"
        "class Hang(AnnotateRows, name='hang', version=1):\n"
        "    'Hangs.'\n    requires = ('value',)\n"
        "    def process_row(self, row):\n"
        "        import os\n        open(row['uid'], 'w').write(str(os.getpid()))\n        time.sleep(600)\n"
        "if __name__ == '__main__':\n"
        f"    IsolatedOperator(Hang()).process(pa.table({{'uid': [{str(tmp_path / 'pid')!r}], 'value': [4]}}))\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)])
    try:
        deadline = time.monotonic() + 20
        pid_file = tmp_path / "pid"
        while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        pid = int(pid_file.read_text())
        os.kill(pid, 0)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert is_gone(pid)


def test_split() -> None:
    with isolated(Twins()) as work:
        children = work.process(batch_of([2, -4, -1, 0]))
    assert isinstance(children, Children)
    found = zip(children.parents, children.keys, values_of(children, "index"), strict=True)
    assert sorted(found) == [(0, "0", 0), (0, "1", 1)]
    assert children.errors == {1: RowError("bad value", "value = -4"), 2: EXITED}


@pytest.mark.parametrize("empty", [Doubler, Twins])
def test_an_empty_batch(empty: Any) -> None:
    with isolated(empty()) as work:
        outcome = work.process(batch_of([]))
    if isinstance(outcome, Children):
        assert not outcome.parents and arrow_of(outcome, "index").type == pa.int64()
    else:
        assert outcome == []


@pytest.mark.parametrize("lie", range(len(LIES)))
def test_a_broken_contract_is_no_row_error(lie: int) -> None:
    with pytest.raises(OperatorContractError, match=f"'test_liar'.*{LIES[lie][1]}"):
        process_captured(Liar(Mode(offset=lie)), batch_of([1, 2, 3, 4]))


def test_a_broken_contract_crosses_the_pipe_and_the_child_lives_on() -> None:
    with isolated(Liar(Mode(offset=1))) as work:
        with pytest.raises(OperatorContractError, match="'test_liar', column 'doubled': is missing"):
            work.process(batch_of([1]))
        pids = work.pids
        with pytest.raises(OperatorContractError):
            work.process(batch_of([1]))
        assert work.pids == pids


@pytest.mark.parametrize(
    ("offset", "match", "starts"),
    [(0, "exit code 1 in setup.*no module named blurb", 2), (1, "the model file is missing", 1)],
)
def test_a_bad_setup_is_told_and_not_tried_for_ever(tmp_path: Path, offset: int, match: str, starts: int) -> None:
    log = tmp_path / "log"
    with isolated(BadSetup(Mode(log=str(log), offset=offset))) as work, pytest.raises(UserError) as raised:
        work.process(batch_of([1, 2]))
    assert re.search(match, str(raised.value), re.DOTALL)
    assert log.read_text().count("start") == starts


def test_a_setup_may_fail_once(tmp_path: Path) -> None:
    with isolated(BadSetup(Mode(log=str(tmp_path / "log"), offset=2))) as work:
        assert isinstance(work.process(batch_of([1])), list)


def test_slow_rows_within_their_limit_are_left_alone() -> None:
    with isolated(Sleeper()) as work:
        part = only_part(work.process(batch_of([150] * 5)))
        assert not part.errors
        assert 0.75 <= work.busy_s < 1.25


def test_megabytes_of_media_cross_and_come_back() -> None:
    media = [os.urandom(1 << 20) for _ in range(16)] + [b"", None]
    batch = pa.table({"uid": [str(i) for i in range(18)], "media": pa.array(media, pa.large_binary())})
    with isolated(Flipper()) as work:
        part = only_part(work.process(batch))
    assert list(part.errors) == [17]
    assert values_of(part, "flipped")[:17] == [m[::-1] for m in media[:17] if m is not None]


def test_threads_share_two_children() -> None:
    with isolated(Sleeper(), slots=2) as work, ThreadPoolExecutor(4) as threads:
        parts = list(threads.map(work.process, [batch_of([20] * 5) for _ in range(8)]))
        pids = {pid for outcome in parts for pid in values_of(only_part(outcome), "pid")}
        assert pids == set(work.pids)
        assert len(pids) == 2
    assert all(is_gone(pid) for pid in pids)


def test_a_child_outlives_the_thread_that_started_it_and_is_replaced_when_it_dies_idle() -> None:
    with isolated(Sleeper()) as work:
        thread = threading.Thread(target=work.process, args=[batch_of([1])])
        thread.start()
        thread.join()
        pids = work.pids
        time.sleep(0.1)
        part = only_part(work.process(batch_of([1])))
        assert values_of(part, "pid") == pids
        os.kill(pids[0], signal.SIGKILL)
        part = only_part(work.process(batch_of([1, 1])))
        assert values_of(part, "pid") == work.pids * 2 != pids * 2


def test_close_ends_children_idle_or_at_work_and_may_be_called_again() -> None:
    work = IsolatedOperator(Sleeper(), slots=2)
    work.process(batch_of([1]))
    with ThreadPoolExecutor(3) as threads:
        running = [threads.submit(work.process, batch_of([400] * 10)) for _ in range(3)]
        while len(work.pids) < 2:
            time.sleep(0.01)
        time.sleep(0.3)
        pids = work.pids
        work.close()
        for future in running:
            with pytest.raises(RuntimeError, match="closed"):
                future.result(timeout=5)
    work.close()
    assert all(is_gone(pid) for pid in pids)
    with pytest.raises(RuntimeError, match="closed"):
        work.process(batch_of([1]))
