"""Histories walked and scored on a device say what they say on the CPU, bit for bit; one that fails costs none."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis.asyncio import Redis
from typer.testing import CliRunner

from bench.gpu_streams import batches, random_log
from bench.gpu_trees import demo_bundles
from features import export, place, table
from features.application import Application
from features.archive import rows
from features.events import APPLICATION, Events
from features.forget import Forgetting
from features.neighborhood import Neighborhood
from features.place import HERE, Graph, Place, PlaceError
from features.replay import History, Rows, replay
from features.schema import SLOTS_MAX, Schema
from features.store import Store
from gpu_kernels import device
from gpu_kernels.device import Cuda, Launch, NoDeviceError
from models.__main__ import app
from models.tables import replayed
from policy import bundles
from policy.__main__ import app as policy_app
from policy.archived import from_archive
from policy.dataset import from_table
from policy.records import Records
from policy.scoring import Scored, known_by, outdated
from policy.workers import Workers
from server.products import Product
from tests.conftest import ROOT, demo_bundle, timeless
from tests.cuda_shim import Shim
from tests.gpu_devices import NAMES, networks_by_onnx, opened
from tests.test_archive import assert_same
from tests.test_engine import TOKENIZER, decide, engine_on, past, run, served
from tests.test_forgotten import people
from tests.test_tables import frame, schema

__all__ = ["networks_by_onnx", "past", "people", "schema", "served"]
pytestmark = pytest.mark.usefixtures("networks_by_onnx")
VIEW = ("entity_state", "graph_state", "neighbor_state", "neighbor_mask", "as_of", "time_ms")


def placed(name: str, warn: Callable[[str], None] = lambda message: pytest.fail(message)) -> Place:
    return Place(opened(name), "cpu", warn)


def shown(view: Neighborhood) -> dict[str, Any]:
    return {name: getattr(view, name) for name in VIEW}


class Failing(Shim):
    """Gives up after so many launches of a kernel, or as kernels are compiled."""

    def __init__(self, kernel: str, after: int, error: Exception | None = None) -> None:
        super().__init__()
        self.kernel, self.left, self.error = kernel, after, error or RuntimeError("cudaErrorIllegalAddress")

    def kernels(self, source: Path) -> Launch:
        if self.kernel == "":
            raise self.error
        launch = super().kernels(source)

        def some(kernel: str, threads: int, first: int, second: int) -> None:
            self.left -= kernel == self.kernel
            if self.left < 0:
                raise self.error
            launch(kernel, threads, first, second)

        return some


def identical(found: Rows, expected: Rows) -> None:
    assert_same(found, expected)
    assert (found.application_ids, found.ended_ms) == (expected.application_ids, expected.ended_ms)


@pytest.mark.parametrize("chunk", [113, 16_384])
@pytest.mark.parametrize("name", NAMES)
def test_a_world_replays_to_the_same_rows(
    name: str, chunk: int, past: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "DEVICE_CHUNK", chunk)
    some = replace(past, events=past.events if chunk > 1000 else past.events[:700])
    told: list[int] = []
    found, expected = replay(some, told.append, placed(name)), replay(some)
    assert found.keys() == expected.keys() and len(found) == 3 and sum(told) == len(some.events)
    for schema_name, made in expected.items():
        identical(found[schema_name], made)
        assert made.snapshot.neighbor_mask.any()
    known = np.concatenate([made.labels["default"] for made in expected.values()])
    assert np.unique(known).tolist() == [-1, 0, 1]


@pytest.mark.parametrize("name", NAMES)
def test_a_table_is_read_the_same(name: str, schema: Schema, tmp_path: Path) -> None:
    """Labels that become known ten rows later, by both readers of a table."""
    frame(300, 5).write_parquet(tmp_path / "t.parquet")
    found = table.read(schema, tmp_path / "t.parquet")
    for settled in (False, True):
        there, here = (replayed(schema, found, 10, settled=settled, place=on) for on in (placed(name), HERE))
        identical(there, here)
        assert (here.labels["default"][-9:] < 0).all() != settled
    read = [from_table(schema, tmp_path / "t.parquet", 10, 100, 12, print, on) for on in (placed(name), HERE)]
    np.testing.assert_array_equal(read[0].parts[0].snapshot.features, read[1].parts[0].snapshot.features)
    np.testing.assert_array_equal(read[0].bad, read[1].bad)


@pytest.mark.parametrize("name", NAMES)
def test_random_logs_with_what_they_forget(name: str) -> None:
    """Views, reviews and labels of a walk; labels are asked of applications that are forgotten, too."""
    seen = 0
    for seed in range(60):
        log = random_log(np.random.default_rng(seed), 120, 6, forgets=0.05)
        asked = log.fields["sequence"][log.fields["kind"] == APPLICATION]

        def walk(
            graph: Graph, chunk: int, log: Any = log, asked: Any = asked, seed: int = seed
        ) -> list[dict[str, Any]]:
            rng, found = np.random.default_rng(seed), []
            for part, own, links in batches(rng, log, 50):
                found.append(shown(graph.observe(part, own, links)))
                again = rng.choice(own, min(3, len(own))) if len(own) else own
                found.append(shown(graph.review(again, rng.random((len(again), SLOTS_MAX)) < 0.5)))
            assert (graph.sequence, graph.last_ms) == (len(log), log.time_ms[-1])
            return [*found, graph.labels(asked)]

        for one, other in zip(placed(name).walked(walk), HERE.walked(walk), strict=True):
            assert one.keys() == other.keys()
            for array, expected in other.items():
                if array == "hops":  # which nobody asked for
                    assert one[array] is expected is None
                    continue
                assert one[array].dtype == expected.dtype
                np.testing.assert_array_equal(one[array], expected)
                seen += expected.size
    assert seen > 100_000


@pytest.mark.parametrize("name", NAMES)
def test_a_whole_stretch_at_once(name: str) -> None:
    """As many events as a device is given in one call, a hub of thousands of uses among their entities."""
    log = random_log(np.random.default_rng(4), place.DEVICE_CHUNK + 500, 3000, forgets=0.0002)
    log.fields["tokens"][(log.fields["kind"] == APPLICATION) & (log.fields["sequence"] % 3 == 0), 7] = 1 << 50
    applied = log.fields["kind"] == APPLICATION
    links = np.ones((int(applied.sum()), SLOTS_MAX), dtype=np.bool_)

    def walk(graph: Graph, chunk: int) -> tuple[list[Any], Any]:
        found, seen = [], 0
        for start in range(0, len(log), chunk):
            part = Events(log.fields[start : start + chunk], log.time_ms[start : start + chunk])
            own = np.ascontiguousarray(part.fields["sequence"][part.fields["kind"] == APPLICATION])
            found.append(shown(graph.observe(part, own, links[seen : seen + len(own)])))
            seen += len(own)
        return [np.concatenate([some[name] for some in found]) for name in VIEW], graph.labels(
            log.fields["sequence"][applied]
        )

    (there, labels), (here, expected) = placed(name).walked(walk), HERE.walked(walk)
    for one, other in zip(there, here, strict=True):
        np.testing.assert_array_equal(one, other)
    for label, known in expected.items():
        np.testing.assert_array_equal(labels[label], known)


@pytest.mark.parametrize("name", NAMES)
async def test_an_archive_of_forgotten_applicants_and_retries(
    name: str, redis: Redis, tenant: str, served: dict[str, Product], past: History, people: list[str], tmp_path: Path
) -> None:
    """Whom the log forgets, what stood on a consent, and decisions taken after a crash; then the records of a
    simulation, whose labels, tokens and reports come of the same walk."""
    opened(name)
    events = timeless(past.events[:400])
    applications = [e for e in events if isinstance(e, Application)]
    lost = applications[20:23]
    others = [e for e in events if e.application_id not in {a.application_id for a in lost}]
    async with engine_on(redis, tenant, served, past) as (engine, _):
        await run(engine, others[:60], 5)
        crashed = Store(redis, tenant, TOKENIZER, [p.schema for p in served.values()])
        await crashed.open()
        await crashed.begin(lost)
        await run(engine, others[60:200], 5)
        for asked in (
            Forgetting(people[0], "Li"),
            Forgetting(people[1], "Li", "contacts"),
            Forgetting(people[2], "Li"),
        ):
            await engine.forget(TOKENIZER, asked)
        await decide(engine, lost)
        await run(engine, others[200:], 5)
        await export.write(redis, tenant, tmp_path / "archive")
    left_out = 0
    for loaded in {p.schema.name: p.schema for p in served.values()}.values():
        told: list[list[str]] = [[], []]
        found = rows(tmp_path / "archive", loaded, warn=told[0].append, place=placed(name))
        identical(found, rows(tmp_path / "archive", loaded, warn=told[1].append))
        assert told[0] == told[1]
        left_out += len(told[0])
    assert left_out >= 2
    read = [p.schema for p in served.values()]
    versions = dict.fromkeys(("consumer", "auto", "small_business"), "another")
    there, here = (from_archive(tmp_path / "archive", read, versions, True, print, on) for on in (placed(name), HERE))
    same_records(there, here)
    assert len(here.reports.row) + (here.bad >= 0).sum() > 20
    scored_anew(there, name)


def same_records(found: Records, expected: Records) -> None:
    for array in ("applicant", "bad", "as_of"):
        np.testing.assert_array_equal(getattr(found, array), getattr(expected, array))
    for field in fields(expected.reports):
        np.testing.assert_array_equal(getattr(found.reports, field.name), getattr(expected.reports, field.name))
    for part, other in zip(found.parts, expected.parts, strict=True):
        np.testing.assert_array_equal(part.rows, other.rows)
        for array in ("features", "neighbor_state", "neighbor_mask", "source_state"):
            np.testing.assert_array_equal(getattr(part.snapshot, array), getattr(other.snapshot, array))


def scored_anew(records: Records, name: str) -> None:
    """A bundle on a device says of the records what it says on the CPU, also where there are processes to share."""

    class Refusing(Workers):
        def run(self, *asked: Any) -> Any:
            raise AssertionError("a device is not shared")

    folders = [demo_bundle(n) for n in ("consumer", "auto", "small_business")]
    known = []
    for on, some in ((placed(name), Refusing()), (HERE, Workers())):
        scores = bundles.by_schema(folders, on)
        tasks = [replace(task, score=scores[task.score.schema.name]) for task in outdated(records, OTHERS)]  # type: ignore[attr-defined]
        known.append(known_by(records.known, tasks, some))
        assert sum(len(task.rows) for task in tasks) == len(records) > 100
    for field in fields(Scored):
        np.testing.assert_array_equal(getattr(known[0], field.name), getattr(known[1], field.name))
        assert (~np.isnan(getattr(known[1], field.name))).any()


OTHERS = {b.schema.name: bundles.BundleScore(Path(), "another", b.schema) for b in demo_bundles()}


@pytest.mark.parametrize(
    "kernel, error",
    [("use", None), ("use", MemoryError("out of memory")), ("", ImportError("libnvrtc")), ("outcomes", None)],
)
def test_a_device_that_fails_leaves_it_to_the_cpu(kernel: str, error: Exception | None, past: History) -> None:
    some = replace(past, events=past.events[:500])
    warned, told = list[str](), list[int]()
    on = Place(Failing(kernel, 1, error), "cuda:0", warned.append)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(place, "DEVICE_CHUNK", 200)
        found = replay(some, told.append, on)
    for name, made in replay(some).items():
        identical(found[name], made)
    assert sum(told) == 500 and on.device is None
    (message,) = warned
    assert message.startswith("cuda:0 failed, the CPU goes on: ")


def test_what_is_wrong_with_a_history_is_no_failure_of_the_device(past: History) -> None:
    report = next(event for event in past.events if not isinstance(event, Application))
    with pytest.raises(KeyError):
        replay(History([report]), place=placed("shim"))


def test_which_device_may_be_asked_for() -> None:
    for wrong in ("gpu", "cuda:", "cuda:x", ""):
        with pytest.raises(PlaceError, match=r"--device: .* is not auto, cpu or cuda:N"):
            Place.of(wrong, print)
    assert Place.of("cpu", print).device is None
    with pytest.raises(PlaceError, match="--device cuda:99: "):
        Place.of("cuda:99", print)
    try:
        Cuda()
    except NoDeviceError:
        assert Place.of("auto", pytest.fail).device is None
    else:
        assert Place.of("auto", print).choice == "cuda:0"


@pytest.mark.parametrize("error", [RuntimeError("cudaErrorDevicesUnavailable"), MemoryError("no memory left")])
def test_a_device_that_cannot_be_opened_is_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Another process holds it, or all of its memory: CuPy says so when it is opened, and has seen it before."""

    def refused(index: int) -> Cuda:
        raise error

    monkeypatch.setattr(device, "Cuda", refused)
    warned: list[str] = []
    assert Place.of("auto", warned.append).device is None
    assert warned == [f"cuda:0 cannot be opened, the CPU goes on: {type(error).__name__}: {error}"]
    with pytest.raises(PlaceError, match=f"--device cuda:0: {error}"):
        Place.of("cuda:0", warned.append)


