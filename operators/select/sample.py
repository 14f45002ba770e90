"""sample: keep a share of the rows, drawn from the seed and each row's identity alone.

A row's draw does not depend on order, batches or parallelism, and the rows of a lower rate are among those of a higher
one. Hence two samples in one recipe draw the same numbers: the second keeps all of the first when its rate is higher.
"""

from __future__ import annotations

import pyarrow as pa
from pydantic import Field

from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.operators.contract import Decision, Select
from corpusmith.operators.draws import DRAWS, draws
from corpusmith.schemas.columns import UID


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
        bound = int(self.config.rate * DRAWS)
        drawn = draws(batch.column(UID.name), self.seed).tolist()
        label = f"sample rate {self.config.rate:g}"
        reasons = {i: f"{label}: draw = {draw / DRAWS:.6g}" for i, draw in enumerate(drawn) if draw >= bound}
        return Decision([draw < bound for draw in drawn], reasons)
