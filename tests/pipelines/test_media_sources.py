"""Inputs that carry media: real recipes over tars, img2dataset's outputs, folders and datasets saved to disk."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpora import cli_command, fates, run_recipe, shard_bytes
from PIL import Image

from corpusmith.operators.sources.tables import list_files, read_tables
from corpusmith.pipelines.removal import remove
from corpusmith.pipelines.run import last_run
from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.units import load_media
from corpusmith.pipelines.upkeep import clean
from corpusmith.pipelines.verify import verify
from corpusmith.schemas.errors import UserError
from corpusmith.schemas.identity import uid_of
from corpusmith.schemas.recipe import InputSpec

IMAGE_STEP = "image: {size: 32}"


@cache
def picture(number: int, format: str = "JPEG") -> bytes:
    """A picture unlike those of other numbers."""
    noise = hashlib.shake_128(str(number).encode()).digest(16 * 12 * 3)
    sink = io.BytesIO()
    Image.frombytes("RGB", (16, 12), noise).resize((96, 72)).save(sink, format)
    return sink.getvalue()


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def sample(number: int, **columns: Any) -> list[tuple[str, bytes]]:
    """The members of one sample."""
    told = json.dumps({"number": number, **columns}).encode()
    key = f"{number:09d}"
    return [(f"{key}.jpg", picture(number)), (f"{key}.txt", f"picture {number}".encode()), (f"{key}.json", told)]


def write_shards(folder: Path, numbers: Sequence[int], *, shards: int = 2) -> None:
    for shard in range(shards):
        mine = [member for number in numbers[shard::shards] for member in sample(number)]
        write_tar(folder / f"{shard:05d}.tar", mine)


def recipe(path: Path | str, *steps: str, **input: Any) -> str:
    text = json.dumps({"path": str(path), **input})
    return "\n".join(["corpus: media", f"input: {text}", f"steps: [{', '.join(f'{{{s}}}' for s in steps)}]"])


def kept(corpus: Path) -> list[dict[str, Any]]:
    """Samples of a corpus with their media's bytes."""
    rows = []
    for parquet in sorted((corpus / "shards").glob("*.parquet")):
        tar = parquet.with_suffix(".tar").read_bytes()
        for row in pq.read_table(parquet).to_pylist():
            row["media"] = tar[row["tar_offset"] :][: row["tar_size"]]
            rows.append(row)
    return rows