def test_commands_refuse_what_is_not_there(tmp_path: Path) -> None:
    frame(50, 3).write_parquet(tmp_path / "t.parquet")
    schema_file, data = str(ROOT / "features/schemas/sffsd.yaml"), str(tmp_path / "t.parquet")
    for command in (
        ["train", "--schema", schema_file, "--data", data, "--out", str(tmp_path / "out")],
        ["score", "--bundle", str(demo_bundle("consumer")), "--data", data, "--out", str(tmp_path / "s.csv")],
        ["evaluate", "--bundle", str(demo_bundle("consumer")), "--schema",
         str(ROOT / "features/schemas/consumer.yaml"), "--data", data],
    ):  # fmt: skip
        done = CliRunner().invoke(app, [*command, "--device", "cuda:99"])
        assert isinstance(done.exception, PlaceError), done.output
    asked = ["simulate", "--data", data, "--schema", schema_file, "--out", str(tmp_path / "s"), "--device", "cuda:99"]
    done = CliRunner().invoke(policy_app, asked)
    assert done.exit_code == 2 and "--device cuda:99: " in done.output


@pytest.mark.parametrize(("asked", "index"), [("cuda", 0), ("cuda:1", 1), ("auto", 0)])
def test_which_device_is_opened(asked: str, index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpu_kernels.device.Cuda", lambda number: Shim(number))
    assert Place.of(asked, pytest.fail).choice == f"cuda:{index}"
