"""Upkeep: failures tried again, old results cleared, samples taken out; nothing else touched, nothing lost half-way."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from corpora import fates, outcome, run_recipe, shard_bytes, write_rows
from fakes import calls, forget_calls

from corpusmith.pipelines import removal
from corpusmith.pipelines.removal import Removed, read_uids, remove
from corpusmith.pipelines.run import last_run, prepare
from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.upkeep import clean, forget_failures
from corpusmith.pipelines.verify import finished_manifest, verify
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.manifest import WORK_FOLDER
from corpusmith.schemas.recipe import parse_recipe

pytestmark = pytest.mark.usefixtures("counted")

SIZE = 64


def recipe_text(folder: Path, *steps: Any, per_shard: int = 12) -> str:
    """A recipe over the input of a folder."""
    recipe = {"corpus": "x", "input": {"path": str(folder / "in.parquet")}, "steps": list(steps)}
    return json.dumps({**recipe, "output": {"samples_per_shard": per_shard}})


def run_alone(text: str, corpus: Path) -> None:
    """Run a recipe with one worker: its children are slow to start."""
    run_recipe(text, corpus, cpus=1)


def problems(corpus: Path) -> list[str]:
    """What verification finds."""
    return verify(Storage(str(corpus)))


def media_of(i: int) -> bytes:
    """What fake_fetch makes of a row."""
    return hashlib.sha256(f"http://web/{i}".encode()).digest() * (SIZE // 32)


# --- retry -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def moody(tmp_path: Path) -> Iterator[tuple[str, Path, Path]]:
    """Recipe, output and marker of a corpus whose server was down for a third of the rows."""
    write_rows(tmp_path / "in.parquet", range(90))
    marker = tmp_path / "down"
    marker.touch()
    text = recipe_text(tmp_path, "fake_score", {"fake_moody": {"marker": str(marker)}}, {"keep": "mood >= 100"})
    run_alone(text, tmp_path / "corpus")
    forget_calls()
    yield text, tmp_path / "corpus", marker


def forget(corpus: Path, reason: str | None = None) -> dict[str, int]:
    """Drop failures as `retry` does."""
    prepared, _ = last_run(Storage(str(corpus)))
    return forget_failures(Storage(str(corpus / WORK_FOLDER)), prepared.plan, reason=reason)


def failed(corpus: Path, error: str | None = None) -> set[str]:
    """Uids of failed rows, of one class or all."""
    return {u for u, row in fates(corpus).items() if row["fate"] == "failed" and error in (None, row["error"])}


def test_a_failure_is_not_tried_again_by_itself(moody: tuple[str, Path, Path]) -> None:
    text, corpus, marker = moody
    before = failed(corpus)
    assert before
    marker.unlink()
    run_alone(text, corpus)
    assert calls("fake_moody") == []
    assert failed(corpus) == before


def test_retry_tries_failures_alone(moody: tuple[str, Path, Path], tmp_path: Path) -> None:
    text, corpus, marker = moody
    before = failed(corpus)
    marker.unlink()
    assert forget(corpus) == {"fake_moody": len(before)}
    run_alone(text, corpus)
    assert sorted(calls("fake_moody")) == sorted(before)
    assert calls("fake_score") == []
    assert failed(corpus) == set()
    run_alone(text, tmp_path / "fresh")
    assert outcome(corpus) == outcome(tmp_path / "fresh")
    assert forget(corpus) == {}


def test_retry_of_one_class(moody: tuple[str, Path, Path]) -> None:
    text, corpus, marker = moody
    timeouts, others = failed(corpus, "Timeout"), failed(corpus, "HTTPStatus 503")
    assert timeouts
    assert others
    marker.unlink()
    assert forget(corpus, "timeout") == {"fake_moody": len(timeouts)}
    run_alone(text, corpus)
    assert sorted(calls("fake_moody")) == sorted(timeouts)
    assert failed(corpus) == others


def test_a_class_that_no_failure_has(moody: tuple[str, Path, Path]) -> None:
    _, corpus, _ = moody
    with pytest.raises(UserError, match="Timout") as caught:
        forget(corpus, "Timout")
    assert f"Timeout ({len(failed(corpus, 'Timeout'))})" in str(caught.value)
    run_alone(moody[0], corpus)
    assert calls("fake_moody") == [], "nothing was dropped"


def test_retry_of_what_fails_again(moody: tuple[str, Path, Path]) -> None:
    text, corpus, _ = moody
    before = outcome(corpus)
    forget(corpus)
    run_alone(text, corpus)
    assert len(calls("fake_moody")) == len(failed(corpus))
    assert outcome(corpus) == before


# --- clean -----------------------------------------------------------------------------------------------------------


def fetching(folder: Path, salt: str = "", size: int = SIZE) -> str:
    """A recipe with a score, media, and a barrier."""
    return recipe_text(folder, {"fake_score": {"salt": salt}}, {"fake_fetch": {"size": size}}, "fake_top")


def cleaned(text: str, corpus: Path, *, staging: bool = False, dry_run: bool = False) -> list[str]:
    """Clean after the recipe; paths that are gone."""
    prepared = prepare(parse_recipe(text, source="test.yaml"), "test.yaml")
    gone = clean(Storage(str(corpus)), prepared.plan, staging=staging, dry_run=dry_run)
    assert gone.size_bytes == sum(size for _, size in gone.by_folder().values())
    assert len(gone.entries) == sum(files for files, _ in gone.by_folder().values())
    return [entry.path for entry in gone.entries]


def folders(corpus: Path, kind: str) -> set[str]:
    """Folders of results, media or decisions."""
    return {p.name.partition("-")[0] for p in (corpus / WORK_FOLDER / kind).glob("*") if any(p.iterdir())}


def test_clean_removes_old_fingerprints_alone(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", range(60))
    corpus = tmp_path / "corpus"
    run_alone(fetching(tmp_path), corpus)
    assert cleaned(fetching(tmp_path), corpus) == []
    run_alone(fetching(tmp_path, salt="b", size=96), corpus)
    before = outcome(corpus)
    would_go = cleaned(fetching(tmp_path, salt="b", size=96), corpus, dry_run=True)
    tops = {path.split("/")[1] for path in would_go}
    assert tops == {"results", "media", "decisions"}
    assert all((corpus / path).is_file() for path in would_go)
    assert cleaned(fetching(tmp_path, salt="b", size=96), corpus) == would_go
    assert not any((corpus / path).exists() for path in would_go)
    assert problems(corpus) == []
    forget_calls()
    run_alone(fetching(tmp_path, salt="b", size=96), corpus)
    assert [calls(name) for name in ("fake_score", "fake_fetch", "fake_top")] == [[], [], []]
    assert outcome(corpus) == before
    assert folders(corpus, "results") == {"fake_score", "fake_fetch"}


def test_clean_of_staging_and_the_run_after_it(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", range(60))
    corpus = tmp_path / "corpus"
    run_alone(fetching(tmp_path), corpus)
    before = outcome(corpus)
    assert cleaned(fetching(tmp_path), corpus, staging=True)
    assert folders(corpus, "media") == set()
    assert problems(corpus) == []
    forget_calls()
    run_alone(fetching(tmp_path), corpus)
    assert calls("fake_score") == []
    assert len(calls("fake_fetch")) == 60
    assert outcome(corpus) == before


def test_staging_of_an_unfinished_corpus_stays(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", range(30))
    run_alone(fetching(tmp_path), tmp_path / "corpus")
    (tmp_path / "corpus" / "manifest.json").unlink()
    with pytest.raises(UserError, match="not ended"):
        cleaned(fetching(tmp_path), tmp_path / "corpus", staging=True)
    assert folders(tmp_path / "corpus", "media") == {"fake_fetch"}


def test_leftovers_of_killed_runs_go(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.parquet", range(60))
    corpus = tmp_path / "corpus"
    run_alone(fetching(tmp_path), corpus)
    work = corpus / WORK_FOLDER
    (media,) = (work / "media").iterdir()
    left = [
        media / "b00-0000000000000000.bin",
        media / ".tmp-0123456789abcdef",
        work / "flow" / "abcdef01-00" / "unit.parquet",
        work / "tmp" / ".tmp-shard-x" / "00000.tar",
        work / "removal" / "files" / "shards" / "00000.tar",
        corpus / "ledger" / ".tmp-fedcba9876543210",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"left")
    assert sorted(cleaned(fetching(tmp_path), corpus)) == sorted(str(p.relative_to(corpus)) for p in left)
    assert not any(path.exists() for path in left)
    forget_calls()
    run_alone(fetching(tmp_path), corpus)
    assert calls("fake_fetch") == []


# --- remove ----------------------------------------------------------------------------------------------------------


def plain(folder: Path) -> str:
    """A recipe whose samples are its rows, with media."""
    return recipe_text(folder, "fake_score", {"fake_fetch": {"size": SIZE}}, {"keep": "score >= 100"})


def splitting(folder: Path) -> str:
    """A recipe whose samples are children of children of children of its rows."""
    crops = ["fake_crops", {"fake_crops": {"id": "again"}}, {"fake_crops": {"id": "thrice"}}]
    return recipe_text(folder, "fake_score", {"fake_fetch": {"size": SIZE}}, *crops, per_shard=40)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, calls_path: Path) -> dict[str, Path]:
    """Finished corpora, to be copied."""
    corpora: dict[str, Path] = {}
    for name, recipe in (("plain", plain), ("splitting", splitting)):
        folder = tmp_path_factory.mktemp(name)
        write_rows(folder / "in.parquet", range(80))
        run_alone(recipe(folder), folder / "corpus")
        corpora[name] = folder
    return corpora


@pytest.fixture
def folder(made: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the plain corpus, and its input."""
    return Path(shutil.copytree(made["plain"], tmp_path / "plain"))


