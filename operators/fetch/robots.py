"""robots.txt by RFC 9309: which paths of a site a crawler may fetch, and how slowly.

The standard library's parser knows no wildcards, and takes the first rule that matches instead of the longest. This
one follows section 2.2 of the RFC: groups that name the same agent are one, the longest matching pattern decides,
`allow` wins a tie, `*` matches anything and `$` the end. Crawl-delay is no part of the RFC, but sites use it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

MAX_ROBOTS_BYTES = 500 * 1024
"""As much as a crawler has to read at least (section 2.5); what follows is not read."""

MAX_CRAWL_DELAY_S = 30.0
"""A longer delay counts as this one."""

_TOKEN = re.compile(r"[a-z_-]+")
_ESCAPE = re.compile(r"%([0-9a-f]{2})", re.IGNORECASE)
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_LEGAL = "!$%&'()*+,-./:;=?@[]^_|~"


@dataclass(frozen=True)
class Rule:
    """One `allow` or `disallow`.

    Args:
        is_allowed: which of the two.
        pattern: normalised; `*` and a last `$` as in the file.
    """

    is_allowed: bool
    pattern: str

    def matches(self, path: str) -> bool:
        """Whether a normalised path begins as the pattern says; linear in both, whatever the wildcards."""
        is_whole = self.pattern.endswith("$")
        first, *others = (self.pattern[:-1] if is_whole else self.pattern).split("*")
        if not path.startswith(first):
            return False
        if not others:
            return not is_whole or path == first
        at = len(first)
        for piece in others[:-1]:
            found = path.find(piece, at)
            if found < 0:
                return False
            at = found + len(piece)
        last = others[-1]
        return path.endswith(last) and len(path) - len(last) >= at if is_whole else path.find(last, at) >= 0


@dataclass(frozen=True)
class Robots:
    """What a site asks of one crawler.

    Args:
        rules: of the groups that concern it.
        crawl_delay_s: seconds from one request to the next.
    """

    rules: Sequence[Rule] = ()
    crawl_delay_s: float = 0.0

    def allows(self, path: str) -> bool:
        """Whether a path, query included, may be fetched."""
        plain = _normalised(path)
        matching = [(len(rule.pattern), rule.is_allowed) for rule in self.rules if rule.matches(plain)]
        return max(matching, default=(0, True))[1]


def parse_robots(body: bytes, agent: str) -> Robots:
    """Read a robots.txt for a crawler, named by its product token; whatever is no rule is passed over."""
    token_match = _TOKEN.match(agent.lower())
    token = token_match[0] if token_match else ""
    groups: dict[str, list[tuple[str, str]]] = {"*": []}
    agents: list[str] = []
    is_naming = False
    text = body[:MAX_ROBOTS_BYTES].decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    for line in re.split(r"\r\n|\r|\n", text):
        key, colon, value = line.partition("#")[0].partition(":")
        key, value = key.strip().lower(), value.strip()
        if key in ("user-agent", "useragent") and colon:
            agents = [*agents, _agent(value)] if is_naming else [_agent(value)]
            groups.setdefault(agents[-1], [])
            is_naming = True
        elif key in ("allow", "disallow", "crawl-delay") and colon:
            is_naming = False
            for named in dict.fromkeys(agents):
                groups[named].append((key, value))
    lines = groups[token] if token in groups else groups["*"]
    rules = tuple(Rule(key == "allow", _normalised(value)) for key, value in lines if key != "crawl-delay" and value)
    return Robots(rules, max((_delay_s(value) for key, value in lines if key == "crawl-delay"), default=0.0))


def _agent(value: str) -> str:
    """The product token of a user-agent line, versions and what follows left out."""
    token = _TOKEN.match(value.lower())
    return token[0] if token else value[:1]


def _delay_s(value: str) -> float:
    return min(float(value), MAX_CRAWL_DELAY_S) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{0,9})?", value) else 0.0


def _normalised(path: str) -> str:
    """A path as section 2.2.2 compares it: needless escapes undone, others in capitals, other characters escaped."""
    quoted = quote(path, safe=_LEGAL, errors="surrogateescape")
    return _ESCAPE.sub(lambda escape: _unescaped(int(escape[1], 16)), quoted)


def _unescaped(byte: int) -> str:
    return chr(byte) if byte in _UNRESERVED else f"%{byte:02X}"
