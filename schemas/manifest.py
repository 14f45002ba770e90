"""The manifest: what a finished corpus says of itself. It is written last; without it a corpus is not finished."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

MANIFEST_PATH = "manifest.json"
WORK_FOLDER = ".work"
"""Resumable state, below the corpus folder; no part of the corpus."""

FORMAT_VERSION = 1


class FileRecord(BaseModel):
    """One file of the corpus."""

    model_config = ConfigDict(extra="forbid")

    sha256: str = Field(description="of the file's bytes; empty where times are part of them (stats)")
    size_bytes: int


class ShardRecord(BaseModel):
    """One shard: its files, and how many samples it holds."""

    model_config = ConfigDict(extra="forbid")

    index: int
    samples: int
    files: dict[str, FileRecord] = Field(description="path below the corpus folder → record")
    content: str = Field(description="digest of the samples in the shard, in order")


class Counts(BaseModel):
    """Where every row went: rows_in + rows_made = kept + rejected + failed + split."""

    model_config = ConfigDict(extra="forbid")

    rows_in: int
    duplicates: int = Field(description="further rows of a uid, counted apart")
    rows_made: int = Field(description="children of splits")
    kept: int
    rejected: int
    failed: int
    split: int


class Removal(BaseModel):
    """A removal from the finished corpus."""

    model_config = ConfigDict(extra="forbid")

    at: str
    samples: int


class Manifest(BaseModel):
    """Recipe, fingerprints, versions, counts, and the sha256 of every file."""

    model_config = ConfigDict(extra="forbid")

    format: int = FORMAT_VERSION
    corpus: str
    created: str
    recipe: dict[str, Any]
    seed: int
    fingerprints: dict[str, str] = Field(description="step → fingerprint of its results")
    versions: dict[str, str]
    counts: Counts
    shards: list[ShardRecord]
    ledger: dict[str, FileRecord]
    removals: list[Removal] = Field(default_factory=list)
