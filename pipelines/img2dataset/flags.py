"""The flags of `corpusmith download`: img2dataset's names, meanings and defaults, and a few of our own.

One model is the whole definition: names, types, defaults, help and groups. `docs/img2dataset.md` says which of them
mean the same, which differ, and which are refused.
"""

from __future__ import annotations

import math
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from corpusmith.schemas.errors import UserError

Hash = Literal["md5", "sha256", "sha512"]
Interpolation = Literal["nearest", "linear", "cubic", "area", "lanczos", "lanczos4"]

OPT_OUTS = ("noai", "noimageai", "noindex", "noimageindex")
"""X-Robots-Tag directives that are honoured unless the flag says otherwise: img2dataset's list."""

REFUSED_FORMATS = {"tfrecord": "webdataset"}
MAX_PNG_COMPRESSION = 9
MOST_REQUESTS = 4096


def _flag(default: Any, group: str, help: str, **bounds: Any) -> Any:
    return Field(default=default, description=help, json_schema_extra={"group": group}, **bounds)


class Flags(BaseModel):
    """What a run of `corpusmith download` is asked to do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url_list: str = Field(
        description="file of URLs, or a folder of such files; local or s3://… (also the first plain argument)",
        json_schema_extra={"group": "Input"},
    )
    input_format: Literal[
        "txt", "txt.gz", "csv", "csv.gz", "tsv", "tsv.gz", "json", "json.gz", "jsonl", "jsonl.gz", "parquet"
    ] = _flag("txt", "Input", "format of the URL files")
    url_col: str = _flag("url", "Input", "column of the URLs")
    caption_col: str | None = _flag(None, "Input", "column of the captions")
    bbox_col: str | None = _flag(None, "Input", "column of boxes to blur: [[left, top, right, bottom], …] from 0 to 1")
    save_additional_columns: list[str] | None = _flag(None, "Input", 'further columns to keep: \'["id","score"]\'')

    output_folder: str = _flag("images", "Output", "folder to write to, or its URL (s3://…)")
    output_format: Literal["files", "webdataset", "parquet", "dummy"] = _flag(
        "files", "Output", "files: a folder a shard; webdataset: a tar a shard; dummy: statistics alone"
    )
    number_sample_per_shard: int = _flag(10000, "Output", "rows in a shard", ge=1)
    oom_shard_count: int = _flag(5, "Output", "digits of a shard's number", ge=1, le=10)
    incremental_mode: Literal["incremental", "overwrite", "extend", "retry"] = _flag(
        "incremental",
        "Output",
        "incremental: only shards that are not finished; overwrite: remove the folder first; extend: number the new "
        "shards after those that are there; retry: failed rows of finished shards again, then as incremental",
    )

    image_size: int = _flag(256, "Images", "pixels of the resized side", ge=1, le=16383)
    resize_mode: Literal["no", "border", "keep_ratio", "keep_ratio_largest", "center_crop"] = _flag(
        "border",
        "Images",
        "border: a square with white borders; keep_ratio: shorter side; keep_ratio_largest: longer side; center_crop: "
        "the middle square",
    )
    resize_only_if_bigger: bool = _flag(False, "Images", "never enlarge")
    upscale_interpolation: Interpolation = _flag("lanczos", "Images", "filter for enlarging")
    downscale_interpolation: Interpolation = _flag("area", "Images", "filter for shrinking")
    encode_format: Literal["jpg", "png", "webp"] = _flag("jpg", "Images", "format of the images")
    encode_quality: int = _flag(95, "Images", "0 to 100; for png the compression, 0 to 9", ge=0, le=100)
    skip_reencode: bool = _flag(False, "Images", "keep the bytes of an image that need not be resized")
    disable_all_reencoding: bool = _flag(False, "Images", "keep all bytes as they came, without a look at them")
    extract_exif: bool = _flag(True, "Images", "save EXIF tags")
    min_image_size: int = _flag(0, "Images", "refuse images with a side below, in pixels", ge=0)
    max_image_area: float = _flag(math.inf, "Images", "refuse images of more pixels", gt=0)
    max_aspect_ratio: float = _flag(math.inf, "Images", "refuse a longer/shorter side above", gt=0)

    thread_count: int = _flag(
        256, "Downloads", "requests in flight, times processes_count where that is given", ge=1, le=MOST_REQUESTS
    )
    timeout: float = _flag(10, "Downloads", "seconds for one attempt", gt=0, le=3600)
    retries: int = _flag(0, "Downloads", "further attempts after errors that may pass", ge=0, le=20)
    user_agent_token: str | None = _flag(
        None, "Downloads", "name in the User-Agent, and in X-Robots-Tag", pattern=r"^[A-Za-z0-9_.-]{1,100}$"
    )
    disallowed_header_directives: list[str] | None = _flag(
        None, "Downloads", f"X-Robots-Tag directives that are honoured; [] for none  [default: {', '.join(OPT_OUTS)}]"
    )
    compute_hash: Hash | None = _flag("sha256", "Downloads", "hash of the bytes as downloaded: a column; or None")
    verify_hash: tuple[str, Hash] | None = _flag(
        None, "Downloads", 'column and kind of a hash that the bytes must have: \'["md5","md5"]\''
    )

    processes_count: int | None = _flag(None, "Machine", "image processes  [default: one a core]", ge=1, le=1024)
    distributor: str = _flag("multiprocessing", "Machine", "multiprocessing only: one machine")
    subjob_size: int = _flag(1000, "Machine", "no effect: there are no subjobs")
    max_shard_retry: int = _flag(1, "Machine", "no effect: a row's trouble never fails its shard")
    enable_wandb: bool = _flag(False, "Machine", "no effect: nothing is sent anywhere")
    wandb_project: str = _flag("img2dataset", "Machine", "no effect")

    allow_hosts: list[str] = _flag(
        [], "Beyond img2dataset", 'hosts or networks to contact although private: \'["10.0.0.0/8","localhost"]\''
    )
    robots: bool = _flag(False, "Beyond img2dataset", "ask each site's robots.txt")
    per_host: int | None = _flag(
        None,
        "Beyond img2dataset",
        "requests in flight to one host  [default: no limit of its own]",
        ge=1,
        le=MOST_REQUESTS,
    )
    dry_run: bool = _flag(False, "Beyond img2dataset", "say what there is to do, and do nothing")

    @field_validator("output_format", mode="before")
    @classmethod
    def _is_written(cls, value: Any) -> Any:
        if value in REFUSED_FORMATS:
            raise ValueError(f"{value} is not written; use {REFUSED_FORMATS[value]}, which TensorFlow reads too")
        return value

    @field_validator("distributor")
    @classmethod
    def _is_local(cls, value: str) -> str:
        if value != "multiprocessing":
            raise ValueError(
                f"{value} is not here: this command works on one machine. For a cluster write a recipe "
                "and start it with `corpusmith run RECIPE --address HOST:PORT`"
            )
        return value

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.encode_format == "png" and self.encode_quality > MAX_PNG_COMPRESSION:
            raise ValueError(
                f"encode_quality is the compression of png, 0 to {MAX_PNG_COMPRESSION}, not {self.encode_quality}"
            )
        if self.verify_hash and self.verify_hash[1] != self.compute_hash:
            raise ValueError(f"verify_hash asks for {self.verify_hash[1]} and compute_hash gives {self.compute_hash}")
        taken = [name for name in self.save_additional_columns or () if name in (self.url_col, self.caption_col)]
        if taken:
            raise ValueError(f"save_additional_columns names the column of URLs or captions: {', '.join(taken)}")
        return self

    @property
    def requests(self) -> int:
        """Requests in flight: img2dataset has `thread_count` of them in each process."""
        return min(self.thread_count * (self.processes_count or 1), MOST_REQUESTS)

    @property
    def ignored(self) -> list[str]:
        """Flags that were given and do nothing here."""
        return sorted(self.model_fields_set & {"subjob_size", "max_shard_retry", "enable_wandb", "wandb_project"})


def refused(name: str, problem: str) -> UserError:
    """The error of a flag."""
    return UserError(problem, where=f"--{name}", hint="corpusmith download --help lists all flags")
