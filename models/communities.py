"""Communities of a history's graph, and which of them look like rings: who shared what, how bad, how suddenly (R9).

The bipartite graph of applications and what they share, by networkx: connected components and Louvain communities
(Blondel et al. 2008), weighted by how few share an entity. Where nx-cugraph is installed both run on the GPU; its
Louvain takes no seed. A hub must not glue everything together: an entity ties only the applications of one run of uses,
each at most `gap_days` after the one before, and only where at most `applicants_max` applicants share it.

A ring comes in a burst, so each community is searched for the stretch of time in which bad labels stand out most: the
space-time scan statistic with Kulldorff's log likelihood ratio of Bernoulli trials (1997, 1998). So are each hub's
applications, for an officer and a dealer who forge together. Such stretches are ranked by it and share no application;
it is no probability of error. Labels rank and structure gathers: members whose label is unknown are found with others.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import util
from typing import Any

import networkx as nx
import numpy as np
import polars as pl
from numpy.typing import NDArray

from models.linked import Linked

DAY_MS = 86_400_000
APPLICANTS_MIN = 3  # of a community
SCORE_MIN = 3.0  # below it, among so many stretches, chance alone finds some
STRETCH_MAX = 200  # applications of a stretch
BLOCK = 2048  # applications scanned at a time, which bounds the memory
FIGURES: dict[str, Any] = {
    "community": pl.Int64, "score": pl.Float64, "applications": pl.Int64, "applicants": pl.Int64,
    "shared_entities": pl.Int64, "shared": pl.String, "density": pl.Float64, "known": pl.Int64, "bad": pl.Int64,
    "bad_share": pl.Float64, "lift": pl.Float64, "from_ms": pl.Int64, "until_ms": pl.Int64, "days": pl.Float64,
}  # fmt: skip
Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]
Warn = Callable[[str], None]


@dataclass(frozen=True)
class Limits:
    """What ties: see above. span_days: of a burst at most. seed: of Louvain."""

    applicants_max: int = 10
    gap_days: float = 7.0
    span_days: float = 15.0
    seed: int = 0


@dataclass(frozen=True)
class Community:
    """rows: int64 [n] of the applications, in order of time. score: 0 where bad labels do not stand out.

    shared: how many entities at least two of its applicants share, by kind. density: share of all pairs of its
    applications and those entities that are uses. lift: bad share of known labels over that of the whole history, None
    where no label is known.
    """

    rows: Ints
    score: float
    applicants: int
    shared: Mapping[str, int]
    density: float
    known: int
    bad: int
    lift: float | None
    from_ms: int
    until_ms: int

    @property
    def days(self) -> float:
        """From its first application to its last."""
        return (self.until_ms - self.from_ms) / DAY_MS


def communities(linked: Linked, limits: Limits | None = None, warn: Warn = lambda message: None) -> list[Community]:
    """Bursts by score, then the communities in which none was found, the densest first."""
    limits = limits or Limits()
    whole, parts = _divided(bipartite(linked, limits), limits.seed, warn)
    found = [burst for rows in (*whole, *parts, *_hubs(linked)) for burst in _bursts(linked, rows, limits)]
    found.sort(key=lambda burst: (-burst[0], -len(burst[1]), int(burst[1][0])))
    taken, ranked = np.zeros(len(linked), dtype=np.bool_), list[Community]()
    for score, rows in found:
        if not taken[rows].any():
            taken[rows] = True
            ranked.append(_community(linked, rows, score))
    rest = (rows[~taken[rows]] for rows in parts)
    others = [_community(linked, rows, 0.0) for rows in rest if _several(linked, rows)]
    return ranked + sorted(others, key=lambda c: (-c.density * math.log(len(c.rows)), int(c.rows[0])))


def bipartite(linked: Linked, limits: Limits) -> nx.Graph:
    """Applications by their row, and below 0 the runs of uses that tie at least two applicants and not too many."""
    tie = linked.ties[linked.kind]
    row, token, kind = linked.row[tie], linked.token[tie], linked.kind[tie]
    time_ms, applicant = linked.time_ms[row], linked.applicant[row]
    order = np.lexsort((time_ms, token, kind))
    begins = np.ones(len(order), dtype=np.bool_)
    same = (np.diff(token[order]) == 0) & (np.diff(kind[order]) == 0)
    begins[1:] = ~same | (np.diff(time_ms[order]) > limits.gap_days * DAY_MS)
    run = np.empty(len(order), dtype=np.int64)
    run[order] = np.cumsum(begins) - 1
    people = np.unique(np.stack([run.astype(np.uint64), applicant]), axis=1)[0]
    sharing = np.bincount(people.astype(np.int64), minlength=len(order))
    tying = (sharing[run] >= 2) & (sharing[run] <= limits.applicants_max)
    uses = np.unique(np.stack([row[tying], run[tying]]), axis=1)
    graph = nx.Graph()
    weight = 1.0 / np.log1p(sharing[uses[1]])
    graph.add_weighted_edges_from(zip(uses[0].tolist(), (-1 - uses[1]).tolist(), weight.tolist(), strict=True))
    return graph


def _hubs(linked: Linked) -> list[Ints]:
    """Rows of the applications of each entity that ties nobody, of at least three."""
    hub = ~linked.ties[linked.kind]
    row, token, kind = linked.row[hub], linked.token[hub], linked.kind[hub]
    order = np.lexsort((row, token, kind))
    cuts = np.flatnonzero((np.diff(token[order]) != 0) | (np.diff(kind[order]) != 0)) + 1
    return [np.unique(rows) for rows in np.split(row[order], cuts) if len(rows) >= APPLICANTS_MIN]


def backend() -> str:
    """Of networkx: nx-cugraph's where it is installed."""
    return "networkx" if util.find_spec("nx_cugraph") is None else "cugraph"


