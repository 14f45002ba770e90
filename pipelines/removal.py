"""Removal: samples are taken out of a finished corpus, and it is recorded that they were.

All that changes is written beside the corpus first, the new manifest last; from then on the removal is decided. Then
the files are moved to their places, and only when everything is done the staged manifest goes. So a removal that was
killed leaves the corpus as it was, or is ended by the next one; nothing in between is taken for a finished corpus.

Bytes are the point: staged media is overwritten, cards of the report go, and so do left-overs of killed runs. Files of
the input are the user's own and stay as they are.
"""

from __future__ import annotations

import datetime
import hashlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.operators.sources.references import is_outside
from corpusmith.operators.write.shards import SHARD_COLUMNS, Shards, ShardsConfig
from corpusmith.pipelines.lock import CorpusLock
from corpusmith.pipelines.report.collect import REPORT_PATH
from corpusmith.pipelines.run import REMOVED_PATH, record_of
from corpusmith.pipelines.shelve import MEDIA_BATCH_ROWS, SHARDS_FOLDER, file_record
from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.stream import REMOVE_STEP, REMOVED_REASON
from corpusmith.pipelines.units import with_column
from corpusmith.pipelines.upkeep import temporaries
from corpusmith.pipelines.verify import PENDING_REMOVAL, finished_manifest
from corpusmith.schemas.columns import MEDIA_REF, PARENT, ROOT, UID
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.fates import Fate
from corpusmith.schemas.identity import UID_HEX_DIGITS
from corpusmith.schemas.ledger import LEDGER_FOLDER
from corpusmith.schemas.manifest import MANIFEST_PATH, WORK_FOLDER, FileRecord, Manifest, Removal, ShardRecord

_FOLDER = "removal"
_FILES = f"{_FOLDER}/files"
_BASE = f"{_FOLDER}/base"
_UID = re.compile(rf"[0-9a-f]{{{UID_HEX_DIGITS}}}")
_CARD = re.compile(r'<li class="card">.*?</li>', re.DOTALL)
_CARD_UID = re.compile(r'class="uid" title="([0-9a-f]+)"')


@dataclass(frozen=True)
class Removed:
    """What a removal did.

    Args:
        samples: taken out of shards.
        unknown: uids asked for that the corpus's ledger does not know.
        ended: samples that an earlier removal, which was interrupted, has taken out only now.
    """

    samples: int
    unknown: int
    ended: int