@pytest.fixture
def split_folder(made: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the corpus of children, and its input."""
    return Path(shutil.copytree(made["splitting"], tmp_path / "splitting"))


def take_out(corpus: Path, uids: list[str]) -> Removed:
    """Remove samples."""
    return remove(Storage(str(corpus)), uids)


def in_shards(corpus: Path) -> dict[str, str]:
    """uid → name of its shard, by the Parquets; the tars must agree."""
    found: dict[str, str] = {}
    for parquet in sorted((corpus / "shards").glob("*.parquet")):
        uids = pq.read_table(parquet, columns=["uid"]).column("uid").to_pylist()
        with tarfile.open(parquet.with_suffix(".tar")) as tar:
            members = [json.loads(tar.extractfile(m).read()) for m in tar if m.name.endswith(".json")]  # type: ignore[union-attr]
        assert [member["uid"] for member in members] == uids
        found |= dict.fromkeys(uids, parquet.stem)
    return found


def bytes_everywhere(corpus: Path) -> bytes:
    """All files of a corpus, work folder included."""
    return b"".join(path.read_bytes() for path in sorted(corpus.rglob("*")) if path.is_file())


def number_of_row(corpus: Path, uid: str) -> int:
    """The number of an input row."""
    return int(fates(corpus)[uid]["url"].rpartition("/")[2])


def test_removed_samples_are_gone(folder: Path) -> None:
    corpus = folder / "corpus"
    before, shards = in_shards(corpus), shard_bytes(corpus)
    assert len(set(before.values())) >= 5
    gone = [uid for uid, shard in before.items() if shard in ("00001", "00003")][::5]
    media = [media_of(number_of_row(corpus, uid)) for uid in gone]
    other = media_of(number_of_row(corpus, next(u for u, s in before.items() if s == "00001" and u not in gone)))
    assert all(m in bytes_everywhere(corpus) for m in media)
    page = (corpus / "report" / "index.html").read_text()
    assert take_out(corpus, gone) == Removed(len(gone), 0, 0)
    assert set(in_shards(corpus)) == set(before) - set(gone)
    assert problems(corpus) == []
    everything = bytes_everywhere(corpus)
    assert not any(m in everything for m in media), "neither shards nor staging hold the bytes"
    assert everything.count(other) == 2, "those of others are in their shard and in staging"
    for uid in gone:
        row = fates(corpus)[uid]
        assert (row["fate"], row["step"], row["reason"]) == ("rejected", "remove", "removed on request: uid")
    touched = {before[uid] for uid in gone}
    for name, digest in shard_bytes(corpus).items():
        assert (digest == shards[name]) == (name.split(".")[0] not in touched), name
    manifest = finished_manifest(Storage(str(corpus)))
    assert [removal.samples for removal in manifest.removals] == [len(gone)]
    assert manifest.counts.kept == len(before) - len(gone)
    rest = (corpus / "report" / "index.html").read_text()
    shown = [uid for uid in before if uid in page]
    assert shown
    assert [uid for uid in shown if uid not in gone] == [uid for uid in shown if uid in rest]


def test_a_card_of_the_report_goes_with_its_sample(folder: Path) -> None:
    corpus = folder / "corpus"
    page = corpus / "report" / "index.html"
    uid = next(uid for uid in in_shards(corpus) if uid in page.read_text())
    cards = page.read_text().count('<li class="card">')
    take_out(corpus, [uid])
    assert uid not in page.read_text()
    assert page.read_text().count('<li class="card">') == cards - 1


def test_a_run_does_not_bring_them_back(folder: Path) -> None:
    corpus = folder / "corpus"
    gone = sorted(in_shards(corpus))[:9]
    take_out(corpus, gone)
    forget_calls()
    run_alone(plain(folder), corpus)
    assert not set(in_shards(corpus)) & set(gone)
    assert problems(corpus) == []
    for uid in gone:
        assert fates(corpus)[uid]["step"] == "remove"
        assert uid not in calls("fake_fetch")
    assert sum(removal.samples for removal in finished_manifest(Storage(str(corpus))).removals) == 9


def test_an_emptied_shard_leaves_no_gap(folder: Path) -> None:
    corpus = folder / "corpus"
    before = in_shards(corpus)
    last = max(before.values())
    gone = [uid for uid, shard in before.items() if shard in ("00000", "00002")]
    untouched = {n: d for n, d in shard_bytes(corpus).items() if n.startswith(("00001", "00003"))}
    take_out(corpus, gone)
    assert problems(corpus) == []
    after = in_shards(corpus)
    assert sorted(set(after.values())) == [f"{i:05d}" for i in range(int(last) - 1)]
    assert set(after) == set(before) - set(gone)
    assert untouched.items() <= shard_bytes(corpus).items()


def test_all_samples_may_go(folder: Path) -> None:
    corpus = folder / "corpus"
    take_out(corpus, sorted(in_shards(corpus)))
    assert problems(corpus) == []
    assert list((corpus / "shards").iterdir()) == []
    assert finished_manifest(Storage(str(corpus))).counts.kept == 0


def tree_below(rows: dict[str, dict[str, Any]], uid: str) -> set[str]:
    """A row and all that descends from it, by walking up from each row."""

    def ancestors(of: str | None) -> Iterator[str]:
        while of is not None:
            yield of
            of = rows[of]["parent_uid"]

    return {u for u in rows if uid in ancestors(u)}


def test_descendants_go_with_their_parent(split_folder: Path) -> None:
    corpus = split_folder / "corpus"
    rows = fates(corpus)
    kept = {u for u, r in rows.items() if r["fate"] == "kept"}
    # a child of an input row: the samples are two generations below it
    middle = next(
        u for u, r in sorted(rows.items()) if r["parent_uid"] == r["root_uid"] and len(tree_below(rows, u)) > 9
    )
    below = tree_below(rows, middle)
    roots = sorted(u for u, r in rows.items() if r["parent_uid"] is None and u != rows[middle]["root_uid"])
    tree = tree_below(rows, next(u for u in roots if len(tree_below(rows, u) & kept) > 3))
    root = next(iter({rows[u]["root_uid"] for u in tree}))
    assert below & kept
    assert tree_below(rows, rows[middle]["root_uid"]) & kept - below, "the middle has siblings"
    assert take_out(corpus, [middle]).samples == len(below & kept)
    assert set(in_shards(corpus)) == kept - below
    assert take_out(corpus, [root]).samples == len(tree & kept)
    assert set(in_shards(corpus)) == kept - below - tree
    assert problems(corpus) == []
    run_alone(splitting(split_folder), corpus)
    assert set(in_shards(corpus)) == kept - below - tree
    assert problems(corpus) == []


def test_a_rejected_row_is_forgotten_for_good(folder: Path) -> None:
    """It is in no shard, but a changed threshold would bring it in."""
    corpus = folder / "corpus"
    uid = next(u for u, r in sorted(fates(corpus).items()) if r["fate"] == "rejected")
    media = media_of(number_of_row(corpus, uid))
    assert media in bytes_everywhere(corpus)
    before = shard_bytes(corpus)
    assert take_out(corpus, [uid]).samples == 0
    assert media not in bytes_everywhere(corpus)
    assert shard_bytes(corpus) == before
    run_alone(plain(folder).replace("score >= 100", "score >= 0"), corpus)
    assert uid not in in_shards(corpus)
    assert len(in_shards(corpus)) == 79


def test_unknown_uids(folder: Path) -> None:
    corpus = folder / "corpus"
    before = outcome(corpus)
    with pytest.raises(UserError, match="none of these uids"):
        take_out(corpus, ["0" * 32])
    assert outcome(corpus) == before
    assert finished_manifest(Storage(str(corpus))).removals == []
    known = min(in_shards(corpus))
    assert take_out(corpus, ["0" * 32, known, known]) == Removed(1, 1, 0)


def test_twice_is_once(folder: Path) -> None:
    corpus = folder / "corpus"
    uids = sorted(in_shards(corpus))[:3]
    take_out(corpus, uids)
    before, manifest = outcome(corpus), (corpus / "manifest.json").read_text()
    assert take_out(corpus, uids) == Removed(0, 0, 0)
    assert outcome(corpus) == before
    assert (corpus / "manifest.json").read_text() == manifest


def test_an_unfinished_corpus_cannot_lose_samples(folder: Path) -> None:
    corpus = folder / "corpus"
    uid = min(in_shards(corpus))
    (corpus / "manifest.json").unlink()
    with pytest.raises(UserError, match="not ended"):
        take_out(corpus, [uid])


def test_a_corpus_without_its_work_folder(folder: Path) -> None:
    corpus = folder / "corpus"
    shutil.rmtree(corpus / WORK_FOLDER)
    uids = sorted(in_shards(corpus))[:3]
    assert take_out(corpus, uids).samples == 3
    assert problems(corpus) == []


def test_bytes_that_killed_runs_left_go_too(folder: Path) -> None:
    corpus = folder / "corpus"
    uid = min(in_shards(corpus))
    media = media_of(number_of_row(corpus, uid))
    (bins,) = (corpus / WORK_FOLDER / "media").iterdir()
    for path in (bins / "b00-00.bin", bins / ".tmp-00", corpus / WORK_FOLDER / "tmp" / ".tmp-shard-0" / "00000.tar"):
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"head" + media)
    take_out(corpus, [uid])
    assert media not in bytes_everywhere(corpus)
    assert problems(corpus) == []


class Killed(BaseException):
    """Stands for the end of the process."""


class Killer:
    """Ends a removal at its n-th write, delete or move."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Stand before every change of the file system that a removal makes."""
        for name in ("publish", "publish_file", "delete", "delete_folder"):
            original = getattr(Storage, name)
            patch.setattr(Storage, name, lambda s, *a, _original=original: (self._step(s, a), _original(s, *a))[1])
        moving = Storage("/tmp").fs.mv
        patch.setattr(type(Storage("/tmp").fs), "mv", lambda s, *a, **k: (self(), moving(*a, **k))[1])

    def _step(self, storage: Storage, arguments: tuple[Any, ...]) -> None:
        # the lock's own file is none of the removal's
        if not any("lock" in str(a) or ".tmp-" in str(a) for a in arguments[:1]):
            self()


def test_killed_anywhere_it_is_ended_by_the_next(made: dict[str, Path], tmp_path: Path) -> None:
    source = made["plain"] / "corpus"
    shards = in_shards(source)
    gone = [u for u, s in shards.items() if s == "00000"] + sorted(u for u, s in shards.items() if s == "00003")[:3]
    wanted = Path(shutil.copytree(source, tmp_path / "wanted"))
    take_out(wanted, gone)
    places = 0
    for at in range(200):
        corpus = Path(shutil.copytree(source, tmp_path / f"at-{at}"))
        with pytest.MonkeyPatch.context() as patch:
            Killer(at).install(patch)
            try:
                take_out(corpus, gone)
            except Killed:
                places += 1
            else:
                break
        told = problems(corpus) if (corpus / "manifest.json").exists() else []
        sound_before = not told and shard_bytes(corpus) == shard_bytes(source)
        sound_after = not told and shard_bytes(corpus) == shard_bytes(wanted)
        interrupted = "a removal was interrupted: `corpusmith remove` with the same uids ends it" in told
        assert sound_before or sound_after or interrupted, (at, told)
        take_out(corpus, gone)
        assert problems(corpus) == [], at
        assert outcome(corpus) == outcome(wanted), at
        assert not (corpus / WORK_FOLDER / "removal").exists()
        assert sum(r.samples for r in finished_manifest(Storage(str(corpus))).removals) == len(gone)
        media = media_of(number_of_row(corpus, gone[0]))
        assert media not in bytes_everywhere(corpus), at
        shutil.rmtree(corpus)
    assert places >= 15


def test_an_interrupted_removal_that_a_run_has_overtaken_is_forgotten(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = folder / "corpus"
    gone = sorted(in_shards(corpus))[:4]
    with monkeypatch.context() as patch:
        patch.setattr(removal, "_apply", lambda corpus, work: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            take_out(corpus, gone)
    write_rows(folder / "in.parquet", range(90))
    media = media_of(number_of_row(corpus, gone[0]))
    run_alone(plain(folder), corpus)
    assert not set(in_shards(corpus)) & set(gone)
    assert media in bytes_everywhere(corpus)
    assert take_out(corpus, gone) == Removed(0, 0, 0)
    assert media not in bytes_everywhere(corpus)
    rows = in_shards(corpus)
    assert take_out(corpus, [min(rows)]) == Removed(1, 0, 0)
    assert set(in_shards(corpus)) == set(rows) - {min(rows)}
    assert problems(corpus) == []


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "holds no uid"),
        (b"# nothing\n\n", "holds no uid"),
        (b"0123\n", "uids.txt:1: '0123' is no uid"),
        (b"%b\nhttp://web/1\n" % (b"a" * 32), "uids.txt:2: 'http://web/1' is no uid"),
        (b"\xff\xfe\x00", "no text"),
    ],
)
def test_a_wrong_list_of_uids(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "uids.txt").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_uids(tmp_path / "uids.txt")
    assert told in str(caught.value)


def test_a_list_of_uids(tmp_path: Path) -> None:
    (tmp_path / "uids.txt").write_text(f"\ufeff{'A' * 32}\r\n\n  {'b' * 32}  # opted out\n")
    assert read_uids(tmp_path / "uids.txt") == ["a" * 32, "b" * 32]
