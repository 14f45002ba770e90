"""Captions a second that are matched against 500,000 entries on one core, beside automata on the same captions.

Run it as `python tests/benchmarks/bench_matching.py`; ARGS: `[captions] [entries]`.

Entries of rule "metaclip" have the published list's shape: WordNet's names where Debian's wordnet-base is installed,
the words of those and of real titles with made inflections, pairs and triples of neighbouring words of drawn captions,
and made titles of two or three words. Rule "metaclip2" runs twice: on the same list, of which few entries have an edge
without a boundary, and on Chinese, Japanese and Korean entries and captions, which are pieces of names of emoji.
English captions are drawn from real titles (`captions.drawn_captions`).

The automata run as MetaCLIP's code runs pyahocorasick: a text is spaced by `str.replace`, what is found goes through a
set into a list. Ours begins with an Arrow array and ends with arrays of pairs. All must find the same pairs. Times are
of the core's clock, except with two threads; the best of a few turns.
"""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from timing import say

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' helpers

from captions import drawn_captions, emoji_names, real_titles
from peers import peer

from corpusmith.operators.balance.matching import Matcher, Matches, needs_space, space_text
from corpusmith.operators.balance.wordnet import WORDNET_FOLDER, wordnet_entries

TURNS = 5
PEERS = ("pyahocorasick==2.3.1", "ahocorasick_rs==1.0.3", "daachorse==0.5.0")
BATCH_ROWS = 20_000

AUTOMATON = """
import hashlib, json, sys, time
tool, keys_path, texts_path = sys.argv[1:]
keys, texts = json.load(open(keys_path)), json.load(open(texts_path))
begun = time.thread_time()
if tool == "pyahocorasick":
    import ahocorasick
    automaton = ahocorasick.Automaton()
    for k, key in enumerate(keys):
        automaton.add_word(key, (k, key))
    automaton.make_automaton()
    find = lambda text: {k for _, (k, _) in automaton.iter(text)}
elif tool == "ahocorasick_rs":
    import ahocorasick_rs
    automaton = ahocorasick_rs.AhoCorasick(keys)
    find = lambda text: {k for k, _, _ in automaton.find_matches_as_indexes(text, overlapping=True)}
else:
    import daachorse
    automaton = daachorse.CharwiseDoubleArrayAhoCorasick(keys)
    find = lambda text: {k for _, _, k in automaton.find_overlapping(text)}
def spacing(text):
    text = f" {text} "
    for mark in ",.;:?!`":
        text = text.replace(mark, f" {mark} ")
    for blank in "\\t\\n\\r":
        text = text.replace(blank, " ")
    return text
built, best = time.thread_time() - begun, 1e9
for _ in range(3):
    begun = time.thread_time()
    found = [list(find(spacing(text))) for text in texts]
    best = min(best, time.thread_time() - begun)
digest = hashlib.sha256(json.dumps([sorted(ids) for ids in found]).encode()).hexdigest()
print(json.dumps({"built_s": built, "rate": len(texts) / best, "digest": digest}))
"""


def english_entries(count: int) -> list[str]:
    """Distinct entries of the published list's shape."""
    drawn = random.Random(0)
    names = wordnet_entries() if Path(WORDNET_FOLDER, "data.noun").exists() else []
    words = sorted({word for text in (*names, *real_titles()) for word in text.split(" ") if word})
    entries = dict.fromkeys([*names, *words])
    entries.update(dict.fromkeys(word + suffix for word in words for suffix in ("s", "ed", "ing")))
    sample = pa.concat_arrays(list(drawn_captions(20_000, seed=9))).to_pylist()
    tokens = [space_text(caption).split(" ") for caption in sample]
    grams = (row[i : i + n] for n in (2, 3) for row in tokens for i in range(1, len(row) - n))
    entries.update(dict.fromkeys(" ".join(gram) for gram in grams if all(map(str.isalnum, gram))))
    while len(entries) < count:
        entries[" ".join(drawn.choice(words) for _ in range(drawn.randint(2, 3))).title()] = None
    return drawn.sample(list(entries), count)


def cjk(count: int, captions: int) -> tuple[list[str], pa.Array]:
    """Entries and captions of names of emoji in three languages, cut and joined."""
    drawn = random.Random(1)
    names = [name for language in ("zh", "ja", "ko") for name in emoji_names(language)]
    entries = dict.fromkeys(names)
    while len(entries) < count:
        text = drawn.choice(names) + drawn.choice(["", " ", "の"]) + drawn.choice(names)
        start = drawn.randrange(len(text))
        if text[start : start + drawn.randint(1, 8)]:
            entries[text[start : start + drawn.randint(2, 8)]] = None
    texts = [
        drawn.choice(["", " ", "，", "の"]).join(drawn.choices(names, k=drawn.randint(2, 6))) for _ in range(captions)
    ]
    return list(entries), pa.array(texts)


def best(work: Callable[[], Any], clock: Callable[[], float] = time.thread_time, turns: int = TURNS) -> float:
    """Seconds of the fastest turn."""
    taken = []
    for _ in range(turns):
        begun = clock()
        work()
        taken.append(clock() - begun)
    return min(taken)


def digest(matches: Matches, rows: int) -> str:
    """What the automata's script says of the same pairs."""
    cuts = np.searchsorted(matches.rows, np.arange(1, rows))
    lists = [part.tolist() for part in np.split(matches.entries, cuts)]
    return hashlib.sha256(json.dumps(lists).encode()).hexdigest()


