"""Reasons in words: the features that moved a model towards bad, and whom the graph network saw (R2, R22).

The graph network's part of the log-odds is one reason, beside the features and ranked with them. The value of a
personal feature appears nowhere: reasons end in logs and records (R21).
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from features.application import Reason, Snapshot
from features.neighborhood import NEIGHBOR_COLUMNS
from features.schema import Entity, Feature, Schema

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

# Units worth saying after a number, in Chinese; others are in the feature's own words.
_ZH_UNITS = {"CNY": "元", "CNY/month": "元/月", "months": "个月", "days": "天", "hours": "小时", "km": "公里"}
_FLAGS = (("否", "no"), ("是", "yes"))
SAID_KEPT = 8192
TIES_MAX = 3  # named in the graph network's reason
_GAP, _SAME, _FRAUD = (NEIGHBOR_COLUMNS.index(name) for name in ("gap_hours", "same_applicant", "fraud"))
# Code and words of the graph network's reason.
GRAPH_PATTERN = ("GRAPH_PATTERN", "申请与其关联网络的模式异常", "unusual pattern of the application and its network")


def feature_reasons(
    schema: Schema, columns: NDArray[np.int64], contributions: Doubles, features: Floats, top: int = 4, label: str = "",
) -> list[list[Reason]]:  # fmt: skip
    """Of each of B applications at most `top` features that moved it towards bad, the strongest first.

    columns: int64 [n] of features, float32 [B, F]; contributions: float64 [B, n], log-odds of the model of `label`,
    which the evidence names. The value of a personal feature appears nowhere: reasons end in logs and records (R21).
    """
    found: list[list[Reason]] = [[] for _ in features]
    strongest = _strongest(columns, contributions, features, top)
    for row, column, value, contribution in zip(*(some.tolist() for some in strongest), strict=True):
        code, zh, en, evidence = _said(schema, column, None if math.isnan(value) else value, label)
        found[row].append(Reason(code, zh, en, contribution, evidence))
    return found


@njit(cache=True, nogil=True)
def _strongest(columns, contributions, features, top):  # type: ignore[no-untyped-def]
    """Row, column, value and contribution of at most `top` positive contributions of each row, the greatest first and
    of equal ones the first: int64 [m], int64 [m], float64 [m], float64 [m].
    """
    rows, count = contributions.shape
    row_of, column_of = np.empty(rows * top, np.int64), np.empty(rows * top, np.int64)
    values, moved = np.empty(rows * top), np.empty(rows * top)
    taken, m = np.empty(count, np.bool_), 0
    for row in range(rows):
        taken[:] = False
        for _ in range(min(top, count)):
            best, at = 0.0, -1
            for i in range(count):
                if contributions[row, i] > best and not taken[i]:
                    best, at = contributions[row, i], i
            if at < 0:
                break
            taken[at] = True
            row_of[m], column_of[m], values[m], moved[m] = row, columns[at], features[row, columns[at]], best
            m += 1
    return row_of[:m], column_of[:m], values[:m], moved[:m]


def graph_reason(schema: Schema, contribution: float, snapshot: Snapshot, row: int, label: str) -> Reason:
    """The reason of a graph network that moved the log-odds of `label` of one row of a snapshot by `contribution`.

    It reads the application together with its network and shares its answer among no columns, so what is said is whom
    the application's own neighbours tie it to.
    """
    code, zh, en = GRAPH_PATTERN
    ties = _ties(schema, snapshot.neighbor_state[row], snapshot.neighbor_mask[row])
    if not ties:
        return Reason(code, zh, en, contribution, _evidence(label, "no applications of others are tied to it"))
    said_zh, said_en, facts = zip(*(tie.words() for tie in ties), strict=True)
    evidence = _evidence(label, "; ".join(facts))
    return Reason(code, f"{zh}: {'; '.join(said_zh)}", f"{en}: {'; '.join(said_en)}", contribution, evidence)


@dataclass(frozen=True)
class _Tie:
    """What the latest `seen` applications of an entity say: how many are of others, how many of these frauds."""

    entity: Entity
    seen: int
    others: int
    frauds: int
    latest_hours: float

    def words(self) -> tuple[str, str, str]:
        """In Chinese, in English, and bare."""
        hours, name = _decimal(self.latest_hours, 1), self.entity.name
        return (
            f"同一{self.entity.zh}近{self.seen}笔申请中他人{self.others}笔, 已确认欺诈{self.frauds}笔, "
            f"最近一笔在{hours}小时前",
            f"{self.entity.en}: {self.others} of its last {self.seen} applications by others, {self.frauds} confirmed "
            f"fraud, the latest {hours} hours ago",
            f"{name} others={self.others}/{self.seen} fraud={self.frauds} latest_hours={hours}",
        )


def _ties(schema: Schema, state: Floats, mask: NDArray[np.bool_]) -> list[_Tie]:
    """The strongest at most TIES_MAX ties to others of neighbours float32 [E, K, C], bool [E, K].

    A place that many share, as a mall's Wi-Fi, is one only where a fraud is among its latest.
    """
    seen, of_others, frauds, latest = _tied(state, mask).T.tolist()
    found = []
    for entity in schema.entities.values():
        ties = [
            _Tie(entity, int(seen[slot]), int(of_others[slot]), int(frauds[slot]), latest[slot])
            for slot in range(entity.first_slot, entity.first_slot + entity.slots)
            if of_others[slot] and (entity.link or frauds[slot])
        ]
        found += sorted(ties, key=lambda tie: (-tie.frauds, -tie.others))[:1]
    return sorted(found, key=lambda tie: (-tie.frauds, -tie.others))[:TIES_MAX]


@njit(cache=True, nogil=True)
def _tied(state, mask):  # type: ignore[no-untyped-def]
    """float64 [E, 4]: of each entity how many neighbours it has, how many are of others, how many of these are frauds,
    and the hours since their latest.
    """
    out = np.zeros((len(state), 4))
    for entity in range(len(state)):
        latest = np.inf
        for k in range(mask.shape[1]):
            if mask[entity, k]:
                out[entity, 0] += 1
                if state[entity, k, _SAME] == 0:
                    out[entity, 1] += 1
                    out[entity, 2] += state[entity, k, _FRAUD] > 0
                    latest = min(latest, state[entity, k, _GAP])
        out[entity, 3] = latest
    return out


@lru_cache(SAID_KEPT)  # counts and flags come again and again
def _said(schema: Schema, column: int, value: float | None, label: str) -> tuple[str, str, str, str]:
    """Code, words in Chinese and in English, and evidence of a feature that moved the model of a label."""
    feature = schema.features[column]
    code = feature.name.upper()
    nameless = feature.category and not feature.values  # an open category's number is a code that says nothing
    if (feature.personal or nameless) and value is not None:
        return code, feature.zh, feature.en, _evidence(label, feature.name)
    zh, en, plain = ("缺失", "missing", "missing") if value is None else _words(feature, value)
    return code, f"{feature.zh}: {zh}", f"{feature.en}: {en}", _evidence(label, f"{feature.name}={plain}")


def _evidence(label: str, facts: str) -> str:
    return ": ".join(part for part in (label, facts) if part)


def _words(feature: Feature, value: float) -> tuple[str, str, str]:
    """A value in Chinese, in English, and bare."""
    if feature.values:
        category = feature.values[int(value)]
        return category, category, category
    number = _decimal(value, 4)
    if feature.unit == "flag" and value in (0, 1):
        return (*_FLAGS[int(value)], number)
    if feature.unit == "rate":
        return (percent := f"{_decimal(100 * value, 2)}%"), percent, number
    if feature.unit in _ZH_UNITS:
        return number + _ZH_UNITS[feature.unit], f"{number} {feature.unit}", number
    return number, number, number


def _decimal(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".rstrip("0").rstrip(".")
