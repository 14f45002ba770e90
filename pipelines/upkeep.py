"""Upkeep of a corpus: try failures again, clear what is no longer of use. For removals see `removal`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.operators.contract import Annotate
from corpusmith.operators.sources.references import is_outside
from corpusmith.pipelines.bind import Step
from corpusmith.pipelines.lock import CorpusLock
from corpusmith.pipelines.plan import Plan
from corpusmith.pipelines.state import ERROR, Store
from corpusmith.pipelines.storage import TEMPORARY_PREFIX, Entry, Storage
from corpusmith.pipelines.verify import PENDING_REMOVAL, finished_manifest
from corpusmith.schemas.columns import MEDIA, MEDIA_REF
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.manifest import WORK_FOLDER

SHOWN_CLASSES = 12


def forget_failures(work: Storage, plan: Plan, *, reason: str | None = None) -> dict[str, int]:
    """Drop published failures, so that the next run tries these rows again.

    Args:
        work: the work folder of a corpus.
        plan: of its recipe.
        reason: only failures whose class contains this text, whatever its case.

    Returns:
        step → failures dropped.

    Raises:
        UserError: there are failures, but none of that class; lists the classes.
    """
    with CorpusLock(work):
        storing = [s for s in plan.steps if isinstance(s.operator, Annotate) and s.operator.stored]
        stores = {step.id: _store(work, plan, step) for step in storing}
        classes = {step: _failure_classes(store) for step, store in stores.items()}
        every = sum(classes.values(), Counter())
        if reason is not None and every and not any(_is_meant(name, reason) for name in every):
            told = ", ".join(f"{name} ({number:,})" for name, number in every.most_common(SHOWN_CLASSES))
            raise UserError(f"no failure's class contains {reason!r}", where="--reason", hint=f"classes: {told}")
        dropped: dict[str, int] = {}
        for step, store in stores.items():
            if any(_is_meant(name, reason) for name in classes[step]):
                dropped[step] = store.compact(store.bits, drop=lambda table: _failures(table, reason))
        return dropped


def _store(work: Storage, plan: Plan, step: Step) -> Store:
    return Store(work, plan.store_folder(step), step.operator.produces)


def _failure_classes(store: Store) -> Counter[str]:
    counts: Counter[str] = Counter()
    for file in store.files:
        errors = store.storage.read_table(file.path, [ERROR]).column(ERROR).drop_null()
        counts.update({pair["values"]: pair["counts"] for pair in pc.value_counts(errors).to_pylist()})
    return counts


def _is_meant(error: str, reason: str | None) -> bool:
    return reason is None or reason.lower() in error.lower()


def _failures(results: pa.Table, reason: str | None) -> pa.Array:
    meant = [error is not None and _is_meant(error, reason) for error in results.column(ERROR).to_pylist()]
    return pa.array(meant, pa.bool_())


@dataclass(frozen=True)
class Cleaned:
    """What a clean-up removed, below the corpus folder."""

    entries: tuple[Entry, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all together."""
        return sum(entry.size for entry in self.entries)

    def by_folder(self) -> dict[str, tuple[int, int]]:
        """Folder → files and bytes."""
        folders: dict[str, tuple[int, int]] = {}
        for entry in self.entries:
            name = "/".join(entry.path.split("/")[:-1]) or "."
            files, size = folders.get(name, (0, 0))
            folders[name] = (files + 1, size + entry.size)
        return folders


def clean(corpus: Storage, plan: Plan, *, staging: bool = False, dry_run: bool = False) -> Cleaned:
    """Remove what no later run of the present recipe would read.

    Args:
        corpus: the corpus folder.
        plan: of its present recipe.
        staging: also remove staged media and the results that refer to it; a later run makes them again.
        dry_run: only say what would go.

    Raises:
        UserError: another run is at work; or `staging` is asked for before the corpus is finished.
    """
    if staging:
        finished_manifest(corpus)
    work = corpus.below(WORK_FOLDER)
    with CorpusLock(work):
        stale = [Entry(f"{WORK_FOLDER}/{e.path}", e.size) for e in _stale(work, plan, staging)]
        gone = sorted({*stale, *temporaries(corpus)}, key=lambda e: e.path)
        if not dry_run:
            corpus.delete(*(e.path for e in gone))
            for folder in ("flow", "tmp"):
                work.delete_folder(folder)
        return Cleaned(tuple(gone))


def _stale(work: Storage, plan: Plan, staging: bool) -> Iterator[Entry]:
    entries = work.list()
    current = {f"{step.operator.name}-{plan.fingerprints[step.id]}" for step in plan.steps}
    if staging:
        current -= {e.path.split("/")[1] for e in entries if e.path.startswith("media/")}
    in_use = _media_in_use(work, plan)
    is_removing = work.exists(PENDING_REMOVAL.removeprefix(f"{WORK_FOLDER}/"))
    for entry in entries:
        top, _, rest = entry.path.partition("/")
        is_old = top in ("results", "decisions", "media") and rest.split("/")[0] not in current
        is_orphan = (top == "media" and entry.path not in in_use) or (top == "removal" and not is_removing)
        if is_old or is_orphan or top in ("flow", "tmp"):
            yield entry


def temporaries(storage: Storage) -> list[Entry]:
    """Half-written files that killed runs left behind; object stores hold none."""
    if not storage.is_local:
        return []
    start = len(storage.full("")) + 1
    found = storage.fs.find(storage.full(""), detail=True)
    entries = (Entry(path[start:], info["size"]) for path, info in found.items())
    return [entry for entry in entries if TEMPORARY_PREFIX in entry.path]


def _media_in_use(work: Storage, plan: Plan) -> set[str]:
    """Paths of the bins that published results refer to."""
    used: set[str] = set()
    for step in plan.steps:
        if any(c.name == MEDIA.name for c in step.operator.produces):
            for file in _store(work, plan, step).files:
                references = work.read_table(file.path, [MEDIA_REF.name]).column(MEDIA_REF.name)
                used.update(r.rpartition("#")[0] for r in references.to_pylist() if r is not None and not is_outside(r))
    return used