def keys_of(entries: Sequence[str], rule: str) -> list[str]:
    """What the published code puts into its automaton."""
    if rule == "metaclip":
        return [f" {entry} " for entry in entries]
    return [" " * needs_space(e[0]) + e + " " * needs_space(e[-1]) for e in entries]


def compare(name: str, entries: list[str], captions: pa.Array, rule: Any, tools: Sequence[str]) -> None:
    """Print the rates of all on the same captions."""
    begun = time.thread_time()
    matcher = Matcher(entries, rule)
    built_s = time.thread_time() - begun
    matches = matcher.match(captions)
    pairs, size = len(matches.rows) / len(captions), sum(map(len, captions.to_pylist())) / len(captions)
    say(f"\n{name}: {len(entries):,} entries; {len(captions):,} captions of {size:.0f} characters, {pairs:.1f} matches")
    ours = len(captions) / best(lambda: matcher.match(captions))
    tallied = len(captions) / best(lambda: matcher.counts(captions))
    batches = [captions.slice(start, BATCH_ROWS) for start in range(0, len(captions), BATCH_ROWS)]
    with ThreadPoolExecutor(2) as pool:
        two = len(captions) / best(lambda: list(pool.map(matcher.match, batches)), time.perf_counter)
    say(f"  ours: {ours:,.0f}/s; counts alone {tallied:,.0f}/s; two threads {two:,.0f}/s; built in {built_s:.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        keys_path, texts_path = Path(folder, "keys.json"), Path(folder, "texts.json")
        keys_path.write_text(json.dumps(keys_of(entries, rule)))
        texts_path.write_text(json.dumps(captions.to_pylist()))
        for tool in tools:
            command = [str(peer("matching", PEERS)), "-c", AUTOMATON, tool, str(keys_path), str(texts_path)]
            run = subprocess.run(command, capture_output=True, text=True)
            if run.returncode:
                say(f"  {tool}: {run.stderr.strip().splitlines()[-1]}")
                continue
            told = json.loads(run.stdout)
            same = "same pairs" if told["digest"] == digest(matches, len(captions)) else "OTHER PAIRS"
            line = f"{told['rate']:,.0f}/s (ours ×{ours / told['rate']:.1f}), built in {told['built_s']:.1f} s, {same}"
            say(f"  {tool}: {line}")


def linearity(entries: list[str], rule: Any) -> None:
    """Print rates of ten times as many captions, and of one long caption."""
    matcher = Matcher(entries, rule)
    pools = {count: pa.concat_arrays(list(drawn_captions(count, seed=3))) for count in (100_000, 1_000_000)}
    times = {count: best(lambda pool=pool: matcher.match(pool), turns=3) for count, pool in pools.items()}
    say(f"\n{rule}: 100k captions {times[100_000]:.2f} s, 1M captions {times[1_000_000]:.2f} s")
    short = pools[100_000].slice(0, 20_000)
    long = pa.array([" ".join(short.to_pylist())])
    many_s, one_s = best(lambda: matcher.match(short)), best(lambda: matcher.match(long))
    say(f"  {long.nbytes / 1e6:.1f} MB as 20k captions {many_s * 1e3:.1f} ms, as one caption {one_s * 1e3:.1f} ms")
    for shown in (" ", ",", "a ", "的", "((", "cat "):
        hostile = pa.array([shown * ((1 << 20) // len(shown.encode()))])
        say(f"  1 MB of {shown!r}: {best(lambda hostile=hostile: matcher.match(hostile), turns=2) * 1e3:.1f} ms")


MEMORY = """
import json, sys
import psutil, pyarrow as pa
from corpusmith.operators.balance.matching import Matcher
entries = pa.array(json.load(open(sys.argv[1])), pa.large_string())
Matcher(["a"], sys.argv[2]).match(pa.array(["a"]))
before = psutil.Process().memory_info().rss
matcher = Matcher(entries, sys.argv[2])
built = psutil.Process().memory_info().rss
matcher.match(pa.array(["a photo of a cat on a mat, " * 2] * 20000))
matcher.match(pa.array(["a photo of a cat, " * 58000]))
peak = next(int(line.split()[1]) << 10 for line in open('/proc/self/status') if line.startswith('VmHWM'))
print(f"  memory, {sys.argv[2]}: built {(built - before) / 1e6:.0f} MB, peak {(peak - before) / 1e6:.0f} MB")
"""


def memory(entries: list[str], rule: str) -> None:
    """Print the memory that a process takes for a matcher, beyond what it has taken for its packages and the list."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(entries, file)
        file.flush()
        run = subprocess.run(
            [sys.executable, "-c", MEMORY, file.name, rule], capture_output=True, text=True, check=True
        )
    say(run.stdout.rstrip())


def main(captions: int = 100_000, count: int = 500_000) -> None:
    entries = english_entries(count)
    pool = pa.concat_arrays(list(drawn_captions(captions, seed=2)))
    compare("metaclip", entries, pool, "metaclip", ("pyahocorasick", "ahocorasick_rs", "daachorse"))
    compare("metaclip2, English", entries, pool, "metaclip2", ("pyahocorasick",))
    compare("metaclip2, zh ja ko", *cjk(count, captions), "metaclip2", ("pyahocorasick",))
    for rule in ("metaclip", "metaclip2"):
        memory(entries, rule)
        linearity(entries, rule)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
