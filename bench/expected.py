"""What a policy must decide, in plain arithmetic on what zen's tables say: nothing of the compiled policy runs here.

From docs/architecture.md: the worst vote wins, and each is heard; the amount is the least of what is asked, the cap,
what income or collateral carries and what exposure leaves, in whole units of `rounding_minor`; funders lend in their
order up to share and cap. Inputs are complete, and no fee is asked: then the all-in rate is the annual rate.
"""

import math
import re
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any, NamedTuple

from policy.cells import Value
from policy.decide import Decision, Outcome
from policy.rows import Table
from policy.specs import CAP, CAPACITIES, EXPOSURE

ROW = "row_of_table"  # an output that the copy for zen has beside the others: which row holds
FEN_NOISE = Decimal("0.001")  # what carries 69 999.9999 fen carries 70 000
Said = Mapping[str, Any]  # by table what zen says: the row that holds, of a collect table a list of them
Named = Mapping[str, Value | None]


class Vote(NamedTuple):
    """A vote with its reason: the code, and in which row or for which source."""

    outcome: Outcome
    code: str
    where: str


@dataclass(frozen=True)
class Expected:
    """A Decision as far as tables say it. shares: (funder, minor units); votes: those that are heard."""

    outcome: Outcome
    approved_amount_minor: int
    annual_rate: float
    grade: str
    shares: list[tuple[str, int]]
    votes: list[Vote]
    degraded: set[str]

    def is_of(self, decision: Decision) -> bool:
        """Whether this is what was decided, reasons from the worst vote's on."""
        outcome_of = {vote[1:]: vote.outcome for vote in self.votes}
        heard = [(reason.code, _where(reason.evidence)) for reason in decision.reasons]
        worst_first = [outcome_of.get(reason, 0) for reason in heard]
        return bool(
            (decision.outcome, decision.approved_amount_minor) == (self.outcome, self.approved_amount_minor)
            and math.isclose(decision.annual_rate, self.annual_rate, rel_tol=1e-12)
            and decision.all_in_rate == decision.annual_rate
            and decision.grade == self.grade
            and [(share.offer.funder, share.amount_minor) for share in decision.shares] == self.shares
            and {*decision.degraded} == self.degraded
            and sorted(heard) == sorted(vote[1:] for vote in self.votes)
            and worst_first == sorted(worst_first, reverse=True)
        )


def expect(
    said: Said, named: Named, asked_minor: int, tables: Sequence[Table], minor_per_major: int,
    lent: MutableMapping[str, int],
) -> Expected:  # fmt: skip
    """The decision on an application. lent: minor units by funder; what this one takes is added."""
    states = {n.removesuffix("_state"): str(state) for n, state in named.items() if n.endswith("_state")}
    lost = {name: state for name, state in states.items() if state != "fresh"}
    models = [_by_row(name, said[name]) for name in ("fraud", "grade") if name in said]
    votes = [vote for vote in (*_collected(said, lost, tables), *models) if vote.code]
    amount, rate = asked_minor, 0.0
    if _worst(votes) < Outcome.DECLINE and "limit" in said:
        amount, limited = _amount(said["limit"], named, asked_minor, minor_per_major)
        votes += limited
    if _worst(votes) < Outcome.DECLINE and "price" in said:
        rate = float(said["price"]["annual_rate"])
        if rate > said["price"]["cap_rate"]:
            votes.append(Vote(Outcome.REVIEW, "ALL_IN_RATE_ABOVE_CAP", f"price.{said['price'][ROW]}"))
    parts: dict[str, int] = {}
    if _worst(votes) <= Outcome.LIMIT and "funders" in said:
        parts = split(amount, int(said["limit"]["rounding_minor"]), rate, said["funders"], lent)
        if (funded := sum(parts.values())) < amount:
            enough, amount = funded >= said["limit"]["minimum_minor"], funded
            less = (Outcome.LIMIT, "LIMIT_BY_FUNDERS") if enough else (Outcome.REVIEW, "NO_FUNDER")
            votes.append(Vote(*less, "funders"))
    outcome = _worst(votes)
    approved = outcome <= Outcome.LIMIT
    for funder, part in parts.items() if approved else ():
        lent[funder] = lent.get(funder, 0) + part
    return Expected(
        outcome, amount if approved else 0, rate if approved else 0.0, str(said.get("grade", {}).get("grade", "")),
        [(funder, part) for funder, part in parts.items() if part and approved],
        [vote for vote in votes if vote.outcome > Outcome.APPROVE or outcome == Outcome.APPROVE],
        {f"source:{name}:{state}" for name, state in lost.items()},
    )  # fmt: skip


