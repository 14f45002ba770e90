"""Running on Ray: streams as actor pools of Ray Data, shards as tasks.

Ray Data brings scheduling, back-pressure and memory limits. It is not the state: a unit's published rows say that it is
done, so whatever Ray loses is found missing and run again, a bounded number of times.
"""

from __future__ import annotations

import json
import logging
import math
import os
import pickle
import platform
import socket
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from itertools import groupby
from typing import Any, TypeVar

import pyarrow as pa
import ray
import ray.cloudpickle
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from corpusmith.pipelines.bind import Step
from corpusmith.pipelines.cell import by_value, defining_modules, pickled_by_value
from corpusmith.pipelines.executors import WAITING_UNITS, InlineExecutor, available_cpus, side_by_side, waits
from corpusmith.pipelines.lean import collect_seldom
from corpusmith.pipelines.stream import InFlight, StreamJob, StreamWorker
from corpusmith.pipelines.units import Unit, decode_stats
from corpusmith.schemas.errors import UserError

TASK_RETRIES = 3
STREAM_ATTEMPTS = 4
OBJECT_STORE_BYTES = 1 << 30
CONNECT_TIMEOUT_S = 10.0

_log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


class RayExecutor:
    """Runs on Ray: a cluster at `address`, or one that is started on this machine for the run."""

    name = "ray"

    def __init__(self, address: str | None = None, cpus: int | None = None) -> None:
        self._address = address
        self._cpus = cpus
        self._owned = not ray.is_initialized()
        self._is_local = self._owned and address is None
        self._is_connected = not self._owned
        if address is not None:
            self._connect()
            _compare_versions()

    def _connect(self) -> None:
        """Join the cluster at once; start a Ray of this machine's own not before there is work for it."""
        if not self._is_connected:
            _connect(self._address, self._cpus)
            self._is_connected = True

    @property
    def cpus(self) -> int:
        """Cores of all nodes that are alive now."""
        self._connect()
        return max(1, int(sum(node.get("CPU", 0) for node in _nodes())))

    def run_stream(self, job: StreamJob, units: Sequence[Unit]) -> Iterator[dict[str, Any]]:
        """See Executor. Where Ray runs on this machine alone, this process works on a few units until actors are up."""
        self._connect()
        head = units[: self.cpus] if self._is_local and not _is_heavy(job) else ()
        if not head:
            yield from self._run_on_ray(job, units)
            return
        here = InlineExecutor(self.cpus)
        rest = units[len(head) :]
        mine = replace(job, slots=here.cpus, shares=_shares(job, len(rest), beside=1))
        yield from side_by_side(here.run_stream(mine, head), self._run_on_ray(job, rest, beside=1))

    def _run_on_ray(self, job: StreamJob, units: Sequence[Unit], *, beside: int = 0) -> Iterator[dict[str, Any]]:
        if not units:
            return
        pending = {unit.name: unit for unit in units}
        for attempt in range(STREAM_ATTEMPTS):
            before = len(pending)
            try:
                shared = replace(job, shares=_shares(job, len(pending), beside=beside))
                for summary in _run_once(shared, list(pending.values())):
                    if pending.pop(summary["unit"], None) is not None:
                        yield summary
            except ray.exceptions.RayError as error:
                _raise_if_own(error)
                stuck = attempt > 0 and len(pending) == before
                if stuck or attempt == STREAM_ATTEMPTS - 1:
                    raise _lost(error, f"{len(pending)} units") from error
                _log.warning("workers were lost, %d units run again: %s", len(pending), _first_line(error))
            if not pending:
                return
        raise UserError(
            f"{len(pending)} units have not come back from Ray", hint="run the same command again: it goes on"
        )

    def run_tasks(self, task: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """See Executor."""
        self._connect()
        remote = ray.remote(num_cpus=1, max_retries=TASK_RETRIES)(_call)
        # once for all tasks of a node: arrays that the task holds are shared there
        with by_value(ray.cloudpickle, defining_modules(task, *getattr(task, "__dict__", {}).values())):
            shared = ray.put(task)
        waiting = list(items)
        running: list[Any] = []
        ahead = 2 * self.cpus
        while waiting or running:
            while waiting and len(running) < ahead:
                running.append(remote.remote(shared, waiting.pop(0)))
            finished, running = ray.wait(running)
            try:
                yield from ray.get(finished)
            except ray.exceptions.RayError as error:
                _raise_if_own(error)
                raise _lost(error, f"{len(waiting) + len(running) + 1} tasks") from error

    def close(self) -> None:
        """Stop the Ray that was started or joined for this run."""
        if self._owned and self._is_connected:
            ray.shutdown()


def _is_heavy(job: StreamJob) -> bool:
    """Whether some step holds more than one process of this machine should be asked to hold beside the actors."""
    needs = [step.operator.resources for step in job.segment.stream]
    return any(r.gpus or r.memory_bytes for r in needs)


def _call(task: Callable[[Item], Result], item: Item) -> Result:
    return task(item)


def _connect(address: str | None, cpus: int | None) -> None:
    # Ray's core complains at length about restartable actors whose arguments are large, on the terminal
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address is None:
        options |= {
            "num_cpus": cpus or available_cpus(),
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
    try:
        if address is not None:
            _knock(address)
        with _quiet_stderr():
            ray.init(address=address or "local", **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"no Ray cluster to be used at {address or 'this machine'}: {_first_line(error)}",
            hint="check --address, and that its nodes run this Python and Ray; leave it out to run on this machine",
        ) from error


def _knock(address: str) -> None:
    """Raise OSError where nobody listens at a `host:port`: Ray would wait for somebody without end."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Keep what Ray's core writes to the terminal by itself, such as that its log level was set, off it."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _compare_versions() -> None:
    """Refuse a cluster whose nodes run another corpusmith, Python or Arrow than this process."""
    here = _versions()
    probe = ray.remote(num_cpus=0)(_versions)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    places = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    answers = [probe.options(scheduling_strategy=place).remote() for place in places]
    for node, answer in zip(nodes, answers, strict=True):
        try:
            there = ray.get(answer)
        except ray.exceptions.RayError as error:
            there = f"no corpusmith that could be asked ({_first_line(error)})"
        if there != here:
            raise UserError(
                f"node {node['NodeManagerAddress']} runs {there}, this process {here}",
                hint="install the same corpusmith wheel and constraints.txt on every node",
            )


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("corpusmith", "pyarrow")} | {"python": platform.python_version()}


def _raise_if_own(error: ray.exceptions.RayError) -> None:
    """Raise what our own code raised in a worker; return if Ray lost the worker, or something that it held."""
    if not isinstance(error, ray.exceptions.RayTaskError):
        return
    # a cause that cannot travel comes as a bare RayError
    if not isinstance(error.cause, ray.exceptions.RayError) or type(error.cause) is ray.exceptions.RayError:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None


def _lost(error: BaseException, what: str) -> UserError:
    return UserError(
        f"Ray lost its workers time and again, {what} are not done: {_first_line(error)}",
        hint="a step that kills its worker should be isolated (see the operator's `isolated`); memory may be short: "
        "fewer --cpus, or more memory. What was published is safe, and the same command goes on",
    )


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


def _stages(steps: Sequence[Step]) -> list[tuple[Step, ...]]:
    """Consecutive steps that need the same card share their workers; media between stages goes through Ray."""
    return [tuple(group) for _, group in groupby(steps, key=lambda s: s.operator.resources.gpus)] or [()]


class _StageActor:
    """A worker of one stage, as Ray Data holds it."""

    def __init__(self, pickled: bytes) -> None:
        job, steps = pickle.loads(pickled)
        self._worker = StreamWorker(job, steps)
        collect_seldom()

    def __call__(self, block: pa.Table) -> pa.Table:
        (row,) = block.to_pylist()
        unit = Unit.from_json(row["unit"])
        rows = self._worker.advance(unit, None if self._worker.first else _decode(row))
        if self._worker.last:
            return pa.table({"summary": [json.dumps(self._worker.finish(unit, rows))]})
        return pa.table(
            {
                "unit": [row["unit"]],
                "live": pa.array([_to_ipc(rows.live)], pa.large_binary()),
                "done": pa.array([_to_ipc(rows.done)], pa.large_binary()),
                "stats": [json.dumps({step: asdict(count) for step, count in rows.stats.items()})],
            }
        )


def _run_once(job: StreamJob, units: Sequence[Unit]) -> Iterator[dict[str, Any]]:
    import ray.data

    stages = _stages(job.segment.stream)
    options = [_stage_options(steps, len(units), stages) for steps in stages]
    beside = [job.segment.reduce, job.barrier.step if job.barrier is not None else None]
    operators = [step.operator for step in (*job.segment.stream, *filter(None, beside))]
    _set_up_ray_data()
    dataset = ray.data.from_blocks([pa.table({"unit": [unit.to_json()]}) for unit in units])
    with warnings.catch_warnings():
        # restarts and retries without end are Ray Data's default, and this is the only way to bound them
        warnings.simplefilter("ignore", category=DeprecationWarning)
        for steps, resources in zip(stages, options, strict=True):
            dataset = dataset.map_batches(
                _StageActor,
                batch_size=1,
                batch_format="pyarrow",
                fn_constructor_args=(pickled_by_value((job, steps), operators),),
                **resources,
            )
    batches: Iterable[Any] = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    for batch in batches:
        for text in batch.column("summary").to_pylist():
            yield json.loads(text)


def _shares(job: StreamJob, units: int, *, beside: int) -> dict[str, float]:
    """Step id → the part of the work that one worker of its stage does, with so many workers beside the stage's own."""
    if not units:
        return {}
    return {step.id: 1 / (_pool_size(steps, units) + beside) for steps in _stages(job.segment.stream) for step in steps}


def _set_up_ray_data() -> None:
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = None  # one block out for each block in: a unit stays one unit
    context.wait_for_min_actors_s = -1  # begin with the first: workers of a node that is lost or busy may never come
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what it logs as an error is raised as well


def _stage_options(steps: Sequence[Step], units: int, stages: Sequence[tuple[Step, ...]]) -> dict[str, Any]:
    """Actor pool of a stage: as many workers as its cores or cards allow, many units in each when it waits.

    No worker is given more than its share at once, or the first that comes would take all of a short stream.
    Stages without a card share the cores by claiming less of one each, so that none starves another of its workers;
    those with a card claim no core: the card bounds them.
    """
    import ray.data

    nodes = _nodes()
    gpus, memory = _most(steps, "gpus"), int(_most(steps, "memory_bytes"))
    sharing = sum(not _most(stage, "gpus") for stage in stages)
    claim = 0.0 if gpus else math.floor(_cores(steps, nodes) / sharing * 1e4) / 1e4
    _check_fits(nodes, steps, {"CPU": claim, "GPU": gpus, "memory": memory})
    size = _pool_size(steps, units)
    share = -(-units // size)
    inside = min(share, WAITING_UNITS if waits(steps) else 1)
    options: dict[str, Any] = {
        "compute": ray.data.ActorPoolStrategy(
            size=size,
            max_tasks_in_flight_per_actor=min(share, inside + 1),
            max_concurrent_calls_per_actor=inside,
            enable_true_multi_threading=inside > 1,
        ),
        "num_cpus": claim,
        "max_restarts": TASK_RETRIES,
        "max_task_retries": TASK_RETRIES,
    }
    return options | ({"num_gpus": gpus} if gpus else {}) | ({"memory": memory} if memory else {})


def _pool_size(steps: Sequence[Step], units: int) -> int:
    """Workers of a stage."""
    nodes = _nodes()
    gpus = _most(steps, "gpus")
    resource, each = ("GPU", gpus) if gpus else ("CPU", _cores(steps, nodes))
    return max(1, min(int(sum(node.get(resource, 0) for node in nodes) / each), units))


def _cores(steps: Sequence[Step], nodes: Sequence[Mapping[str, float]]) -> float:
    """Cores that one worker of a stage without a card works on; no more than some node has."""
    return min(_most(steps, "cpus") or 1.0, max(node.get("CPU", 0) for node in nodes))


def _nodes() -> list[dict[str, float]]:
    """What each living node has."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _most(steps: Sequence[Step], resource: str) -> float:
    return max([getattr(step.operator.resources, resource) for step in steps], default=0.0)


def _check_fits(nodes: Sequence[Mapping[str, float]], steps: Sequence[Step], claim: Mapping[str, float]) -> None:
    """Refuse what no node could ever run: Ray would wait for such a node without end."""
    if any(all(node.get(name, 0) >= amount for name, amount in claim.items()) for node in nodes):
        return
    wanted = ", ".join(f"{amount:g} {name}" for name, amount in claim.items() if amount)
    raise UserError(
        f"no node of this Ray has what the steps {', '.join(s.id for s in steps)} need: {wanted}",
        hint="add such a node, or give the steps other parameters",
    )


def _decode(row: dict[str, Any]) -> InFlight:
    return InFlight(_from_ipc(row["live"]), _from_ipc(row["done"]), decode_stats(json.loads(row["stats"])))


def _to_ipc(tables: Sequence[pa.Table]) -> bytes:
    """Tables of different schemas as one run of length-prefixed IPC streams."""
    sink = pa.BufferOutputStream()
    for table in tables:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _from_ipc(data: bytes) -> list[pa.Table]:
    source = pa.BufferReader(data)
    tables = []
    while source.tell() < len(data):
        tables.append(pa.ipc.open_stream(source).read_all())
    return tables