def read_uids(path: Path) -> list[str]:
    """The uids in a text file: one a line; empty lines and what follows a `#` are left out.

    Raises:
        UserError: the file is no text, a line is no uid, or there is none.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError("this is no text file", where=str(path), hint="one uid a line") from error
    uids: list[str] = []
    for number, line in enumerate(lines, 1):
        uid = line.partition("#")[0].strip().lower()
        if uid and not _UID.fullmatch(uid):
            raise UserError(
                f"{uid[:60]!r} is no uid", where=f"{path}:{number}", hint=f"one uid a line, {UID_HEX_DIGITS} hex digits"
            )
        if uid:
            uids.append(uid)
    if not uids:
        raise UserError("the file holds no uid", where=str(path), hint="one uid a line")
    return uids


def remove(corpus: Storage, uids: Sequence[str]) -> Removed:
    """Take samples, and all that descends from them, out of a finished corpus, and record it.

    Shards that held them are written again; the others stay as they are, but for the last ones, which fill the places
    of shards that have become empty. The uids are remembered, so that a later run of the recipe does not bring the
    samples back.

    Args:
        corpus: a finished corpus.
        uids: of input rows, parents or samples.

    Raises:
        UserError: the corpus is not finished, none of the uids is known to it, or a run is at work on it.
    """
    work = corpus.below(WORK_FOLDER)
    with CorpusLock(work):
        ended = _end_interrupted(corpus, work)
        manifest = finished_manifest(corpus)
        gone, unknown = _with_descendants(corpus, manifest, uids)
        is_new = _remember(work, gone)
        prepared = _Preparation(corpus, work, manifest, gone)
        samples = prepared.kept_before
        if is_new or samples:
            prepared.write()
            _apply(corpus, work)
        else:
            # a removal that was killed, and a run after it, may have left bytes behind
            _erase(corpus, work)
        return Removed(samples, unknown, ended)


def _end_interrupted(corpus: Storage, work: Storage) -> int:
    """End a removal that was decided but interrupted; forget one that was not, or that a run has overtaken."""
    pending = _read(corpus, PENDING_REMOVAL)
    if pending is not None:
        digests = (work.read(_BASE).decode(), _sha256(pending))
        present = _read(corpus, MANIFEST_PATH)
        if present is not None and _sha256(present) in digests:
            removals = Manifest.model_validate_json(pending).removals
            _apply(corpus, work)
            return removals[-1].samples
    work.delete_folder(_FOLDER)
    return 0


def _read(storage: Storage, path: str) -> bytes | None:
    try:
        return storage.read(path)
    except FileNotFoundError:
        return None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _with_descendants(corpus: Storage, manifest: Manifest, uids: Sequence[str]) -> tuple[pa.Array, int]:
    """The uids that the ledger knows and those of all that was split from them; and how many it does not know."""
    named = pa.array(sorted(set(uids)), pa.string())
    known, before = named, -1
    while len(known) != before:
        before = len(known)
        known = _related(corpus, manifest, known)
        if not manifest.counts.rows_made:
            break
    if not len(known):
        raise UserError(
            "none of these uids is in the corpus's ledger",
            where=corpus.root,
            hint=f"uids have {UID_HEX_DIGITS} hex digits; `corpusmith explain` finds the one of a URL",
        )
    return known, len(named) - (pc.sum(pc.is_in(named, value_set=known)).as_py() or 0)


def _related(corpus: Storage, manifest: Manifest, uids: pa.Array) -> pa.Array:
    """Uids of the rows that have one of the uids, or are children of one."""
    found: list[pa.Array] = []
    for path in manifest.ledger:
        table = corpus.read_table(path, [UID.name, ROOT.name, PARENT.name])
        hit = pc.is_in(table.column(UID.name), value_set=uids)
        for relation in (ROOT.name, PARENT.name):
            hit = pc.or_(hit, pc.is_in(table.column(relation), value_set=uids))
        found += table.filter(hit).column(UID.name).chunks
    return pc.unique(pa.chunked_array(found, pa.string()))


def _removed(work: Storage) -> pa.Array:
    """Uids that were ever removed."""
    if not work.exists(REMOVED_PATH):
        return pa.array([], pa.string())
    return work.read_table(REMOVED_PATH).column(UID.name).combine_chunks()


def _remember(work: Storage, gone: pa.Array) -> bool:
    """Note the uids, so that later runs leave them out; whether some are new."""
    known = _removed(work)
    every = pc.unique(pa.concat_arrays([known, gone]))
    if len(every) == len(known):
        return False
    work.publish_table(REMOVED_PATH, pa.table({UID.name: every.sort()}))
    return True


class _Preparation:
    """All that a removal changes, written beside the corpus."""

    def __init__(self, corpus: Storage, work: Storage, manifest: Manifest, gone: pa.Array) -> None:
        self.corpus = corpus
        self.work = work
        self.manifest = manifest
        self.gone = gone
        self._staying = {shard.index: self._count_staying(shard) for shard in manifest.shards}

    @property
    def kept_before(self) -> int:
        """Samples that leave the shards."""
        return sum(shard.samples - self._staying[shard.index] for shard in self.manifest.shards)

    def _count_staying(self, shard: ShardRecord) -> int:
        uids = self.corpus.read_table(_path(shard, ".parquet"), [UID.name]).column(UID.name)
        return len(uids) - (pc.sum(pc.is_in(uids, value_set=self.gone)).as_py() or 0)

    def write(self) -> None:
        """Stage ledger and shards, then the manifest: from then on the removal is decided."""
        for folder in (_FOLDER, "tmp"):
            self.work.delete_folder(folder)
        ledger = {path: self._ledger_file(path, record) for path, record in self.manifest.ledger.items()}
        shards = self._shards()
        samples = self.kept_before
        counts = self.manifest.counts
        counts = counts.model_copy(update={"kept": counts.kept - samples, "rejected": counts.rejected + samples})
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        removals = [*self.manifest.removals, Removal(at=at, samples=samples)]
        changes = {"shards": shards, "ledger": ledger, "counts": counts, "removals": removals}
        self.work.publish(_BASE, _sha256(self.corpus.read(MANIFEST_PATH)).encode())
        self.corpus.publish(
            PENDING_REMOVAL, self.manifest.model_copy(update=changes).model_dump_json(indent=1).encode()
        )

    def _ledger_file(self, path: str, record: FileRecord) -> FileRecord:
        table = self.corpus.read_table(path)
        kept = pc.equal(table.column("fate"), Fate.KEPT.value)
        mask = pc.and_(kept, pc.is_in(table.column(UID.name), value_set=self.gone))
        if not pc.any(mask).as_py():
            return record
        for name, value in (("fate", Fate.REJECTED.value), ("step", REMOVE_STEP), ("reason", REMOVED_REASON)):
            table = with_column(table, name, pc.if_else(mask, value, table.column(name)))
        self.work.publish_table(f"{_FILES}/{path}", table)
        return record_of(self.work, f"{_FILES}/{path}")

    def _shards(self) -> list[ShardRecord]:
        """Records of the shards that stay, gapless: the last ones fill the places of those that are empty now."""
        staying = [shard for shard in self.manifest.shards if self._staying[shard.index]]
        taken = {shard.index for shard in staying if shard.index < len(staying)}
        holes = iter(sorted(set(range(len(staying))) - taken))
        records = [self._shard(s, s.index if s.index in taken else next(holes)) for s in staying]
        return sorted(records, key=lambda record: record.index)

    def _shard(self, shard: ShardRecord, index: int) -> ShardRecord:
        if self._staying[shard.index] == shard.samples and index == shard.index:
            return shard
        rows = self.corpus.read_table(_path(shard, ".parquet"))
        rows = rows.filter(pc.invert(pc.is_in(rows.column(UID.name), value_set=self.gone)))
        made = {c.name for c in SHARD_COLUMNS}
        plain = rows.drop_columns([n for n in rows.schema.names if n in made])
        config = ShardsConfig(samples_per_shard=self.manifest.recipe["output"]["samples_per_shard"])
        with tempfile.TemporaryDirectory(prefix="corpusmith-", dir=_scratch(self.work)) as folder:
            media = _media(self.corpus, _path(shard, ".tar"), rows)
            names = Shards(config).write_shard(index, plain, media, folder)
            files = {f"{SHARDS_FOLDER}/{name}": self._stage(Path(folder) / name) for name in names}
        return ShardRecord(index=index, samples=rows.num_rows, files=files, content="")

    def _stage(self, local: Path) -> FileRecord:
        record = file_record(local, timed=local.name.endswith("_stats.json"))
        self.work.publish_file(local, f"{_FILES}/{SHARDS_FOLDER}/{local.name}")
        return record


def _path(shard: ShardRecord, suffix: str) -> str:
    return next(path for path in shard.files if path.endswith(suffix))


def _scratch(work: Storage) -> str | None:
    """Where a shard is written before it is published; on the corpus's own file system, so that it can be moved."""
    if not work.is_local:
        return None
    folder = Path(work.full("tmp"))
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


