"""Files that a step's parameters name: what they hold is part of the step.

A config carries their fingerprint in a parameter `…_sha256`, filled in when the recipe is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, cast

import fsspec

from corpusmith.schemas.errors import UserError

_READ_BYTES = 1 << 24


def sha256_of(paths: Sequence[str], hint: str) -> str:
    """Fingerprint of files: of one its sha256, of several that of theirs in the order given.

    Args:
        paths: local paths or URLs.
        hint: what to do where one cannot be read.

    Raises:
        UserError: one of them cannot be read.
    """
    digests = [_sha256(path, hint) for path in paths]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _sha256(path: str, hint: str) -> str:
    digest = hashlib.sha256()
    try:
        with cast(Any, fsspec.open(path, "rb")) as file:
            while block := file.read(_READ_BYTES):
                digest.update(block)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"the file cannot be read: {error}", where=path, hint=hint) from error
    return digest.hexdigest()
