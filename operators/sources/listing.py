"""Finding the input: files, folders and patterns, and what a folder's content says it is.

Folders of media are known by what lies in them: tars, tars with Parquets of the same name, image files, a Hugging Face
dataset. Where that is not plain, a recipe has to say what it means: a wrong guess would make a wrong corpus.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.core import has_magic

from corpusmith.operators.sources.files import (
    FORMATS,
    UNSOUGHT_FORMATS,
    SourceFile,
    format_by_name,
    is_local,
    shown,
    source_file,
    told,
)
from corpusmith.operators.sources.samples import MEDIA_EXTENSIONS
from corpusmith.schemas.errors import UserError

MEDIA_FORMATS = ("webdataset", "img2dataset", "folder", "hf")
METADATA_NAMES = frozenset({"metadata.csv", "metadata.jsonl", "metadata.parquet"})
"""Tables that say more about the images of their folder, by Hugging Face's convention."""
SIDECAR_SUFFIXES = frozenset({".txt", ".caption", ".json"})

_PACKED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".tar.zst")
_HF_MARKS = frozenset({"dataset_dict.json", "dataset_info.json", "state.json"})
_CORPUS_MARK = "manifest.json"
_CORPUS_SHARDS = "shards"
_SHOWN_NAMES = 3


def list_files(
    paths: str | Sequence[str],
    format: str | None = None,
    split: str | None = None,
    origins: Sequence[str] | None = None,
) -> list[SourceFile]:
    """Find input files.

    Args:
        paths: files, folders, and patterns (`*`, `**`, `?`, `[…]`), local or as URLs. A folder is searched with all
            below it, names left out that start with a dot or an underscore (image files with an underscore are taken);
            of tables those of a known format, but no `.txt`, which may be anything: lists are named, or matched by a
            pattern. A pattern matches no file that starts with a dot.
        format: of the input, as the recipe names it; None for what content and names show.
        split: of Hugging Face datasets; None for all.
        origins: a name for each path, which its files then carry.

    Returns:
        Each file once, sorted by path.

    Raises:
        UserError: a path is missing, a pattern or folder matches nothing, a file system cannot be reached, it is not
            plain what a folder holds, or which name a file has.
    """
    paths = [paths] if isinstance(paths, str) else paths
    found: dict[str, SourceFile] = {}
    for path, origin in zip(paths, _checked_origins(paths, origins), strict=True):
        for file in _files_at(path, format, split):
            first = found.setdefault(file.path, replace(file, origin=origin))
            if first.origin != origin:
                what = f"the file belongs to two origins, {first.origin!r} and {origin!r}"
                raise UserError(what, where=shown(file.path), hint="name paths in input.path that share no file")
    if not found:
        raise UserError("no input files are named", hint="give input.path a file, a folder or a pattern")
    kinds = {"tars" if file.kind in ("webdataset", "img2dataset") else file.kind or "tables" for file in found.values()}
    if len(kinds) > 1:
        hint = "make a corpus of each, or name paths of one format"
        raise UserError(f"the input holds {' and '.join(sorted(kinds))}", where="input.path", hint=hint)
    return [found[path] for path in sorted(found)]


def _checked_origins(paths: Sequence[str], origins: Sequence[str] | None) -> Sequence[str]:
    """A name for each path, empty where none are given."""
    if origins is None:
        return [""] * len(paths)
    if len(origins) != len(paths) or not all(name.strip() for name in origins):
        what = f"{len(origins)} names for {len(paths)} paths" if len(origins) != len(paths) else "a name is blank"
        raise UserError(what, where="input.origins", hint="write one name for each entry of input.path, in its order")
    return origins