def _media(corpus: Storage, tar: str, rows: pa.Table) -> Iterator[bytes | None]:
    offsets, sizes = rows.column("tar_offset").to_pylist(), rows.column("tar_size").to_pylist()
    for start in range(0, rows.num_rows, MEDIA_BATCH_ROWS):
        spans = list(zip(offsets, sizes, strict=True))[start : start + MEDIA_BATCH_ROWS]
        found = iter(corpus.read_ranges(tar, [span for span in spans if span[0] is not None]))
        yield from (None if offset is None else next(found) for offset, _ in spans)


def _apply(corpus: Storage, work: Storage) -> None:
    """Put staged files in their places; each step may be done again. The staged manifest goes last."""
    pending = corpus.read(PENDING_REMOVAL)
    for entry in work.list(_FILES):
        path = entry.path.removeprefix(f"{_FILES}/")
        if path.endswith(".tar"):
            # what a run has noted of the shard that stood there
            work.delete(f"{SHARDS_FOLDER}/{Path(path).stem}.json")
        corpus.fs.mv(work.full(entry.path), corpus.full(path))
    corpus.publish(MANIFEST_PATH, pending)
    manifest = Manifest.model_validate_json(pending)
    named = {*manifest.ledger, *(path for shard in manifest.shards for path in shard.files)}
    found = [e.path for folder in (SHARDS_FOLDER, LEDGER_FOLDER) for e in corpus.list(folder)]
    corpus.delete(*(path for path in found if path not in named))
    _erase(corpus, work)
    work.delete_folder(_FOLDER)


