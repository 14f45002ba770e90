"""Media that is no web page: objects of s3 and gs, and files, read through fsspec in threads.

Nothing here runs unless `allow_schemes` names the scheme. What may be read is then what this process may read, with
the credentials of the machine: a list of URLs from strangers must not be given that.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from corpusmith.operators.fetch.responses import valid_text
from corpusmith.operators.fetch.results import Downloaded
from corpusmith.operators.fetch.transient import TransientFailure
from corpusmith.schemas.fates import RowFailed

_PACKAGES = {"s3": ("s3fs", "pip install 'corpusmith[s3]'"), "gs": ("gcsfs", "pip install gcsfs")}


def missing_packages(schemes: Iterable[str]) -> str | None:
    """What has to be installed for some schemes; None for nothing."""
    for scheme in schemes:
        package, how = _PACKAGES.get(scheme, ("fsspec", ""))
        if importlib.util.find_spec(package) is None:
            return f"allow_schemes: {scheme} needs the package {package}: {how}"
    return None


def store_of(url: str) -> str:
    """What counts as one host: scheme and bucket; all files are one."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{'' if parts.scheme == 'file' else parts.netloc}"


def read_object(url: str, max_bytes: int) -> Downloaded:
    """Read one object or file, at most `max_bytes` of it.

    Raises:
        RowFailed: `missing file`, `access denied`, `too large`, or `empty body`; `store failed` (transient) for what
            else the file system's library reports.
    """
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
        info = system.info(path)
        if info["type"] != "file":
            raise RowFailed("missing file", f"a {info['type']}, no file")
        if (info["size"] or 0) > max_bytes:
            raise RowFailed("too large", f"{info['size']} > {max_bytes} bytes")
        with system.open(path, "rb", cache_type="none") as stream:
            body = stream.read(max_bytes + 1)
    except RowFailed:
        raise
    except FileNotFoundError:
        raise RowFailed("missing file", "nothing is there") from None
    except PermissionError:
        raise RowFailed("access denied", "this user may not read it") from None
    except Exception as error:  # noqa: BLE001 - each file system's library has errors of its own
        raise TransientFailure("store failed", type(error).__name__) from None
    return _checked(body, info, max_bytes)


def _checked(body: bytes, info: dict[str, Any], max_bytes: int) -> Downloaded:
    if len(body) > max_bytes:
        raise RowFailed("too large", f"more than {max_bytes} bytes")
    if not body:
        raise RowFailed("empty body", "0 bytes")
    etag = info.get("ETag") or info.get("etag")
    return Downloaded(body, valid_text(str(etag)) if etag else None, None)
