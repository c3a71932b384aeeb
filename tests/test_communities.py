"""Communities of a history's graph: the world's rings come first, hubs glue nothing, nobody forgotten is there."""

import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from redis.asyncio import Redis
from typer.testing import CliRunner

from bench import communities as bench
from bench import history, world
from features import export
from features import schema as schemas
from features.archive import ArchiveError
from features.forget import Forgetting
from features.replay import History, replay
from features.schema import SchemaError
from models import communities as module
from models.__main__ import app
from models.communities import Limits, bipartite, communities, scores
from models.linked import Linked, from_archive, from_history, from_table
from server.products import Product
from tests.conftest import ROOT, timeless
from tests.test_engine import TOKENIZER, engine_on, past, run, served
from tests.test_forgotten import people
from tests.test_tables import DOCUMENT, frame

__all__ = ["past", "people", "served"]
DAY = module.DAY_MS


def linked(uses: list[tuple[int, str, float]], bad: dict[int, int] | None = None) -> Linked:
    """Of (applicant, device, day), an application each."""
    devices = {name: i for i, name in enumerate(sorted({device for _, device, _ in uses}), 1)}
    n = len(uses)
    label = np.array([(bad or {}).get(i, 0) for i in range(n)], dtype=np.int8)
    return Linked(
        [str(i) for i in range(n)], np.array([day * DAY for *_, day in uses], dtype=np.int64),
        np.array([who for who, *_ in uses], dtype=np.uint64), label, np.arange(n),
        np.array([devices[device] for _, device, _ in uses], dtype=np.uint64), np.zeros(n, dtype=np.int64), ["device"],
        np.ones(1, dtype=np.bool_),
    )  # fmt: skip


def test_the_worlds_rings_are_found() -> None:
    made, of_product = world.build(3, 8000), history.schemas_by_product()
    whole = from_history(history.history(made.events, [], of_product, TOKENIZER), "fraud")
    figures = bench.judged(whole, communities(whole), made.truth)
    assert figures["found"] / figures["rings"] >= 0.75, figures
    assert figures["precision"] >= 0.8 and figures["recall"] >= 0.7, figures
    assert figures["unlabelled_recall"] >= 0.5, figures  # structure gathers those whom no label tells
    by_kind = figures["by_kind"]
    for kind in ("device_farm", "shared_contacts", "identity_mixing", "collusion"):
        assert by_kind[kind][1] / by_kind[kind][0] >= 0.7, (kind, figures)
    wrong = replace(whole, bad=np.roll(whole.bad, 1))  # labels of others: what the ranking is worth
    assert bench.judged(whole, communities(wrong), made.truth)["precision"] < 0.5


def test_a_hub_glues_nothing() -> None:
    """Two rings of five on devices of their own, all of them and 40 others on a mall's tablet."""
    uses = [(who, f"d{who // 5}", 50 + 0.1 * who) for who in range(10)]
    mall = [(who, "mall", 50 + 0.01 * who) for who in range(50)]
    both = linked([*uses, *mall], {i: 1 for i in range(10)})
    found = communities(both)
    assert [c.rows.tolist() for c in found] == [list(range(5)), list(range(5, 10))]
    glued = communities(both, Limits(applicants_max=50))
    assert max(c.applicants for c in glued) > 10
    assert found[0].shared == {"device": 1} and found[0].density == 1.0 and found[0].applicants == 5
    assert (found[0].known, found[0].bad) == (5, 5) and found[0].lift == pytest.approx(60 / 10)
    assert found[0].days == pytest.approx(0.4)


def test_uses_far_apart_do_not_tie() -> None:
    spread = linked([(who, "d", 10.0 * who) for who in range(6)])
    assert not bipartite(spread, Limits()) and communities(spread) == []
    assert len(bipartite(spread, Limits(gap_days=10))) == 7


def test_a_burst_is_cut_out_of_a_community() -> None:
    """Honest customers of a shop before and after it, one of the ring without a label; two bursts of one device."""
    days = [*np.arange(0, 20, 2.5), 20.1, 20.2, 20.3, 20.4, 20.5, *np.arange(23, 40, 2.5)]
    ring = set(range(8, 13))
    uses = [(who, "shop", float(day)) for who, day in enumerate(days)]
    labels = {**dict.fromkeys(ring, 1), 10: -1}
    found = communities(linked(uses, labels), Limits(applicants_max=100))
    assert set(found[0].rows.tolist()) == ring and found[0].score > module.SCORE_MIN
    assert all(c.score == 0 for c in found[1:]) and len(found) == 2
    assert len({row for c in found for row in c.rows.tolist()}) == sum(len(c.rows) for c in found)


def test_a_burst_at_a_hub_is_found() -> None:
    """An officer ties nobody, but six bad applications within two days stand out among 60."""
    days = [float(day) for day in range(54)] + [30.1, 30.2, 30.3, 31.1, 31.2, 31.3]
    uses = [(who, "officer", day) for who, day in enumerate(days)]
    forged = replace(linked(uses, {who: 1 for who in range(54, 60)}), ties=np.zeros(1, dtype=np.bool_))
    assert not bipartite(forged, Limits(applicants_max=100))
    (found,) = communities(forged)
    assert {*range(54, 60)} <= set(found.rows.tolist()) and len(found.rows) <= 8 and found.bad == 6
    assert communities(replace(forged, bad=np.zeros(60, dtype=np.int8))) == []


