"""Selections beside what DataComp's published code does, on the same rows in the same run.

Run it as `python tests/benchmarks/bench_selection.py`, with a count of rows to use another than a million. Times are of
this process's CPU, so that others at work on the machine count for little.

`top_fraction`: DataComp sorts the column for a threshold, then makes two integers of each id that reaches it, one after
the other in Python (`get_threshold`, `load_uids_with_clip_score_helper`); `ids` is our way to the same array alone.

`synsets`: DataComp's loop over the words of a caption with NLTK (3.8.1, in an environment of its own), beside the two
steps here with a list of as many synsets as ImageNet-21k has; that both keep the same captions is checked.

`subset`: membership of ids in a file of half of them, beside a Python set of integers.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from timing import say

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' helpers

from captions import drawn_captions
from peers import peer
from shuffled import ShuffledRows, table_of

from corpusmith.operators.balance.wordnet import WordNet, find_wordnet
from corpusmith.operators.select.subset import Subset, halves_of, sorted_halves
from corpusmith.operators.select.synset_select import SynsetSelect
from corpusmith.operators.select.top_fraction import TopFraction
from corpusmith.operators.text.synsets import Synsets

KEEP = 0.3
CAPTIONS = 20_000
CLASSES = 21_843

NLTK = """
import json, sys, time
from nltk.corpus.reader.wordnet import WordNetCorpusReader
texts, wanted, folder = json.load(sys.stdin)
wordnet, wanted = WordNetCorpusReader(folder, None), set(wanted)
def contains(text):
    for word in text.split():
        synsets = wordnet.synsets(word)
        if synsets and synsets[0].pos() == "n" and synsets[0].offset() in wanted:
            return True
    return False
contains("dog")
started = time.process_time()
kept = [contains(text) for text in texts]
json.dump([time.process_time() - started, kept], sys.stdout)
"""


class InOrder(ShuffledRows):
    """Rows as they are: shuffling them would take longer than what is measured."""

    def __init__(self, table: pa.Table, scratch_dir: Path) -> None:
        super().__init__(table, scratch_dir)
        self._rows = table

    def reader(self, columns: Sequence[str]) -> pa.RecordBatchReader:
        return self._rows.select(["uid", *columns]).to_reader(65_536)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of CPU, and what came of it."""
    started = time.process_time()
    made = work()
    return time.process_time() - started, made


def published(scores: np.ndarray, ids: list[str]) -> np.ndarray:
    """Ids of the top share, as DataComp's code takes them."""
    threshold = -np.sort(-scores)[int(len(scores) * KEEP)]
    chosen = [ids[i] for i in np.flatnonzero(scores >= threshold).tolist()]
    return np.array([(int(uid[:16], 16), int(uid[16:32], 16)) for uid in chosen], np.dtype("u8,u8"))


def compare_top_fraction(count: int, folder: Path) -> None:
    scores = np.random.default_rng(0).normal(0.2, 0.06, count).astype(np.float32)
    table = table_of(score=scores)
    rows, ids = InOrder(table, folder), table.column("uid").to_pylist()
    slow, theirs = timed(lambda: published(scores, ids))
    fast, ours = timed(lambda: _kept(rows))
    only_ids, _ = timed(lambda: sorted_halves(halves_of(table.column("uid").combine_chunks())[0]))
    assert 0 <= len(theirs) - ours <= 1 + np.count_nonzero(scores == np.partition(scores, -ours)[-ours])
    say(f"top_fraction of {count:,}: published {slow:.2f} s; ours {fast:.2f} s, with a reason and a rank for each row")
    say(f"ids of {count:,} as numbers, sorted: {only_ids:.2f} s")


def _kept(rows: InOrder) -> int:
    reduced = TopFraction(TopFraction.Config(by="score", keep=KEEP)).reduce(rows)
    return sum(batch.column("fate").null_count for batch in reduced.decisions)  # pyright: ignore[reportGeneralTypeIssues]


def compare_synsets(folder: Path) -> None:
    texts = next(drawn_captions(CAPTIONS, batch_rows=CAPTIONS)).to_pylist()
    wordnet = find_wordnet()
    wanted = [synset.wnid for synset in WordNet(wordnet).synsets("n")][:: 82_115 // CLASSES][:CLASSES]
    (folder / "wanted.txt").write_text("\n".join(wanted))
    home = shutil.copytree(wordnet, folder / "corpora" / "wordnet", dirs_exist_ok=True)
    (home / "lexnames").write_text("".join(f"{i:02d}\tname{i}\t1\n" for i in range(45)))
    given = json.dumps([texts, [int(wnid[1:]) for wnid in wanted], str(home)])
    command = [str(peer("nltk", ["nltk==3.8.1"])), "-c", NLTK]
    environment = {**os.environ, "NLTK_DATA": str(folder)}
    told = subprocess.run(command, input=given, capture_output=True, text=True, check=True, env=environment)
    slow, theirs = json.loads(told.stdout)
    synsets = Synsets(Synsets.Config(wordnet_path=wordnet))
    select = SynsetSelect(SynsetSelect.Config(synsets=str(folder / "wanted.txt")))
    synsets.setup()
    select.setup()
    synsets.process(pa.table({"uid": ["0"], "caption": ["dog"]}))
    fast, ours = timed(lambda: _selected(synsets, select, texts))
    assert ours == theirs
    say(f"synsets of {CAPTIONS:,} captions: NLTK {slow:.2f} s; ours {fast:.2f} s (×{slow / fast:.1f}), the same kept")


def _selected(synsets: Synsets, select: SynsetSelect, texts: list[str]) -> list[bool]:
    kept: list[bool] = []
    for start in range(0, len(texts), synsets.batch_rows):
        part = texts[start : start + synsets.batch_rows]
        table = pa.table({"uid": [""] * len(part), "caption": pa.array(part)})
        made: Any = synsets.process(table)
        decision = select.decide(table.append_column("synsets", made.columns["synsets"]))
        kept += pa.array(decision.keep).to_pylist()
    return kept


def compare_subset(count: int, folder: Path) -> None:
    table = table_of(n=np.arange(count))
    ids = table.column("uid").to_pylist()
    array = np.array([(int(uid[:16], 16), int(uid[16:], 16)) for uid in ids[::2]], "u8,u8")
    array.sort()
    np.save(folder / "subset.npy", array)
    known = {(high, low) for high, low in array.tolist()}
    slow, theirs = timed(lambda: [(int(uid[:16], 16), int(uid[16:], 16)) in known for uid in ids])
    operator = Subset(Subset.Config(path=str(folder / "subset.npy"), by="uid"))
    operator.setup()
    fast, ours = timed(lambda: pa.array(operator.decide(table).keep).to_pylist())
    assert ours == theirs
    say(f"subset, {count:,} ids in {len(array):,}: Python set {slow:.2f} s; ours {fast:.2f} s (×{slow / fast:.1f})")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        compare_top_fraction(count, folder)
        compare_subset(count, folder)
        compare_synsets(folder)


if __name__ == "__main__":
    main()