def _divided(graph: nx.Graph, seed: int, warn: Warn) -> tuple[list[Ints], list[Ints]]:
    """Rows of the connected components, and of the Louvain communities, of at least three applications each."""
    try:
        whole, parts = _by(graph, seed, backend())
    except (RuntimeError, MemoryError, ImportError, NotImplementedError) as error:
        if backend() == "networkx":
            raise
        warn(f"nx-cugraph failed, the CPU goes on: {type(error).__name__}: {error}")
        whole, parts = _by(graph, seed, "networkx")
    rows = [[np.array(sorted(n for n in nodes if n >= 0), dtype=np.int64) for nodes in some] for some in (whole, parts)]
    large = [[some for some in of if len(some) >= APPLICANTS_MIN] for of in rows]
    return large[0], large[1]


def _by(graph: nx.Graph, seed: int, name: str) -> tuple[list[Any], list[Any]]:
    if not graph:
        return [], []
    whole = list(nx.connected_components(graph, backend=name))
    return whole, list(nx.community.louvain_communities(graph, weight="weight", seed=seed, backend=name))


def _bursts(linked: Linked, rows: Ints, limits: Limits) -> Iterator[tuple[float, Ints]]:
    """Score and rows of the stretches of time in which bad labels stand out, the best and those beside it."""
    waiting = [rows[np.argsort(linked.time_ms[rows], kind="stable")]]
    while waiting:
        some = waiting.pop()
        if len(some) < APPLICANTS_MIN:
            continue
        score, start, end = _stretch(linked, some, limits.span_days)
        if score < SCORE_MIN:
            continue
        if _several(linked, some[start:end]):
            yield score, some[start:end]
        waiting += [some[:start], some[end:]]


