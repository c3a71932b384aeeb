"""A simulated policy says of every decision what really deciding by it says (R17)."""

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bench import publish
from bench import simulate as bench
from features import archive
from features.application import REPAYMENT_METHODS
from features.archive import ArchiveError
from features.place import Place
from features.replay import History
from features.specs import OUTCOME_KINDS
from policy import device, versions
from policy.archived import from_archive
from policy.decide import Policy
from policy.errors import PolicyError
from policy.inputs import Known, input_values
from policy.ledger import MOVING
from policy.records import Decided, Records, Reports
from policy.simulate import Run, SimulationError, View, check, simulate
from policy.study import SIMULATED
from policy.workers import Workers, workers
from tests.conftest import ROOT
from tests.gpu_devices import NAMES, opened
from tests.policy_files import chained, read_tables, table, write
from tests.test_archive import write_again
from tests.test_engine import past

__all__ = ["past"]
EVENTS = 900  # of the world's: applications and reports
OUTPUTS = ("outcome", "approved_amount_minor", "annual_rate", "grade")
FUNDER_COLUMNS = ("funder", "mode", "share_max", "cap_minor", "funder_rate")
FUNDERS = table(
    "funders", "collect", ("grade.grade",), FUNDER_COLUMNS,
    ("'AAA', 'AA', 'A', 'BBB' | 'bank' | 'joint' | 0.7 | 60000000 | 0.05", "| 'trust' | 'joint' | 1 | 90000000 | 0.1"),
)  # fmt: skip