def _erase(corpus: Storage, work: Storage) -> None:
    """Destroy what is left of all samples that were ever removed: staged bytes, cards of the report, left-overs."""
    gone = _removed(work)
    _blank_staged(work, gone)
    _drop_cards(corpus, set(gone.to_pylist()))
    for folder in ("flow", "tmp"):
        work.delete_folder(folder)
    corpus.delete(*(e.path for e in temporaries(corpus)))


def _blank_staged(work: Storage, gone: pa.Array) -> None:
    """Overwrite the staged bytes of removed samples with zeros, in place; drop bins that no result refers to."""
    used: set[str] = set()
    spans: dict[str, list[tuple[int, int]]] = {}
    for entry in work.list("results"):
        with work.parquet(entry.path) as parquet:
            if MEDIA_REF.name not in parquet.schema_arrow.names:
                continue
            table = parquet.read([UID.name, MEDIA_REF.name])
        table = table.filter(pc.is_valid(table.column(MEDIA_REF.name)))
        is_gone = pc.is_in(table.column(UID.name), value_set=gone).to_pylist()
        for reference, is_hit in zip(table.column(MEDIA_REF.name).to_pylist(), is_gone, strict=True):
            if is_outside(reference):
                continue  # an input file is the user's own
            path, _, span = reference.rpartition("#")
            used.add(path)
            if is_hit:
                offset, size = map(int, span.split(":"))
                spans.setdefault(path, []).append((offset, size))
    _overwrite(work, spans)
    work.delete(*(e.path for e in work.list("media") if e.path not in used))


def _overwrite(work: Storage, spans: Mapping[str, Sequence[tuple[int, int]]]) -> None:
    for path, ranges in spans.items():
        data = _read(work, path)
        if data is None or not any(any(data[offset : offset + size]) for offset, size in ranges):
            continue
        blanked = bytearray(data)
        for offset, size in ranges:
            blanked[offset : offset + size] = bytes(size)
        work.publish(path, blanked)


def _drop_cards(corpus: Storage, gone: set[str]) -> None:
    """Take removed samples out of the report, which shows some of the samples."""
    page = _read(corpus, REPORT_PATH)
    if page is None:
        return
    text = page.decode("utf-8")
    rest = _CARD.sub(lambda card: "" if _is_of(card[0], gone) else card[0], text)
    if rest != text:
        corpus.publish(REPORT_PATH, rest.encode("utf-8"))


def _is_of(card: str, gone: set[str]) -> bool:
    uid = _CARD_UID.search(card)
    return uid is not None and uid[1] in gone