def _stretch(linked: Linked, rows: Ints, span_days: float) -> tuple[float, int, int]:
    """The greatest score of a stretch of rows in order of time, and its place: from, to (exclusive)."""
    bad = np.concatenate([[0], np.cumsum(linked.bad[rows] == 1)])
    known = np.concatenate([[0], np.cumsum(linked.bad[rows] >= 0)])
    time_ms, every = linked.time_ms[rows], int((linked.bad >= 0).sum())
    best = (0.0, 0, 0)
    for first in range(0, len(rows), BLOCK):
        start = np.arange(first, min(first + BLOCK, len(rows)))[:, None]
        end = start + np.arange(APPLICANTS_MIN, min(STRETCH_MAX, len(rows)) + 1)
        inside = end <= len(rows)
        end = np.minimum(end, len(rows))
        inside &= time_ms[end - 1] - time_ms[start] <= span_days * DAY_MS
        found = scores(bad[end] - bad[start], known[end] - known[start], int((linked.bad == 1).sum()), every)
        found = np.where(inside, found, 0.0)
        at = np.unravel_index(int(found.argmax()), found.shape) if found.size else None
        if at is not None and found[at] > best[0]:
            best = float(found[at]), int(start[at[0], 0]), int(end[at])
    return best


def scores(bad: Ints, known: Ints, all_bad: int, all_known: int) -> Doubles:
    """Kulldorff's log likelihood ratio of `bad` of `known` labels against the rest; 0 where they are no worse."""
    rest = _likelihood(all_bad - bad, all_known - known)
    ratio = _likelihood(bad, known) + rest - _likelihood(np.array(all_bad), np.array(all_known))
    return np.where(bad * all_known > all_bad * known, ratio, 0.0)


def _likelihood(bad: Ints, known: Ints) -> Doubles:
    good, of = known - bad, np.maximum(known, 1)
    return np.where(bad > 0, bad * np.log(np.maximum(bad, 1) / of), 0.0) + np.where(
        good > 0, good * np.log(np.maximum(good, 1) / of), 0.0
    )


def _several(linked: Linked, rows: Ints) -> bool:
    return len(np.unique(linked.applicant[rows])) >= APPLICANTS_MIN


def _community(linked: Linked, rows: Ints, score: float) -> Community:
    rows = rows[np.argsort(linked.time_ms[rows], kind="stable")]
    applicants: dict[tuple[int, int], set[int]] = {}
    users: dict[tuple[int, int], set[int]] = {}
    for row in rows.tolist():
        for use in range(*np.searchsorted(linked.row, [row, row + 1])):
            entity = int(linked.kind[use]), int(linked.token[use])
            applicants.setdefault(entity, set()).add(int(linked.applicant[row]))
            users.setdefault(entity, set()).add(row)
    shared = [entity for entity, people in applicants.items() if len(people) > 1]
    label = linked.bad[rows]
    known, bad = int((label >= 0).sum()), int((label == 1).sum())
    base = float((linked.bad == 1).sum() / max((linked.bad >= 0).sum(), 1))
    uses = sum(len(users[entity]) for entity in shared)
    return Community(
        rows, score, len(np.unique(linked.applicant[rows])),
        dict(sorted(Counter(linked.kinds[kind] for kind, _ in shared).items())),
        uses / (len(rows) * len(shared)) if shared else 0.0, known, bad,
        bad / known / base if known and base else None, int(linked.time_ms[rows[0]]), int(linked.time_ms[rows[-1]]),
    )  # fmt: skip


def figures(found: Sequence[Community]) -> list[dict[str, Any]]:
    """A row of FIGURES for each community."""
    return [
        dict(zip(FIGURES, (
            number, round(c.score, 3), len(c.rows), c.applicants, sum(c.shared.values()),
            ", ".join(f"{kind} {count}" for kind, count in c.shared.items()), round(c.density, 4), c.known, c.bad,
            c.bad / c.known if c.known else None, c.lift, c.from_ms, c.until_ms, round(c.days, 2),
        ), strict=True))
        for number, c in enumerate(found, 1)
    ]  # fmt: skip