def state_of(folder: Path) -> dict[str, tuple[str, int]]:
    """Hash and time of change of all files."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(p): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in files}


def failures(corpus: Path) -> dict[str, tuple[str, str]]:
    """source_uid → class and message."""
    rows = fates(corpus).values()
    return {r["source_uid"]: (r["error"], r["reason"]) for r in rows if r["fate"] == "failed"}


def rows_of(path: Path, **spec: Any) -> list[dict[str, Any]]:
    files = list_files(str(path), spec.get("format"), spec.get("split"))
    return pa.Table.from_batches(list(read_tables(files, InputSpec(**spec)))).to_pylist()


def test_tars_go_to_shards_without_a_copy(tmp_path: Path) -> None:
    write_shards(tmp_path / "in", range(40))
    before = state_of(tmp_path / "in")
    result = run_recipe(recipe(tmp_path / "in"), tmp_path / "out")
    assert (result.manifest.counts.rows_in, result.manifest.counts.kept) == (40, 40)
    rows = {row["number"]: row for row in kept(tmp_path / "out")}
    for number, row in rows.items():
        assert row["media"] == picture(number)
        assert row["caption"] == f"picture {number}"
        assert row["source_uid"] == f"{number:09d}"
        assert row["uid"] == uid_of("media", hashlib.sha256(picture(number)).hexdigest(), f"picture {number}")
    assert len(rows) == 40
    assert not (tmp_path / "out/.work/media").exists()
    assert verify(Storage(str(tmp_path / "out"))) == []
    assert state_of(tmp_path / "in") == before


def test_what_is_not_read_of_a_tar_is_told(tmp_path: Path) -> None:
    members = [member for i in range(3) for member in (*sample(i), (f"{i:09d}.cls", b"7"))]
    (tmp_path / "recipe.yaml").write_text(recipe(write_tar(tmp_path / "a.tar", members)))
    command = cli_command("run", str(tmp_path / "recipe.yaml"), "--output", str(tmp_path / "c"), "--executor", "inline")
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    assert "3 rows in; not read: 3 .cls" in done.stderr


def test_tars_go_through_the_image_step(tmp_path: Path) -> None:
    write_shards(tmp_path / "in", range(30))
    write_tar(tmp_path / "in/00002.tar", [("a.jpg", b"no picture"), ("a.txt", b"broken"), ("a.json", b"{}")])
    run_recipe(recipe(tmp_path / "in/*.tar", "keep: 'number IS NULL OR number < 20'", IMAGE_STEP), tmp_path / "out")
    rows = kept(tmp_path / "out")
    assert sorted(row["number"] for row in rows) == list(range(20))
    assert {min(Image.open(io.BytesIO(row["media"])).size) for row in rows} == {32}
    assert all(row["media"] != picture(row["number"]) for row in rows)
    assert failures(tmp_path / "out").keys() == {"a"}
    assert verify(Storage(str(tmp_path / "out"))) == []
    clean(Storage(str(tmp_path / "out")), last_run(Storage(str(tmp_path / "out")))[0].plan, staging=True)
    again = shard_bytes(tmp_path / "out")
    run_recipe(recipe(tmp_path / "in/*.tar", "keep: 'number IS NULL OR number < 20'", IMAGE_STEP), tmp_path / "out")
    assert shard_bytes(tmp_path / "out") == again


def write_img2dataset(folder: Path) -> None:
    """Two shards as img2dataset writes them, with failures; of the second the Parquet is lost."""
    rows = []
    for number in range(10):
        status = {3: "failed_to_download", 4: "failed_to_resize"}.get(number, "success")
        message = {3: "HTTP Error 404: Not Found", 4: "image too small"}.get(number)
        row = {"url": f"http://web/{number}.jpg", "caption": f"picture {number}", "key": f"{number:09d}"}
        rows.append({**row, "status": status, "error_message": message, "width": 96, "sha256": "of another form"})
    good = [n for n in range(9) if n not in (3, 4)]  # 9 is lost from the tar
    write_tar(folder / "00000.tar", [member for n in good for member in sample(n)])
    pq.write_table(pa.Table.from_pylist(rows), folder / "00000.parquet")
    (folder / "00000_stats.json").write_text("{}")
    write_tar(folder / "00001.tar", sample(20, url="http://web/20.jpg"))
    (folder / "_tmp").mkdir()
    (folder / "_tmp/0.feather").write_bytes(b"x")


def test_img2datasets_output_keeps_its_failures(tmp_path: Path) -> None:
    write_img2dataset(tmp_path / "in")
    run_recipe(recipe(tmp_path / "in", IMAGE_STEP), tmp_path / "out")
    rows = kept(tmp_path / "out")
    assert sorted(row["url"] for row in rows) == sorted(f"http://web/{n}.jpg" for n in (0, 1, 2, 5, 6, 7, 8, 20))
    assert all(row["uid"] == uid_of("url", row["url"], row["caption"]) for row in rows)
    assert failures(tmp_path / "out") == {
        "000000003": ("failed_to_download", "HTTP Error 404: Not Found"),
        "000000004": ("failed_to_resize", "image too small"),
        "000000009": ("missing media", "000000009: the Parquet names it, the tar does not hold it"),
    }
    assert verify(Storage(str(tmp_path / "out"))) == []


def test_a_finished_corpus_is_an_input(tmp_path: Path) -> None:
    write_img2dataset(tmp_path / "in")
    run_recipe(recipe(tmp_path / "in"), tmp_path / "out")
    for path in (tmp_path / "out", tmp_path / "out/shards"):
        again = run_recipe(recipe(path), tmp_path / f"again-{path.name}")
        assert again.manifest.counts.kept == 8
        old, new = (
            sorted((r["url"], r["media"]) for r in kept(c)) for c in (tmp_path / "out", Path(again.corpus.root))
        )
        assert old == new


def test_clips_of_one_film_are_samples_of_their_own(tmp_path: Path) -> None:
    clips = [(f"0000000000_{clip:03d}", bytes([0, 0, 0, 24]) + b"ftypisom" + bytes([clip]) * 99) for clip in range(3)]
    write_tar(tmp_path / "in/00000.tar", [(f"{key}.mp4", data) for key, data in clips])
    rows = [{"url": "http://film", "caption": "a film", "key": key, "status": "success"} for key, _ in clips]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in/00000.parquet")
    run_recipe(recipe(tmp_path / "in"), tmp_path / "out")
    assert sorted(row["media"] for row in kept(tmp_path / "out")) == [data for _, data in clips]


def test_a_folder_with_texts_beside_the_images(tmp_path: Path) -> None:
    files: Mapping[str, bytes] = {
        "a/1.jpg": picture(1),
        "a/1.txt": b"one\n",
        "a/2.PNG": picture(2, "PNG"),
        "a/2.caption": b"two",
        "a/2.json": b'{"stars": 5, "more": {"x": 1}}',
        "3.jpg": picture(3),
        "3.json": b'{"caption": "three"}',
        "4.jpg": picture(4),
        "_5.jpg": picture(5),
        "notes.txt": b"of no image",
        ".hidden.jpg": picture(6),
        "m/7.jpg": picture(7),
        "m/metadata.csv": b"file_name,text\n7.jpg,seven\n8.jpg,lost\n",
    }
    for name, data in files.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    run_recipe(recipe(tmp_path / "in"), tmp_path / "out")
    rows = {row["file_name"]: row for row in kept(tmp_path / "out")}
    assert {name: row["caption"] for name, row in rows.items()} == {
        "a/1.jpg": "one",
        "a/2.PNG": "two",
        "3.jpg": "three",
        "4.jpg": None,
        "_5.jpg": None,
        "m/7.jpg": "seven",
    }
    assert (rows["a/2.PNG"]["stars"], rows["a/2.PNG"]["more"]) == (5, '{"x": 1}')
    assert all(row["media"] == files[name] for name, row in rows.items())
    assert failures(tmp_path / "out").keys() == {"m/8.jpg"}


@pytest.mark.parametrize("split", [None, "train"])
def test_a_hugging_face_dataset(tmp_path: Path, split: str | None) -> None:
    import datasets

    outside = tmp_path / "beside.jpg"
    outside.write_bytes(picture(99))

    def made(numbers: Sequence[int]) -> Any:
        images = [{"bytes": picture(n), "path": f"{n}.jpg"} for n in numbers]
        columns = {"image": images, "texts": [[f"first {n}", f"second {n}"] for n in numbers], "label": list(numbers)}
        return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())

    datasets.DatasetDict({"train": made(range(30)), "test": made(range(30, 40))}).save_to_disk(tmp_path / "in")
    files = sorted((tmp_path / "in").rglob("*.arrow"))
    before = state_of(tmp_path / "in")
    run_recipe(recipe(tmp_path / "in", caption="texts", split=split), tmp_path / "out")
    rows = kept(tmp_path / "out")
    assert sorted(row["label"] for row in rows) == list(range(30 if split else 40))
    for row in rows:
        assert row["media"] == picture(row["label"])
        assert row["caption"] == f"first {row['label']}"
        assert [text["text"] for text in row["texts"]] == [f"first {row['label']}", f"second {row['label']}"]
    assert len(files) == 2
    assert state_of(tmp_path / "in") == before


def test_a_dataset_whose_images_are_paths(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(picture(1))
    (tmp_path / "secret.txt").write_bytes(b"secret")
    paths = [str(tmp_path / "x.jpg"), str(tmp_path / "secret.txt"), "http://web/x.jpg", str(tmp_path / "gone.jpg")]
    type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    column = pa.array([*({"bytes": None, "path": path} for path in paths), None], type)
    (tmp_path / "in").mkdir()
    with pa.ipc.new_stream(tmp_path / "in/data-00000-of-00001.arrow", pa.schema([("image", type)])) as writer:
        writer.write_table(pa.table({"image": column}))
    (tmp_path / "in/dataset_info.json").write_text("{}")
    rows = rows_of(tmp_path / "in")
    assert [row["fate_error"] for row in rows] == [None, *["missing media"] * 4]
    assert rows[0]["media_sha256"] == hashlib.sha256(picture(1)).hexdigest()
    assert rows[0]["media_ref"].startswith(f"{tmp_path}/x.jpg#0:")


def test_a_changed_or_lost_file_is_told(tmp_path: Path) -> None:
    write_shards(tmp_path / "in", range(8))
    rows = rows_of(tmp_path / "in")
    references = [row["media_ref"] for row in rows]
    storage = Storage(str(tmp_path / "work"))
    assert load_media(storage, [references[3], None, references[0]]) == [picture(6), None, picture(0)]
    tar = tmp_path / "in/00000.tar"
    data = tar.read_bytes()
    os.utime(tar, (1, 1))
    with pytest.raises(UserError, match="has changed since") as caught:
        load_media(storage, references)
    assert caught.value.where == str(tar)
    tar.write_bytes(data[:2048])
    with pytest.raises(UserError, match="has changed since"):
        load_media(storage, references[:1])
    tar.unlink()
    with pytest.raises(UserError, match="is gone"):
        load_media(storage, references[:1])


@pytest.mark.slow
def test_a_file_that_changes_between_runs_is_read_anew(tmp_path: Path) -> None:
    write_shards(tmp_path / "in", range(8))
    run_recipe(recipe(tmp_path / "in", IMAGE_STEP), tmp_path / "out")
    write_tar(tmp_path / "in/00000.tar", [member for n in (0, 2, 70) for member in sample(n)])
    result = run_recipe(recipe(tmp_path / "in", IMAGE_STEP), tmp_path / "out")
    assert sorted(row["number"] for row in kept(tmp_path / "out")) == [0, 1, 2, 3, 5, 7, 70]
    assert result.stats["image"].computed == 1
    fresh = run_recipe(recipe(tmp_path / "in", IMAGE_STEP), tmp_path / "fresh")
    assert shard_bytes(Path(fresh.corpus.root)) == shard_bytes(tmp_path / "out")


def test_removal_leaves_the_users_files_alone(tmp_path: Path) -> None:
    write_shards(tmp_path / "in", range(12))
    before = state_of(tmp_path / "in")
    run_recipe(recipe(tmp_path / "in", IMAGE_STEP), tmp_path / "out")
    corpus = Storage(str(tmp_path / "out"))
    gone = [row["uid"] for row in kept(tmp_path / "out")[:3]]
    assert remove(corpus, gone).samples == 3
    assert verify(corpus) == []
    assert not {row["uid"] for row in kept(tmp_path / "out")} & set(gone)
    clean(corpus, last_run(corpus)[0].plan, staging=True)
    run_recipe(recipe(tmp_path / "in", IMAGE_STEP), tmp_path / "out")
    assert len(kept(tmp_path / "out")) == 9
    assert state_of(tmp_path / "in") == before


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    write_shards(tmp_path / "in", range(64))
    (tmp_path / "r.yaml").write_text(recipe(tmp_path / "in", IMAGE_STEP))
    command = cli_command("run", str(tmp_path / "r.yaml"), "--output", str(tmp_path / "out"), "--executor", "inline")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline:
        if list((tmp_path / "out/.work").glob("results/image-*/*")):
            break
        time.sleep(0.01)
    process.kill()
    process.wait()
    run_recipe(recipe(tmp_path / "in", IMAGE_STEP), tmp_path / "out")
    run_recipe(recipe(tmp_path / "in", IMAGE_STEP), tmp_path / "fresh")
    assert shard_bytes(tmp_path / "out") == shard_bytes(tmp_path / "fresh")
    assert len(fates(tmp_path / "out")) == 64


def hostile_members() -> list[tuple[str, bytes]]:
    """Names and texts that break what is careless."""
    names = ["../../etc/x", "/abs/y", "a\nb", "q\"uote's", "dots...", "é漢", "n" * 1_000_000, "sur\udcffrogate", "<b>&"]
    members = []
    for number, name in enumerate(names):
        caption = ["\0", "line\nline", "<script>", "x" * 1_000_000][number % 4].encode()
        members += [(f"{name}.jpg", picture(number)), (f"{name}.txt", caption)]
    members += [("twice.jpg", picture(50)), ("twice.jpg", picture(51)), ("empty.jpg", b""), ("lone.txt", b"no image")]
    members += [("text.jpg", picture(52)), ("text.txt", b"\xff\xfe"), ("json.jpg", picture(53)), ("json.json", b"[1]")]
    return [*members, ("deep.jpg", picture(54)), ("deep.json", b"[" * 100_000), ("nodot", b"x"), ("cls.cls", b"7")]


def test_a_hostile_tar_ends_in_fates(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "in/bad.tar", hostile_members())
    with tarfile.open(path, "a") as tar:
        for name, kind in (
            ("link.jpg", tarfile.SYMTYPE),
            ("hard.jpg", tarfile.LNKTYPE),
            ("pipe.jpg", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    write_tar(tmp_path / "in/cut.tar", sample(60) + sample(61))
    cut = (tmp_path / "in/cut.tar").read_bytes()
    (tmp_path / "in/cut.tar").write_bytes(cut[: cut.index(b"000000061.txt") + 600])
    before = state_of(tmp_path)
    result = run_recipe(recipe(tmp_path / "in", IMAGE_STEP), tmp_path / "out")
    counts = result.manifest.counts
    told = failures(tmp_path / "out")
    assert counts.rows_in == counts.kept + counts.failed
    assert counts.kept == 9
    errors = {key: error for key, (error, _) in told.items() if key is not None}
    for key in ("twice", "text", "json", "deep", "link", "hard", "pipe", "000000061"):
        assert errors[key] == "bad row", key
    assert (errors["empty"], errors["lone"], errors["cls"]) == ("missing media",) * 3
    assert verify(Storage(str(tmp_path / "out"))) == []
    assert {k: v for k, v in state_of(tmp_path).items() if "/out/" not in k} == before


def test_a_hostile_folder_ends_in_fates(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret.jpg").write_bytes(picture(1))
    (tmp_path / "else").mkdir()
    (tmp_path / "else/x.jpg").write_bytes(picture(2))
    (folder / "good.jpg").write_bytes(picture(3))
    (folder / "new\nline #1.jpg").write_bytes(picture(4))
    (folder / "leaves.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "stays.jpg").symlink_to(folder / "good.jpg")
    (folder / "away").symlink_to(tmp_path / "else")
    (folder / "loop").symlink_to(folder)
    (folder / "dangling.jpg").symlink_to(tmp_path / "nothing")
    (folder / "zero.jpg").write_bytes(b"")
    (folder / "stolen.jpg").write_bytes(picture(5))
    (folder / "stolen.txt").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe.jpg")
    Path(os.fsdecode(os.fsencode(folder) + b"/bad\xff.jpg")).write_bytes(picture(6))
    run_recipe(recipe(folder), tmp_path / "out")
    assert sorted(row["file_name"] for row in kept(tmp_path / "out")) == ["good.jpg", "new\nline #1.jpg"]
    told = failures(tmp_path / "out")
    assert {key: error for key, (error, _) in told.items()} == {
        "leaves.jpg": "outside the folder",
        "away/x.jpg": "outside the folder",
        "dangling.jpg": "unreadable",
        "zero.jpg": "missing media",
        "stolen.jpg": "bad row",
        "pipe.jpg": "unreadable",
        None: "bad name",
    }
    assert verify(Storage(str(tmp_path / "out"))) == []


def test_columns_that_steps_make_replace_those_of_the_input(tmp_path: Path) -> None:
    members = [m for n in range(6) for m in sample(n, width="wide", sha256={"x": n}, height=[1], original_width=7)]
    write_tar(tmp_path / "in/a.tar", [*members, ("bad.jpg", b"x"), ("bad.json", b'{"width": "y"}')])
    run_recipe(recipe(tmp_path / "in", IMAGE_STEP), tmp_path / "out")
    rows = kept(tmp_path / "out")
    assert len(rows) == 6
    assert all(isinstance(row["width"], int) and isinstance(row["height"], int) for row in rows)
    assert sorted(row["sha256"] for row in rows) == [f'{{"x": {n}}}' for n in range(6)]


DOC = Path(__file__).parents[2] / "docs/sources.md"
EXAMPLES = re.findall(r"```yaml\n(.*?)```", DOC.read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES, ids=[text.splitlines()[0].split()[-1] for text in EXAMPLES])
def test_the_examples_of_the_documentation(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.chdir(tmp_path)
    write_shards(tmp_path / "shards", range(4))
    write_img2dataset(tmp_path / "downloaded")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").write_bytes(picture(1))
    made = datasets.Dataset.from_dict({"image": [{"bytes": picture(1), "path": None}]})
    made = made.cast_column("image", datasets.Image())
    datasets.DatasetDict({"train": made}).save_to_disk(tmp_path / "dataset")
    (tmp_path / "metadata").mkdir()
    pq.write_table(pa.table({"URL": ["u"], "TEXT": ["t"], "alt_text": ["a"], "title": ["b"]}), "metadata/a.parquet")
    (tmp_path / "more").mkdir()
    pq.write_table(pa.table({"URL": ["u2"], "TEXT": ["t2"]}), "more/a.parquet")
    result = run_recipe(text, tmp_path / "out")
    assert result.manifest.counts.kept == len(kept_uids(tmp_path / "out")) > 0


def kept_uids(corpus: Path) -> list[str]:
    return [uid for uid, row in fates(corpus).items() if row["fate"] == "kept"]