def split(
    amount: int, rounding: int, annual_rate: float, rows: Sequence[Mapping[str, Any]], lent: Mapping[str, int]
) -> dict[str, int]:
    """By funder its part of the amount, or of the greatest smaller multiple of `rounding` that all can lend."""
    first: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        first.setdefault(row["funder"], row)
    room = {name: max(0, int(row["cap_minor"]) - lent.get(name, 0)) for name, row in first.items()
            if row["funder_rate"] <= annual_rate}  # fmt: skip
    share = {name: _exact(first[name]["share_max"]) for name in room}

    def offered(whole: int, rounding_way: str = ROUND_CEILING) -> dict[str, int]:
        return {n: min(int((share[n] * whole).to_integral_value(rounding_way)), room[n]) for n in room}

    if sum(offered(amount).values()) < amount:
        few, many = 0, -(-amount // rounding)  # the one can be lent, the other cannot
        while many - few > 1:
            middle = (few + many) // 2
            whole = middle * rounding
            few, many = (middle, many) if sum(offered(whole).values()) >= whole else (few, middle)
        amount = few * rounding
    parts = dict.fromkeys(room, 0)
    for rounding_way in (ROUND_FLOOR, ROUND_CEILING):  # up only where nobody else takes what is then left
        for name, part in offered(amount, rounding_way).items():
            parts[name] += min(part - parts[name], amount - sum(parts.values()))
    return parts


def _collected(said: Said, lost: Mapping[str, str], tables: Sequence[Table]) -> Iterator[Vote]:
    """Votes of knock-outs and sources; a source that is lost reviews, unless a row that holds names its state."""
    for name in ("knockouts", "sources"):
        yield from (_by_row(name, row) for row in said.get(name, ()))
    holds = {row[ROW] for row in said.get("sources", ())}
    forgiven = {
        n for table in tables if table.name == "sources" for row in table.rows if row.id in holds for n in row.tests
    }
    for name, state in lost.items():
        if f"{name}_state" not in forgiven:
            yield Vote(Outcome.REVIEW, f"SOURCE_{state.upper()}", f"{name}_state={state}")


def _by_row(table: str, row: Mapping[str, Any]) -> Vote:
    return Vote(Outcome[row["outcome"].upper()], row.get("reason", ""), f"{table}.{row[ROW]}")


def _amount(row: Mapping[str, Any], named: Named, asked: int, minor_per_major: int) -> tuple[int, list[Vote]]:
    """What is lent, and the vote where that is less than asked, or less than the least loan."""
    most, reason, where = _exact(row[CAP.output]), CAP.reason, f"limit.{row[ROW]}"
    for capacity in CAPACITIES:
        if capacity.output in row:
            least = min(_exact(named[name]) for name in capacity.inputs)
            carries = least * _exact(row[capacity.output]) * minor_per_major + FEN_NOISE
            if carries < most:
                most, reason = carries, capacity.reason
    if EXPOSURE.output in row:
        left = max(_exact(row[EXPOSURE.output]) - _exact(named[EXPOSURE.inputs[0]]), Decimal(0))
        if left < most:
            most, reason = left, EXPOSURE.reason
    rounding = int(row["rounding_minor"])
    amount = asked if asked <= most else int(most // rounding) * rounding
    if amount < row["minimum_minor"]:
        return 0, [Vote(Outcome.DECLINE, "LIMIT_TOO_LOW", where)]
    return amount, [Vote(Outcome.LIMIT, reason, where)] if amount < asked else []


def _worst(votes: Sequence[Vote]) -> Outcome:
    return max((vote.outcome for vote in votes), default=Outcome.APPROVE)


def _exact(number: Any) -> Decimal:
    """The decimal that a number is written as."""
    return Decimal(str(number))


def _where(evidence: str) -> str:
    """The row that an evidence ends with; all of it where it names none."""
    found = re.search(r"\(([^()]*)\)$", evidence)
    return found[1] if found else evidence
