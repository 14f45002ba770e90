"""sample: keep a share of the rows, drawn from the seed and each row's identity alone.

A row's draw does not depend on order, batches or parallelism, and the rows of a lower rate are among those of a higher
one. Hence two samples in one recipe draw the same numbers: the second keeps all of the first when its rate is higher.
"""

from __future__ import annotations

import pyarrow as pa
import xxhash
from pydantic import Field

from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.operators.contract import Decision, Select
from corpusmith.schemas.columns import UID

DRAWS = 2**64
"""Number of equally likely draws: the hash has 64 bits."""


class Sample(Select, name="sample", version=1):
    """Keep a random share of the rows."""

    class Config(BaseConfig):
        rate: float = Field(ge=0, le=1, description="share of the rows to keep, from 0 (none) to 1 (all)")

    positional = "rate"
    seeded = True
    config: Config

    @property
    def requires(self) -> tuple[str, ...]:
        return ()

    def decide(self, batch: pa.Table) -> Decision:
        seed, bound = self.seed % DRAWS, int(self.config.rate * DRAWS)
        draws = [xxhash.xxh64_intdigest(uid, seed) for uid in batch.column(UID.name).cast(pa.binary()).to_pylist()]
        label = f"sample rate {self.config.rate:g}"
        reasons = {i: f"{label}: draw = {draw / DRAWS:.6g}" for i, draw in enumerate(draws) if draw >= bound}
        return Decision([draw < bound for draw in draws], reasons)
