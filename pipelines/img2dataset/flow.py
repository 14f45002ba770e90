"""The way of the rows: slices of shards → one downloader → image slots → their shard.

Slices of later shards start while the tail of an earlier one is waiting for its servers, so that a slow host idles
nothing. Two bounds hold the memory: rows that are being downloaded, and bytes that wait for an image slot. Images are
worked on in child processes, which hostile ones may crash; each slot is a thread that hands several at once to a child.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from corpusmith.operators.contract import Part
from corpusmith.operators.fetch.download import Download
from corpusmith.operators.image.image import Image
from corpusmith.pipelines.capture import take_rows
from corpusmith.pipelines.cell import IsolatedOperator
from corpusmith.pipelines.img2dataset.flags import Flags
from corpusmith.pipelines.img2dataset.inputs import EXPECTED
from corpusmith.pipelines.img2dataset.records import DOWNLOAD_FAILED, RESIZE_FAILED, SUCCESS, Outcome
from corpusmith.pipelines.img2dataset.shards import OpenShard
from corpusmith.pipelines.img2dataset.steps import download_config, image_config
from corpusmith.schemas.columns import MEDIA, UID, URL

WAITING_BYTES = 128 << 20
"""Downloaded bytes that wait for an image slot; above it no further slice is begun."""
SLICE_ROWS = 128
IMAGES_AT_ONCE = 8
"""Images that a child gets at once: enough for a cheap message, few enough to keep all children busy to the end."""

_ROWS_AHEAD = 8
"""Rows in hand for each request in flight: those that wait for silent servers take no place among the requests."""

_MOST_SHARDS = 16
"""Shards in the making, beside those that are open only because they are small."""

_SIZES = ("width", "height", "original_width", "original_height")


class Teller(Protocol):
    """Hears of rows as they end and of shards as they are complete."""

    def row(self, outcome: Outcome) -> None: ...

    def shard(self, stats: dict[str, Any]) -> None: ...


class _Body(NamedTuple):
    """Media that has been downloaded: whose it is (shard, place in it), the bytes, the hash."""

    shard: OpenShard
    place: int
    media: bytes
    digest: str | None


class Flow:
    """Works shards off with the operators of one run; a context manager.

    Args:
        flags: what to do.
        teller: hears of what has ended.
    """

    def __init__(self, flags: Flags, teller: Teller) -> None:
        self._flags = flags
        self._teller = teller
        self._bodies: queue.SimpleQueue[_Body | None] = queue.SimpleQueue()
        self._turn = threading.Condition()
        self._rows_ahead = 0
        self._waiting_bytes = 0
        self._open_shards = 0
        self._problem: BaseException | None = None
        config = image_config(flags)
        self._slots = flags.processes_count or len(os.sched_getaffinity(0))
        self._images = IsolatedOperator(Image(config), slots=self._slots, lean=True) if config is not None else None
        self._closer = ThreadPoolExecutor(1, "shard-publisher")

    def __enter__(self) -> Flow:
        if self._images is not None:
            for i in range(self._slots):
                threading.Thread(target=self._guarded, args=(self._work,), name=f"images-{i}", daemon=True).start()
        self._download = Download(download_config(self._flags))
        self._download.setup()
        return self

    def __exit__(self, *_failure: object) -> None:
        for _ in range(self._slots):
            self._bodies.put(None)
        if self._images is not None:
            self._images.close()
        self._closer.shutdown(cancel_futures=True)
        self._download.close()

    def run(self, shards: Iterable[OpenShard]) -> None:
        """Work shards off.

        Raises:
            UserError: the output cannot be written, or images cannot be worked on.
        """
        for shard in shards:
            self._await_room()
            for start in range(0, len(shard.waiting), SLICE_ROWS):
                rows = shard.waiting[start : start + SLICE_ROWS]
                self._await_turn(len(rows))
                name = f"{shard.stem}+{rows[0]}"
                threading.Thread(target=self._guarded, args=(self._fetch, shard, rows), name=name, daemon=True).start()
        with self._turn:
            self._turn.wait_for(lambda: not self._open_shards or self._problem is not None)
        self._raise_problem()

    def _await_room(self) -> None:
        """Wait until another shard may be opened: finished ones that wait to be published take room as well."""
        most = _MOST_SHARDS + 4 * self._flags.requests // self._flags.number_sample_per_shard
        with self._turn:
            self._turn.wait_for(lambda: self._open_shards < most or self._problem is not None)
            self._open_shards += 1
        self._raise_problem()

    def _await_turn(self, rows: int) -> None:
        """Wait until another slice may begin."""
        ahead = _ROWS_AHEAD * self._flags.requests
        with self._turn:
            self._turn.wait_for(
                lambda: (
                    (self._rows_ahead <= ahead and self._waiting_bytes <= WAITING_BYTES) or self._problem is not None
                )
            )
            self._rows_ahead += rows
        self._raise_problem()

    def _raise_problem(self) -> None:
        if self._problem is not None:
            raise self._problem

    def _guarded(self, work: Any, *args: Any) -> None:
        """A thread's work; what goes wrong with it ends the run."""
        try:
            work(*args)
        except BaseException as problem:  # noqa: BLE001 (raised again by run())
            self._fail(problem)

    def _fail(self, problem: BaseException) -> None:
        with self._turn:
            self._problem = self._problem or problem
            self._turn.notify_all()

    def _fetch(self, shard: OpenShard, rows: list[int]) -> None:
        """Download a slice: some rows of a shard."""
        names = [URL.name, EXPECTED] if EXPECTED in shard.rows.column_names else [URL.name]
        uids = pa.array([f"{shard.stem}-{row}" for row in rows], pa.string())
        batch = take_rows(shard.rows.select(names), rows).append_column(UID.name, uids)
        for part in self._download.process(batch):
            self._take(shard, rows, part)

    def _take(self, shard: OpenShard, indices: list[int], part: Part) -> None:
        """Hand a part of a slice on: failures end, bodies wait for an image slot."""
        media = _values(part.columns[MEDIA.name])
        digests = _values(part.columns["sha256"])
        rows = part.rows if part.rows is not None else range(len(media))
        size = sum(len(data) for data in media if data)
        with self._turn:
            self._rows_ahead -= len(rows)
            self._waiting_bytes += size if self._images is not None else 0
            self._turn.notify_all()
        for i, row in enumerate(rows):
            if i in part.errors:
                self._end(shard, indices[row], Outcome(DOWNLOAD_FAILED, part.errors[i]))
            else:
                self._pass_on(_Body(shard, indices[row], media[i], self._digest(media[i], digests[i])))

    def _digest(self, media: bytes, sha256: str) -> str | None:
        kind = self._flags.compute_hash
        return sha256 if kind == "sha256" else hashlib.new(kind, media).hexdigest() if kind else None

    def _pass_on(self, body: _Body) -> None:
        if self._images is not None:
            self._bodies.put(body)
            return
        self._end(body.shard, body.place, Outcome(SUCCESS, None, body.media, self._hash_of(body)))

    def _hash_of(self, body: _Body) -> dict[str, Any]:
        return {self._flags.compute_hash: body.digest} if self._flags.compute_hash else {}

    def _work(self) -> None:
        """One image slot."""
        assert self._images is not None
        self._images.start_one()
        while (bodies := self._next_bodies()) is not None:
            self._make(bodies)

    def _next_bodies(self) -> list[_Body] | None:
        """What an image slot works on next: one body, and its share of the others that wait; None at the end."""
        body = self._bodies.get()
        if body is None:
            return None
        bodies = [body]
        more = min(IMAGES_AT_ONCE, self._bodies.qsize() // self._slots)
        try:
            while len(bodies) < more:
                body = self._bodies.get_nowait()
                if body is None:
                    self._bodies.put(None)
                    break
                bodies.append(body)
        except queue.Empty:
            pass  # another slot was faster
        return bodies

    def _make(self, bodies: list[_Body]) -> None:
        assert self._images is not None
        batch = {UID.name: pa.array([f"{b.shard.stem}-{b.place}" for b in bodies], pa.string())}
        batch[MEDIA.name] = pa.array([b.media for b in bodies], pa.binary())
        if self._flags.bbox_col:
            batch[self._flags.bbox_col] = pa.array([b.shard.boxes_of(b.place) for b in bodies], pa.string())
        parts = self._images.process(pa.table(batch))
        assert isinstance(parts, list)
        with self._turn:
            self._waiting_bytes -= sum(len(b.media) for b in bodies)
            self._turn.notify_all()
        for part in parts:
            columns = {name: _values(part.columns[name]) for name in (MEDIA.name, "exif", *_SIZES)}
            for i, row in enumerate(part.rows or ()):
                body = bodies[row]
                if i in part.errors:
                    self._end(body.shard, body.place, Outcome(RESIZE_FAILED, part.errors[i]))
                    continue
                made = {name: columns[name][i] for name in _SIZES}
                made["exif"] = columns["exif"][i] or "{}"
                made |= self._hash_of(body)
                self._end(body.shard, body.place, Outcome(SUCCESS, None, columns[MEDIA.name][i], made))

    def _end(self, shard: OpenShard, index: int, outcome: Outcome) -> None:
        is_last = shard.end(index, outcome)
        self._teller.row(outcome)
        if is_last:
            done: Future[dict[str, Any]] = self._closer.submit(shard.publish)
            done.add_done_callback(self._published)

    def _published(self, done: Future[dict[str, Any]]) -> None:
        if done.cancelled():
            return
        problem = done.exception()
        if problem is not None:
            self._fail(problem)
            return
        self._teller.shard(done.result())
        with self._turn:
            self._open_shards -= 1
            self._turn.notify_all()


def _values(column: Any) -> list[Any]:
    return column.to_pylist() if isinstance(column, pa.Array | pa.ChunkedArray) else list(column)