@dataclass(frozen=True)
class _Listed:
    """What lies at a path.

    Args:
        fs: its file system.
        path: as the recipe gives it.
        inner: as the file system calls it.
        infos: the files, as fsspec tells of them.
        is_folder: whether the path is a folder.
    """

    fs: Any
    path: str
    inner: str
    infos: list[dict[str, Any]]
    is_folder: bool

    def inside(self, info: Mapping[str, Any]) -> tuple[str, ...]:
        """The parts of a file's path below the folder; its name alone for a file that was named."""
        path = PurePosixPath(info["name"])
        return path.relative_to(self.inner.rstrip("/") or "/").parts if self.is_folder else (path.name,)

    def files(self, infos: Sequence[Mapping[str, Any]], kind: str) -> list[SourceFile]:
        root = self.inner.rstrip("/") if is_local(self.fs) else self.fs.unstrip_protocol(self.inner.rstrip("/"))
        return [replace(source_file(self.fs, info), kind=kind, root=root) for info in infos]

    def sought(self) -> _Listed:
        """Without what starts with a dot or an underscore."""
        if not self.is_folder:
            return self
        infos = [info for info in self.infos if not any(part[:1] in (".", "_") for part in self.inside(info))]
        return replace(self, infos=infos)


def _files_at(path: str, format: str | None, split: str | None) -> list[SourceFile]:
    listed = _listed(path)
    if format not in MEDIA_FORMATS:
        if format is not None:
            return _tables(listed)
        format = _format_of_content(listed)
    match format:
        case None:
            return _tables(listed)
        case "folder":
            return _folder(listed)
        case "hf":
            return _hf(listed, split)
        case kind:
            return _tars(listed, is_paired=kind == "img2dataset")


def _listed(path: str) -> _Listed:
    where = shown(path)
    try:
        fs, inner = fsspec.core.url_to_fs(path if "://" in path else str(Path(path).expanduser()))
        fs.invalidate_cache()  # object stores remember listings, and files may have come since
        return _list(fs, path, inner)
    except FileNotFoundError as error:
        hint = "check input.path; a pattern such as urls/*.parquet takes several files"
        raise UserError("there is no such file or folder", where=where, hint=hint) from error
    except Exception as error:
        hint = "check the path and the credentials; s3:// paths need pip install 'corpusmith[s3]'"
        raise UserError(f"cannot be listed: {told(error, path)}", where=where, hint=hint) from error


def _list(fs: Any, path: str, inner: str) -> _Listed:
    is_web = "http" in fs.protocol
    if has_magic(inner) and not is_web and not fs.exists(inner):
        infos = [
            info
            for name, info in fs.glob(inner, detail=True).items()
            if info["type"] == "file" and not PurePosixPath(name).name.startswith(".")
        ]
        return _Listed(fs, path, inner, infos, is_folder=False)
    info = fs.info(inner)
    if is_web or info["type"] == "file":
        return _Listed(fs, path, inner, [info], is_folder=False)
    below = list(_walk(inner)) if is_local(fs) else list(fs.find(inner, detail=True).values())
    return _Listed(fs, path, inner, below, is_folder=True)


def _walk(folder: str) -> Iterator[dict[str, Any]]:
    """All files below a local folder, through links too, no folder twice; much faster than fsspec's own search."""
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        top = waiting.pop()
        status = Path(top).stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(top) as entries:
            for entry in entries:
                if entry.is_dir():
                    waiting.append(entry.path)
                else:
                    yield _local_info(entry)


def _local_info(entry: os.DirEntry[str]) -> dict[str, Any]:
    try:
        status = entry.stat()
    except OSError:  # a link that leads nowhere: whoever reads it finds out
        return {"name": entry.path, "type": "other", "size": 0, "mtime": None}
    kind = "file" if stat.S_ISREG(status.st_mode) else "other"
    return {"name": entry.path, "type": kind, "size": status.st_size, "mtime": status.st_mtime}


def _tables(listed: _Listed) -> list[SourceFile]:
    infos = listed.sought().infos
    if listed.is_folder:
        infos = [i for i in infos if format_by_name(i["name"]) not in (None, *UNSOUGHT_FORMATS) and i["type"] == "file"]
    if not infos:
        raise _nothing(listed)
    return [source_file(listed.fs, info) for info in infos]