def test_the_score_is_kulldorffs() -> None:
    """Against the formula as it reads, of every count."""

    def likelihood(bad: int, known: int) -> float:
        p = bad / known if known else 0.0
        return (bad * np.log(p) if bad else 0.0) + ((known - bad) * np.log(1 - p) if known > bad else 0.0)

    for known in range(8):
        for bad in range(known + 1):
            expected = likelihood(bad, known) + likelihood(10 - bad, 90 - known) - likelihood(10, 90)
            found = float(scores(np.array(bad), np.array(known), 10, 90))
            worse = known > 0 and bad / known > 10 / 90
            assert found == pytest.approx(expected if worse else 0.0)


def test_the_same_seed_gives_the_same_communities(past: History) -> None:
    whole = from_history(past, "fraud")
    one, other = (module.figures(communities(whole, Limits(seed=3))) for _ in range(2))
    assert one == other and len(one) > 5


def test_labels_are_those_of_replay(past: History) -> None:
    for label in ("fraud", "default"):
        whole = from_history(past, label)
        known = dict(zip(whole.ids, whole.bad.tolist(), strict=True))
        for made in replay(past).values():
            assert [known[name] for name in made.application_ids] == made.labels[label].tolist()


async def test_an_archive_without_whom_it_forgets(
    redis: Redis, tenant: str, served: dict[str, Product], past: History, people: list[str], tmp_path: Path
) -> None:
    some = timeless(past.events[:300])
    async with engine_on(redis, tenant, served, past) as (engine, _):
        await run(engine, some, 5)
        await export.write(redis, tenant, tmp_path / "before")
        await engine.forget(TOKENIZER, Forgetting(people[0], "Li"))
        await engine.forget(TOKENIZER, Forgetting(people[1], "Li", "contacts"))
        await export.write(redis, tenant, tmp_path / "after")
    before, after = (from_archive(tmp_path / name, "fraud") for name in ("before", "after"))
    expected = from_history(History(some), "fraud")
    np.testing.assert_array_equal(before.token, expected.token)
    np.testing.assert_array_equal(before.bad, expected.bad)
    tied = [name for name, ties in zip(before.kinds, before.ties, strict=True) if ties]
    assert tied == ["address", "card", "company", "company_address", "contact", "device", "phone", "vehicle"]
    assert {*before.kinds} - {*tied} == {"ip", "employer", "dealer", "officer"} and before.kinds == expected.kinds
    gone, withdrew = (np.uint64(TOKENIZER.token("applicant", name)) for name in people[:2])
    assert gone in before.applicant and gone not in after.applicant
    mine = np.flatnonzero(after.applicant == withdrew)
    assert len(mine) and not (after.kind[np.isin(after.row, mine)] == after.kinds.index("contact")).any()
    done = CliRunner().invoke(app, ["communities", "--archive", str(tmp_path / "after"), "--top", "3"])
    assert done.exit_code == 0 and "communities of" in done.output


def test_the_command_on_a_table(tmp_path: Path) -> None:
    shared = {"entities": {"applicant": {}, "phone": {"link": True}}, "labels": DOCUMENT["labels"]}
    read = {**DOCUMENT["table"], "entities": {"applicant": "who", "phone": "phone"}}  # type: ignore[dict-item]
    document = {**DOCUMENT, **shared, "table": read}
    (tmp_path / "cards.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    rows = frame(600, 1).with_columns(
        who=pl.int_range(600).cast(pl.String), phone=(pl.int_range(600) // 5).cast(pl.String)
    )
    rows.write_parquet(tmp_path / "t.parquet")
    asked = ["communities", "--data", str(tmp_path / "t.parquet"), "--schema", str(tmp_path / "cards.yaml"),
             "--label", "default"]  # fmt: skip
    places = ["--out", str(tmp_path / "rings.parquet"), "--members", str(tmp_path / "members.csv")]
    done = CliRunner().invoke(app, [*asked, *places])
    assert done.exit_code == 0, done.output
    rings, members = pl.read_parquet(tmp_path / "rings.parquet"), pl.read_csv(tmp_path / "members.csv")
    assert rings.columns == list(module.FIGURES) and rings["community"].to_list() == list(range(1, len(rings) + 1))
    assert rings["applications"].sum() == len(members) > 500 and rings["applicants"].max() == 5
    assert set(members["application"].cast(pl.String)) <= set(frame(600, 1)["customer"].cast(pl.String))
    for wrong, reason in (
        (asked[:3], "either --archive, or --data and --schema"),
        ([*asked, "--out", "rings.txt"], "must end in .csv or .parquet"),
    ):
        refused = CliRunner().invoke(app, wrong)
        assert refused.exit_code == 2 and reason in refused.output.replace("\n", " ")
    refused = CliRunner().invoke(app, [*asked[:5], "--label", "theft"])
    assert isinstance(refused.exception, ArchiveError) and "--label: must be fraud or default" in str(refused.exception)


def test_a_label_that_the_schema_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="has no label default"):
        from_table(schemas.load(ROOT / "features/schemas/sffsd.yaml"), tmp_path / "t.parquet", "default")


def test_a_gpu_that_fails_leaves_it_to_the_cpu(past: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """networkx is asked for a backend that is not there: as if nx-cugraph could not be loaded."""
    whole, warned = from_history(past, "fraud"), list[str]()
    expected = module.figures(communities(whole))
    monkeypatch.setattr(module, "backend", lambda: "cugraph")
    if find_spec("nx_cugraph") is not None:
        pytest.skip("nx-cugraph is installed: it did NOT fail")
    assert module.figures(communities(whole, warn=warned.append)) == expected
    assert len(warned) == 1 and warned[0].startswith("nx-cugraph failed, the CPU goes on: ImportError")


def test_nothing_that_serves_loads_networkx() -> None:
    code = "import sys, server.__main__, models.__main__, policy.__main__; print('networkx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"
