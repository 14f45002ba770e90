"""The flags of `corpusmith download`: img2dataset's names and defaults, and its ways of writing them."""

from __future__ import annotations

import math
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from corpusmith.pipelines.img2dataset.arguments import help_text, parse_flags
from corpusmith.schemas.errors import UserError

COMMAND = Path(sysconfig.get_path("scripts")) / "corpusmith"

DEFAULTS = {
    "image_size": 256,
    "output_folder": "images",
    "resize_mode": "border",
    "resize_only_if_bigger": False,
    "upscale_interpolation": "lanczos",
    "downscale_interpolation": "area",
    "encode_quality": 95,
    "encode_format": "jpg",
    "skip_reencode": False,
    "output_format": "files",
    "input_format": "txt",
    "url_col": "url",
    "caption_col": None,
    "bbox_col": None,
    "thread_count": 256,
    "number_sample_per_shard": 10000,
    "extract_exif": True,
    "save_additional_columns": None,
    "timeout": 10,
    "enable_wandb": False,
    "wandb_project": "img2dataset",
    "oom_shard_count": 5,
    "compute_hash": "sha256",
    "verify_hash": None,
    "distributor": "multiprocessing",
    "subjob_size": 1000,
    "retries": 0,
    "disable_all_reencoding": False,
    "min_image_size": 0,
    "max_image_area": math.inf,
    "max_aspect_ratio": math.inf,
    "incremental_mode": "incremental",
    "max_shard_retry": 1,
    "user_agent_token": None,
    "disallowed_header_directives": None,
}
"""Of img2dataset 1.47, `processes_count` apart."""


def test_defaults_are_img2datasets() -> None:
    flags = parse_flags(["list.txt"])
    assert {name: getattr(flags, name) for name in DEFAULTS} == DEFAULTS
    assert all(f"--{name} " in help_text() for name in DEFAULTS)


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--image_size", "512"], "image_size", 512),
        (["--image_size=512"], "image_size", 512),
        (["--image-size=512"], "image_size", 512),
        (["-n", "5"], "number_sample_per_shard", 5),
        (["--skip_reencode"], "skip_reencode", True),
        (["--skip_reencode", "True"], "skip_reencode", True),
        (["--extract_exif=False"], "extract_exif", False),
        (["--noextract_exif"], "extract_exif", False),
        (["--save_additional_columns", '["a","b c"]'], "save_additional_columns", ["a", "b c"]),
        (["--save_additional_columns=[a,b]"], "save_additional_columns", ["a", "b"]),
        (["--disallowed_header_directives", "[]"], "disallowed_header_directives", []),
        (["--verify_hash", '["h","sha256"]'], "verify_hash", ("h", "sha256")),
        (["--compute_hash", "None"], "compute_hash", None),
        (["--max_aspect_ratio", "2.5"], "max_aspect_ratio", 2.5),
        (["--max_image_area", "inf"], "max_image_area", math.inf),
        (["--caption_col", "TEXT"], "caption_col", "TEXT"),
        (["--url_col=URL=x"], "url_col", "URL=x"),
    ],
)
def test_ways_of_writing(words: list[str], name: str, value: Any) -> None:
    flags = parse_flags(["--url_list", "list.txt", *words])
    assert getattr(flags, name) == value and flags.url_list == "list.txt"
    assert getattr(parse_flags([*words, "--url_list=list.txt"]), name) == value


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--output_format", "tfrecord"], "webdataset"),
        (["--distributor", "pyspark"], "corpusmith run RECIPE --address"),
        (["--distributor=ray"], "--address"),
        (["--resize_mode", "stretch"], "keep_ratio_largest"),
        (["--imagesize", "3"], "--image_size"),
        (["--image_size", "big"], "--image_size"),
        (["--image_size"], "value is missing"),
        (["--image_size", "--skip_reencode"], "value is missing"),
        (["--encode_format", "png"], "0 to 9"),
        (["--verify_hash", '["h","md5"]'], "sha256"),
        (["--verify_hash", "h"], "--verify_hash"),
        (["--thread_count", "0"], "--thread_count"),
        (["--user_agent_token", "a\r\nX: y"], "--user_agent_token"),
        (["--save_additional_columns", "[url]"], "url"),
        (["second.txt"], "second.txt"),
    ],
)
def test_wrong_flags_are_told(words: list[str], told: str) -> None:
    with pytest.raises(UserError) as error:
        parse_flags(["list.txt", *words])
    assert told in str(error.value)


def test_url_list_is_needed() -> None:
    with pytest.raises(UserError, match="no list of URLs"):
        parse_flags(["--image_size", "3"])


def test_command(tmp_path: Path) -> None:
    """Help, an error with its exit code, and a run that ends well although all rows fail, as img2dataset's does."""
    told = subprocess.run([COMMAND, "download", "--help"], capture_output=True, text=True, check=True).stdout
    assert "--number_sample_per_shard NUMBER" in told and "[default: 10000]" in told and "Examples:" in told
    wrong = subprocess.run([COMMAND, "download", "x.txt", "--foo", "1"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2 and "--foo: there is no such flag" in wrong.stderr
    (tmp_path / "list.txt").write_text("ftp://nowhere/x\n")
    words = ["list.txt", "--enable_wandb", "False", "--output_format=webdataset", "--output_folder=out"]
    run = subprocess.run([COMMAND, "download", *words], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "failed to download: 1.000" in run.stdout and "scheme refused 1" in run.stdout
    assert "no effect here: --enable_wandb" in run.stderr
    assert (tmp_path / "out/00000_stats.json").exists()