def _nothing(listed: _Listed) -> UserError:
    what = "the folder holds no table and no media" if listed.is_folder else "no file matches the pattern"
    sought = ", ".join(suffix for suffix, format in FORMATS.items() if format not in UNSOUGHT_FORMATS)
    hint = f"tables end in {sought}, compressed ones in .csv.gz and so on; a list (.txt) is named itself"
    return UserError(what, where=shown(listed.path), hint=hint)


def _format_of_content(listed: _Listed) -> str | None:
    """The format of media that the files show; None for tables."""
    names = [PurePosixPath(info["name"]).name for info in listed.infos]
    if listed.is_folder and _HF_MARKS & set(names) and any(name.endswith(".arrow") for name in names):
        return "hf"
    if listed.is_folder and _is_corpus(listed):
        return "img2dataset"
    listed = listed.sought()
    seen = {kind: [i["name"] for i in listed.infos if _kind(i["name"]) == kind] for kind in _KINDS}
    if seen["packed tars"] and not seen["tars"]:
        raise _packed(seen["packed tars"][0])
    stems = {name.removesuffix(".tar") for name in seen["tars"]}
    alone = [name for name in seen["tables"] if name.removesuffix(".parquet") not in stems]
    if seen["tars"] and not alone and not (seen["images"] and listed.is_folder):
        return "img2dataset" if seen["tables"] else "webdataset"
    if seen["images"] and not seen["tars"] and not seen["tables"]:
        if listed.is_folder:
            return "folder"
        hint = "name the folder, so that the texts beside the images are found, too"
        raise UserError("these are image files", where=shown(listed.path), hint=hint)
    if seen["arrow files"] and not any(seen[kind] for kind in ("tars", "tables", "images")):
        return "hf"
    if sum(bool(seen[kind]) for kind in ("tars", "tables", "images")) > 1:
        told = "; ".join(_some(kind, found) for kind, found in seen.items() if found)
        hint = f"set input.format to what is meant: {', '.join(MEDIA_FORMATS)}, or a table's format"
        raise UserError(f"it is not plain what this is: {told}", where=shown(listed.path), hint=hint)
    return None


_KINDS = ("tars", "packed tars", "tables", "images", "arrow files")


def _kind(path: str) -> str | None:
    name = PurePosixPath(path).name.lower()
    if name.endswith(_PACKED_TARS):
        return "packed tars"
    if name.endswith(".tar"):
        return "tars"
    if name.endswith(".arrow"):
        return "arrow files"
    if name.rpartition(".")[2] in MEDIA_EXTENSIONS:
        return "images"
    is_table = format_by_name(path) not in (None, *UNSOUGHT_FORMATS) and name not in METADATA_NAMES
    return "tables" if is_table else None


def _some(kind: str, names: Sequence[str]) -> str:
    first = ", ".join(ascii(PurePosixPath(name).name)[1:-1] for name in sorted(names)[:_SHOWN_NAMES])
    return f"{len(names):,} {kind} ({first}{', …' if len(names) > _SHOWN_NAMES else ''})"


def _is_corpus(listed: _Listed) -> bool:
    """Whether the folder is a corpus of ours: only its shards are input."""
    parts = [listed.inside(info) for info in listed.infos]
    return (_CORPUS_MARK,) in parts and any(p[0] == _CORPUS_SHARDS and p[-1].endswith(".tar") for p in parts)


def _packed(path: str) -> UserError:
    hint = "unpack it (`gunzip`, `zstd -d`): samples are read where they lie, which a compressed tar does not allow"
    return UserError("a compressed tar cannot be read", where=shown(path), hint=hint)