@pytest.fixture(scope="module")
def world(past: History, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: policies `first` and `other`, and what was `decided` and would be, `actual`, on the same events."""
    folder = tmp_path_factory.mktemp("world")
    some = replace(past, events=past.events[:EVENTS])
    for policies, change, out in (("first", bench.FIRST, "decided"), ("other", bench.OTHER, "actual")):
        bench.variant(ROOT / "policy/products", folder / policies, change)
        asyncio.run(bench.decide(redis_url, some, folder / policies, folder / out, f"simulate-{out}-{id(folder)}"))
    return folder


@pytest.fixture(scope="module")
def records(world: Path) -> Records:
    return bench.records(world / "decided")


def run(records: Records, policies: Path, some: Workers | None = None, known: Known | None = None) -> Decided:
    view = View(records.parts, known or records.known)
    return simulate(records, [Run(SIMULATED, policies, view, True)], some or Workers())[SIMULATED]


def test_it_is_what_really_deciding_says(world: Path, records: Records) -> None:
    found, actual = run(records, world / "other"), bench.records(world / "actual").recorded
    assert actual is not None and records.recorded is not None
    for name in (*OUTPUTS, "reasons"):
        np.testing.assert_array_equal(np.array(getattr(found, name), dtype=object),
                                      np.array(getattr(actual, name), dtype=object), name)  # fmt: skip
    was, now = records.recorded.approved, actual.approved
    assert (was & ~now).sum() > 3 and (now & ~was).sum() > 0  # both ways, or nothing was shown
    assert bench.compare(world, world / "other")["different"] == 0


def test_its_own_policy_changes_nothing(world: Path, records: Records) -> None:
    found = run(records, world / "first")
    assert records.recorded is not None
    for name in (*OUTPUTS, "reasons"):
        assert list(getattr(found, name)) == list(getattr(records.recorded, name)), name


def test_who_comes_first_has_the_last_of_a_funder(past: History, redis_url: str, tmp_path: Path) -> None:
    """Whatever product: served in batches of several, a funder that runs dry lends in the order of the log."""
    policies = bench.variant(ROOT / "policy/products", tmp_path / "policies", bench.FIRST)
    for product in ("consumer", "auto", "small_business"):
        tables = [t for t in read_tables(policies, product) if t["name"] not in ("funders", "authority")]
        dry = table(
            "funders", "collect", ("grade.grade",), FUNDER_COLUMNS, ("| 'trust' | 'joint' | 1 | 200000000 | 0",)
        )
        write(policies, product, chained([*tables, dry]))
    some = replace(past, events=past.events[:EVENTS])
    asyncio.run(bench.decide(redis_url, some, policies, tmp_path / "dry", f"dry-{id(past)}"))
    records = bench.records(tmp_path / "dry")
    cars = write(tmp_path / "cars", "auto", chained(read_tables(policies, "auto")))
    actual = records.recorded
    assert actual is not None
    for found in (run(records, policies), run(records, cars)):  # what was lent of the products that stay counts too
        for name in (*OUTPUTS, "reasons"):
            assert list(getattr(found, name)) == list(getattr(actual, name)), name
    assert {"LIMIT_BY_FUNDERS", "NO_FUNDER"} <= {code for codes in actual.reasons for code in codes}


def test_processes_change_nothing(world: Path, records: Records) -> None:
    alone = run(records, world / "other")
    with workers(2) as some:
        together = run(records, world / "other", some)
    for field in fields(Decided):
        assert list(getattr(alone, field.name)) == list(getattr(together, field.name)), field.name


@pytest.mark.parametrize("name", NAMES)
def test_a_device_changes_nothing(name: str, world: Path, records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(opened(name), "cuda:0")
    monkeypatch.setattr(device, "LEAST", 1)
    monkeypatch.setattr(device, "_place", {"cuda:0": place}.__getitem__)
    runs = [Run(SIMULATED, world / "other", View(records.parts, records.known), True)]
    found, alone = simulate(records, runs, Workers(), device="cuda:0")[SIMULATED], run(records, world / "other")
    for field in fields(Decided):
        assert list(getattr(alone, field.name)) == list(getattr(found, field.name)), field.name
    assert place.device is not None  # it did not fail


def one_by_one(records: Records, policies: Path) -> list[tuple[int, int, int]]:
    """(outcome, amount, exposure) of each, decided alone in order by the rules of exposure as they read."""
    loaded = {p: Policy.load(policies / p, p, part.schema) for part in records.parts for p in part.schema.products}
    place = {row: (part, i) for part in records.parts for i, row in enumerate(part.rows.tolist())}
    open_of: dict[int, list[int]] = {}  # by row, what is left of each share, and of the rest that nobody shares
    shares: dict[int, list[tuple[str, int]]] = {}
    lapsed: set[int] = set()
    reports, found = list(zip(*(getattr(records.reports, f.name).tolist() for f in fields(Reports)), strict=True)), []

    def free(row: int, minor: int) -> None:
        """In proportion to what is left, rounded down; what is over comes from the first that has it."""
        left = sum(open_of[row])
        parts = [each * minor // left if left else 0 for each in open_of[row]]
        for n, each in enumerate(open_of[row]):
            parts[n] += min(minor - sum(parts), each - parts[n])
        open_of[row] = [each - part for each, part in zip(open_of[row], parts, strict=True)]

    for row in range(len(records)):
        while reports and reports[0][0] <= records.as_of[row]:
            _, subject, kind, minor = reports.pop(0)
            if subject not in open_of:
                continue
            left = sum(open_of[subject])
            if OUTCOME_KINDS[kind] in ("not_taken_up", "expired"):
                lapsed |= {subject} if left else set()
                free(subject, left)
            elif OUTCOME_KINDS[kind] == "principal_repaid":
                free(subject, min(minor, left))
            else:
                if OUTCOME_KINDS[kind] == "repaid":
                    free(subject, left)
                elif OUTCOME_KINDS[kind] == "retracted" or subject in lapsed:
                    open_of[subject] = [share for _, share in shares[subject]]
                lapsed -= {subject}
        product = records.products[records.product[row]]
        part, i = place[row]
        exposure = sum(
            sum(minor) for other, minor in open_of.items()
            if records.applicant[other] == records.applicant[row] and place[other][0] is part
        )  # fmt: skip
        lent = {
            name: sum(
                minor for other in open_of
                for (funder, _), minor in zip(shares[other], open_of[other], strict=True) if funder == name
            ) for name in ("bank", "trust")
        }  # fmt: skip
        at = np.array([row])
        known = Known(*(getattr(records.known, f.name)[at] for f in fields(Known)))
        known = replace(known, exposure_minor=np.array([exposure]))
        asked = records.asked.take(at)
        policy = loaded[product]
        values = input_values(part.schema, policy.columns, part.snapshot.take(np.array([i])), asked, known)
        decision = policy.decide(asked, values, lent)[0]
        if amount := decision.approved_amount_minor:
            shares[row] = [(s.offer.funder, s.amount_minor) for s in decision.shares] or [("nobody", amount)]
            open_of[row] = [share for _, share in shares[row]]
        found.append((int(decision.outcome), amount, exposure))
    return found


@pytest.fixture(scope="module")
def crowded(records: Records) -> Records:
    """The same applications as of 60 borrowers, with reports drawn at random."""
    rng = np.random.default_rng(3)
    n, m = len(records), 300
    row = np.sort(rng.integers(0, n, m))
    sequence = records.as_of[row] + 1 + rng.integers(0, 120, m)
    kind = rng.choice(sorted(MOVING), m)
    order = np.argsort(sequence, kind="stable")
    reports = Reports(sequence, row, kind, rng.integers(0, 2_000_000, m)).take(order)
    return replace(records, applicant=rng.integers(1, 61, n).astype(np.uint64), reports=reports)


@pytest.mark.parametrize("funded", [False, True])
def test_exposure_and_funders_develop_as_if_decided_one_by_one(
    funded: bool, crowded: Records, world: Path, tmp_path: Path
) -> None:
    policies = bench.variant(world / "first", tmp_path / "policies", bench.FIRST)
    for product in ("consumer", "auto", "small_business"):
        tables = [t for t in read_tables(policies, product) if t["name"] not in ("funders", "authority")]
        (limit,) = (t["content"] for t in tables if t["name"] == "limit")
        (cap,) = (output["id"] for output in limit["outputs"] if output["field"] == "exposure_max_minor")
        for rule in limit["rules"]:
            rule[cap] = "6000000"
        write(policies, product, chained([*tables, *([FUNDERS] if funded else [])]))
    expected = one_by_one(crowded, policies)
    found = run(crowded, policies)
    seen = list(zip(found.outcome.tolist(), found.approved_amount_minor.tolist(), found.exposure_minor.tolist(),
                    strict=True))  # fmt: skip
    assert seen == expected
    codes = {code for some in found.reasons for code in some}
    assert "LIMIT_BY_EXPOSURE" in codes or "LIMIT_TOO_LOW" in codes
    assert not funded or codes & {"NO_FUNDER", "LIMIT_BY_FUNDERS"}
    with workers(2) as some:
        assert run(crowded, policies, some).approved_amount_minor.tolist() == [amount for _, amount, _ in expected]


def test_a_product_without_a_policy_stays_as_recorded(world: Path, records: Records, tmp_path: Path) -> None:
    only = write(tmp_path, "consumer", chained(read_tables(world / "other", "consumer")))
    found, recorded = run(records, only), records.recorded
    assert recorded is not None and list(check(records, only)) == ["consumer"]
    cars = records.product == records.products.index("auto")
    assert found.outcome[cars].tolist() == recorded.outcome[cars].tolist()
    assert found.outcome[~cars].tolist() != recorded.outcome[~cars].tolist()
    with pytest.raises(SimulationError, match="has no policy of auto, consumer"):
        check(records, tmp_path / "nowhere")
    with pytest.raises(SimulationError, match=r"auto/policy\.json: does not exist, and nothing was recorded"):
        check(replace(records, recorded=None), only)


def test_what_is_in_service_is_simulated(records: Records, tmp_path: Path) -> None:
    """Of a folder with roles the version that they name, in this process and in others, not the working copy."""
    policies = Path(shutil.copytree(ROOT / "policy/products", tmp_path / "policies"))
    schema = next(part.schema for part in records.parts if "consumer" in part.schema.products)
    working = run(records, policies)
    first, _ = versions.publish(policies, policies / "consumer", "consumer", schema, "test", "as shipped")
    dearer = publish.variant(policies / "consumer" / first, tmp_path / "dearer")
    version, _ = versions.publish(policies, dearer, "consumer", schema, "test", "prices up")
    assert check(records, policies)["consumer"].version == version
    with workers(2) as some:
        found = run(records, policies, some)
    mine = (records.product == records.products.index("consumer")) & working.approved & found.approved
    assert mine.sum() > 20 and (found.annual_rate[mine] > working.annual_rate[mine]).all()
    (policies / "consumer" / version / "cases.csv").unlink()
    (policies / "consumer" / version / "policy.json").write_text("{}")
    with pytest.raises(PolicyError, match=version):
        check(records, policies)


def copied(world: Path, tmp_path: Path, change: Sequence[pl.Expr], drop: Sequence[str] = ()) -> Path:
    """The archive with other columns in its decisions."""
    folder = tmp_path / "archive"
    folder.mkdir()
    for file in (world / "decided").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    frame = pl.read_parquet(folder / archive.DECISIONS)
    write_again(folder, archive.DECISIONS, frame.with_columns(change).drop(drop))
    return folder


def test_an_archive_says_what_the_policy_saw(world: Path, records: Records) -> None:
    frame = pl.read_parquet(world / "decided" / archive.DECISIONS)
    assert (frame["asked_amount_minor"] > 0).all() and set(frame["asked_repayment"]) <= set(REPAYMENT_METHODS)
    assert frame["listed"].list.len().unique().to_list() == [3] and frame["exposure_minor"].null_count() == 0
    assert (frame["reasons"].list.len() > 0).all() and frame["lent"].null_count() == 0
    cars = frame.filter(pl.col("product") == "auto")
    assert cars["residual_low"].null_count() < len(cars) and frame["grade"].null_count() == 0
    approved = frame.filter(pl.col("outcome").is_in(["APPROVE", "LIMIT"]))
    assert (approved["approved_amount_minor"] > 0).all() and (approved["annual_rate"] > 0).all()
    assert len(records) == len(frame) and records.left_out == {}
    assert (records.hubs["dealer"] != 0).any() and (records.hubs["officer"] != 0).any()


def test_evidence_of_before_is_left_out_and_an_old_archive_refused(
    world: Path, records: Records, tmp_path: Path
) -> None:
    half = pl.when(pl.col("sequence") % 2 == 0).then(pl.col("asked_amount_minor"))
    some = bench.records(copied(world, tmp_path, [half.alias("asked_amount_minor")]))
    ((why, rows),) = some.left_out.items()
    assert "does not say" in why and rows + len(some) == len(records) and 0 < rows < len(records)
    place = tmp_path / "old"
    place.mkdir()
    with pytest.raises(ArchiveError, match="has no column listed: an older version wrote it; archive the store again"):
        bench.records(copied(world, place, [], ["listed"]))
    place = tmp_path / "none"
    place.mkdir()
    nothing = pl.lit(None, dtype=pl.Int64).alias("asked_amount_minor")
    with pytest.raises(ArchiveError, match=f"none of its {len(records)} decisions can be simulated"):
        bench.records(copied(world, place, [nothing]))
    with pytest.raises(ArchiveError, match="none of its"):
        from_archive(world / "decided", [], {}, False, print)
