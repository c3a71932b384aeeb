"""Which rows of a policy's tables its cases reach: what no case reaches, nobody has tried before it is published."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from policy.cases import Case, decide
from policy.decide import Policy


@dataclass(frozen=True)
class Coverage:
    """How many cases reach what: `rows` by table and row, `reasons` by each code that the tables or a decision say."""

    rows: Mapping[str, Mapping[str, int]]
    reasons: Mapping[str, int]


def coverage(policy: Policy, cases: Sequence[Case]) -> Coverage:
    """Of a policy that decides the cases; a row is reached where it holds in a table that the decision came to."""
    rows: dict[str, dict[str, int]] = {}
    reasons: Counter[str] = Counter()
    for name, row in policy.rows:
        rows.setdefault(name, {})[row.id] = 0
        if said := row.literals.get("reason"):
            reasons[str(said)] += 0
    for case in cases:
        decided = decide(policy, case)
        for (name, row), held in zip(policy.rows, decided.held[:, 0].tolist(), strict=True):
            rows[name][row.id] += held
        reasons.update({reason.code for reason in decided[0].reasons})
    return Coverage(rows, {code: reasons[code] for code in sorted(reasons)})
