"""A simulation from records to findings: the policy looked at, what it is compared with, and scenarios of stress."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from policy import portfolio
from policy.portfolio import Column, Terms
from policy.records import Part, Records, bare
from policy.scoring import Score, Task, changed, known_by, outdated
from policy.simulate import Run, SimulationError, View, check, simulate
from policy.stress import Stresses, cheaper, stressed
from policy.workers import Workers

RECORDED, SIMULATED, BASE = "recorded", "simulated", "base"


@dataclass(frozen=True)
class Question:
    """What is asked. base: folder of the policies compared with, None for what was recorded. device: where the tables
    of policies run, as policy.device.run_at has it.
    """

    policies: Path
    base: Path | None = None
    terms: Terms = field(default_factory=Terms)
    seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True)
class Steps:
    """Tells how far a study is: `plan`, how many rows more are to be scored or decided, and `done`, how many were."""

    plan: Callable[[int], None] = lambda rows: None
    done: Callable[[int], None] = lambda rows: None


def study(
    records: Records, question: Question, scores: Mapping[str, Score], stresses: Stresses, workers: Workers,
    steps: Steps = Steps(),
) -> dict[str, Any]:  # fmt: skip
    """The findings, as they stand in simulation.json. scores: bundles by schema name.

    Raises PolicyError, StressError, and SimulationError where a scenario has no bundle to score with.
    """
    policies = check(records, question.policies)
    before_it = {} if question.base is None else check(records, question.base)
    scenarios = stresses.scenarios
    _check_scores(records, scores, stresses)
    fresh = outdated(records, scores)
    steps.plan(_rows(fresh) + len(records) * (1 + len(scenarios) + (question.base is not None)))
    known = known_by(records.known, fresh, workers, steps.done)
    runs = [Run(SIMULATED, question.policies, View(records.parts, known), reasons=True)]
    if question.base is not None:
        before = known if records.recorded is None else records.known
        runs.append(Run(BASE, question.base, View(records.parts, before), reasons=True))
    for scenario in scenarios:
        parts = stressed(records, records.parts, stresses, scenario, question.seed)
        tasks = changed(records.parts, parts, scores)
        steps.plan(_rows(tasks))
        worse = cheaper(known_by(known, tasks, workers, steps.done), scenario)
        runs.append(Run(scenario.name, question.policies, View(_bare(parts), worse)))
    found = simulate(records, runs, workers, steps.done, question.device)
    columns = [Column(run.name, found[run.name], run.view.known) for run in runs]
    base = None
    if question.base is not None:
        base = columns.pop(1)
    elif records.recorded is not None:
        base = Column(RECORDED, records.recorded, records.known)
    made = {"policies": {n: p.version for n, p in sorted(policies.items())},
            "bundles": {name: score.version for name, score in sorted(scores.items())}, "scored_anew": _rows(fresh),
            "one_process_a_run": any(p.funders for p in (*policies.values(), *before_it.values())),
            "kept_as_recorded": sorted({*records.products} - {*policies}), "left_out": dict(records.left_out),
            "terms": asdict(question.terms), "scenarios": [asdict(scenario) for scenario in scenarios]}  # fmt: skip
    return made | findings(records, base, columns, question.terms)


def findings(records: Records, base: Column | None, columns: Sequence[Column], terms: Terms) -> dict[str, Any]:
    """The figures of all columns, the first of which is set against the base."""
    new = columns[0]
    every = {column.name: {"total": portfolio.total(records, column, terms),
                           "by": portfolio.grouped(records, column, terms)}
             for column in ([base] if base else []) + list(columns)}  # fmt: skip
    found: dict[str, Any] = {"decisions": len(records), "minor_per_major": int(records.minor_per_major.max()),
                             "columns": every}  # fmt: skip
    if base is not None:
        found |= {
            "base": base.name, "moves": portfolio.moves(base.decided, new.decided),
            "bands": portfolio.bands(base, new),
            "swap_in": portfolio.swap(records, base, new, terms, into=True),
            "swap_out": portfolio.swap(records, base, new, terms, into=False),
        }  # fmt: skip
    return found


def _check_scores(records: Records, scores: Mapping[str, Score], stresses: Stresses) -> None:
    unable = [part.schema.name for part in records.parts if part.schema.name not in scores]
    if unable and (stresses.scenarios or records.recorded is None):
        raise SimulationError(f"--bundle: none is of schema {', '.join(unable)}, whose rows have to be scored")
    if stresses.scenarios:
        for part in records.parts:
            stresses.columns(part.schema)


def _rows(tasks: Sequence[Task]) -> int:
    return sum(len(task.rows) for task in tasks)


def _bare(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Without what only models read: scenarios would not fit in memory together."""
    return tuple(replace(p, snapshot=bare(p.snapshot.features, p.snapshot.source_state)) for p in parts)
