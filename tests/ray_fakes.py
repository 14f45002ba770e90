"""Fake operators for tests on Ray: one waits, one kills its worker, one wants a card, one tells where it is.

Run as a program it plays on Rays of its own: a cluster of two nodes that loses one, then one node with a card.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
from corpora import run_recipe
from fakes import calls, note

from corpusmith.operators.contract import Annotate, AnnotateAsync, AnnotateRows, Config, Part, Resources
from corpusmith.operators.registry import register
from corpusmith.schemas.columns import MEDIA, Column


@register
class FakeWait(AnnotateAsync, name="fake_wait", version=1):
    """Waits for something far away; says how long the address is."""

    @property
    def requires(self) -> tuple[str, ...]:
        return ("url",)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (Column("url_chars", pa.int64(), "characters of the URL"),)

    async def process_row(self, row: dict[str, Any]) -> dict[str, Any]:
        note("fake_wait", [row["uid"]])
        await asyncio.sleep(0.01)
        return {"url_chars": len(row["url"])}


class FakeKillerConfig(Config):
    marker: str = ""
    """A file that remembers the first death, after which there is none; none for a death each time."""


@register
class FakeKiller(Annotate, name="fake_killer", version=1):
    """Kills the process that it works in, in which it is not isolated, where the URL says `kill`."""

    Config: ClassVar[type[Config]] = FakeKillerConfig
    config: FakeKillerConfig  # type: ignore[assignment]
    isolated = False
    batch_rows = 10

    @property
    def requires(self) -> tuple[str, ...]:
        return ("url",)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (Column("survived", pa.bool_(), "true"),)

    def process(self, batch: pa.Table) -> Part:
        if any("kill" in url for url in batch.column("url").to_pylist()) and self._is_time():
            note("fake_killer", [str(os.getpid())])
            os.kill(os.getpid(), signal.SIGKILL)
        return Part({"survived": [True] * batch.num_rows})

    def _is_time(self) -> bool:
        if not self.config.marker:
            return True
        marker = Path(self.config.marker)
        is_first = not marker.exists()
        marker.touch()
        return is_first


class FakeCardConfig(Config):
    keep: int = 32


@register
class FakeCard(AnnotateRows, name="fake_card", version=1):
    """Makes smaller media on a card; notes which card it was given."""

    Config: ClassVar[type[Config]] = FakeCardConfig
    config: FakeCardConfig  # type: ignore[assignment]
    isolated = False
    batch_rows = 20
    resources = Resources(gpus=1.0)

    @property
    def requires(self) -> tuple[str, ...]:
        return ("media",)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (MEDIA, Column("first_byte", pa.int64(), "the first byte"))

    def process_row(self, row: dict[str, Any]) -> dict[str, Any]:
        note("fake_card", [f"{os.getpid()}:{os.environ.get('CUDA_VISIBLE_DEVICES', '')}"])
        return {"media": row["media"][: self.config.keep], "first_byte": row["media"][0]}


@register
class FakePlace(Annotate, name="fake_place", version=1):
    """Notes the node that it works on."""

    isolated = False

    @property
    def requires(self) -> tuple[str, ...]:
        return ("url",)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (Column("placed", pa.bool_(), "true"),)

    def process(self, batch: pa.Table) -> Part:
        import ray

        if ray.is_initialized():
            note("fake_place", [ray.get_runtime_context().get_node_id()] * batch.num_rows)
        return Part({"placed": [True] * batch.num_rows})


@register
class FakeShare(Annotate, name="fake_share", version=1):
    """Notes its process, and the part of the work that it is told to do."""

    isolated = False
    resources = Resources(cpus=1.0, waits=True)

    @property
    def requires(self) -> tuple[str, ...]:
        return ("url",)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (Column("shared", pa.bool_(), "true"),)

    def setup(self) -> None:
        note("fake_share", [f"{os.getpid()}:{self.share}"])

    def process(self, batch: pa.Table) -> Part:
        time.sleep(0.2)
        return Part({"shared": [True] * batch.num_rows})


def two_nodes(recipe: str, output: str) -> None:
    """Run on two nodes of one core each; once both have worked, kill all processes of the second."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)

    def kill_second() -> None:
        while len(set(calls("fake_place"))) < 2:
            time.sleep(0.02)
        cluster.remove_node(second, allow_graceful=False)

    killer = threading.Thread(target=kill_second, daemon=True)
    killer.start()
    run_recipe(recipe, output, executor="ray")
    killer.join(timeout=1)
    assert not killer.is_alive(), "the second node was not killed"
    assert not second.any_processes_alive()
    ray.shutdown()
    cluster.shutdown()


def one_card(recipes: list[str], output: str) -> None:
    """Run recipes one after the other on one node with one core and one card."""
    import ray

    ray.init(
        address="local",
        num_cpus=1,
        num_gpus=1,
        include_dashboard=False,
        object_store_memory=128 << 20,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    for recipe in recipes:
        run_recipe(recipe, output, executor="ray")
    ray.shutdown()


def attached(address: str, recipe: str, output: str) -> None:
    """Run on a Ray that is there already."""
    import ray

    ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    run_recipe(recipe, output, executor="ray")


if __name__ == "__main__":
    play, *arguments = sys.argv[1:]
    if play == "two_nodes":
        two_nodes(*arguments)
    elif play == "one_card":
        one_card(arguments[1:], arguments[0])
    else:
        attached(*arguments)