def _tars(listed: _Listed, *, is_paired: bool) -> list[SourceFile]:
    """Tars, and the Parquets that belong to them; a tar without is read by itself."""
    if listed.is_folder and _is_corpus(listed):
        listed = replace(listed, infos=[i for i in listed.infos if listed.inside(i)[0] == _CORPUS_SHARDS])
    infos = listed.sought().infos
    if not listed.is_folder:
        infos = [*infos, *(_siblings(listed) if is_paired else ())]
    packed = next((i["name"] for i in infos if _kind(i["name"]) == "packed tars"), None)
    if packed is not None:
        raise _packed(packed)
    if not is_paired and not listed.is_folder:
        return listed.files(infos, "webdataset")
    tars = [i for i in infos if i["name"].lower().endswith(".tar")]
    tables = [i for i in infos if i["name"].endswith(".parquet")] if is_paired else []
    if not tars and not tables:
        what = "there is no tar" if listed.is_folder else "no file matches the pattern"
        raise UserError(what, where=shown(listed.path), hint="shards end in .tar")
    stems = {i["name"].removesuffix(".parquet") for i in tables}
    paired = [i for i in tars if i["name"].removesuffix(".tar") in stems]
    alone = [i for i in tars if i["name"].removesuffix(".tar") not in stems]
    return [*listed.files([*paired, *tables], "img2dataset"), *listed.files(alone, "webdataset")]


def _siblings(listed: _Listed) -> Iterator[dict[str, Any]]:
    """The tars of Parquets, and the Parquets of tars, that a pattern did not match."""
    names = {info["name"] for info in listed.infos}
    other = {".tar": ".parquet", ".parquet": ".tar"}
    for name in names:
        suffix = PurePosixPath(name).suffix
        sibling = name.removesuffix(suffix) + other.get(suffix, "")
        if suffix in other and sibling not in names and listed.fs.exists(sibling):
            yield listed.fs.info(sibling)


def _folder(listed: _Listed) -> list[SourceFile]:
    """Images, what may lie beside them, and metadata; names that start with a dot are left out."""
    infos = []
    for info in listed.infos:
        parts = listed.inside(info)
        suffix = PurePosixPath(parts[-1]).suffix.lower()
        is_of_use = suffix[1:] in MEDIA_EXTENSIONS or suffix in SIDECAR_SUFFIXES or parts[-1] in METADATA_NAMES
        if is_of_use and not any(part.startswith(".") for part in parts):
            infos.append(info)
    if not any(_kind(info["name"]) == "images" for info in infos):
        raise UserError("the folder holds no image", where=shown(listed.path), hint="check input.path and input.format")
    return listed.files(infos, "folder")


def _hf(listed: _Listed, split: str | None) -> list[SourceFile]:
    """The Arrow files of a dataset that was saved to disk, or of all its splits."""
    infos = {"/".join(listed.inside(info)): info for info in listed.infos}
    arrows = {name: info for name, info in infos.items() if name.endswith(".arrow")}
    folders = sorted({name.rpartition("/")[0] for name in arrows})
    states = {folder: _state(listed, infos.get(f"{folder}/state.json".lstrip("/"))) for folder in folders}
    splits = {folder: str(state.get("_split") or folder.rpartition("/")[2]) for folder, state in states.items()}
    if split is not None and split not in splits.values():
        hint = f"splits here: {', '.join(sorted(set(splits.values()))) or 'none'}"
        raise UserError(f"there is no split {split!r}", where=shown(listed.path), hint=hint)
    taken = []
    for name, info in arrows.items():
        folder, _, base = name.rpartition("/")
        files = states[folder].get("_data_files")
        named = {str(file.get("filename")) for file in files} if isinstance(files, list) else None
        is_data = base in named if named is not None else not base.startswith("cache-")
        if is_data and split in (None, splits[folder]):
            taken.append(info)
    if not taken:
        hint = "give the folder that `save_to_disk` has written"
        raise UserError("there is no dataset of Arrow files", where=shown(listed.path), hint=hint)
    return listed.files(taken, "hf")


def _state(listed: _Listed, info: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What a dataset's own state.json says of its files; nothing where it is not there or no JSON."""
    if info is None:
        return {}
    try:
        state = json.loads(listed.fs.cat_file(info["name"]))
    except ValueError:
        return {}
    return state if isinstance(state, dict) else {}
