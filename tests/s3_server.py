"""An S3-protocol server on loopback for tests: moto over real HTTP, one bucket, and the environment set to it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from corpusmith.pipelines.storage import Storage

BUCKET = "corpora"


@contextmanager
def s3_bucket() -> Iterator[str]:
    """Serve an empty bucket; yields its URL. Processes that are started within inherit the environment."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(port).items():
            patch.setenv(name, value)
        S3FileSystem.clear_instance_cache()  # instances remember the endpoint that they were made with
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        try:
            yield f"s3://{BUCKET}"
        finally:
            S3FileSystem.clear_instance_cache()
            server.stop()


def environment(port: int) -> dict[str, str]:
    """What a user sets to reach a server of his own."""
    return {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "kept-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def s3_environment() -> dict[str, str]:
    """The part of the environment that leads to the server that is running."""
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}


def fetch(url: str, folder: Path) -> Path:
    """Copy what a corpus on S3 shows to its readers into a local folder; returns that."""
    corpus = Storage(url)
    for entry in corpus.list():
        if not entry.path.startswith(".work/"):
            path = folder / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(corpus.read(entry.path))
    return folder
