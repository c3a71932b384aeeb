"""Serving sees what training saw: a table's rows as requests on the wire, through a real store and the graph in
batches, give the snapshot of the offline replay bit for bit, on every shipped schema. What scores both is one function
(test_scorer: bit for bit in any batch). The world's schemas go through the whole engine in test_engine.
"""

import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from redis.asyncio import Redis

from bench import superlender
from bench.replay import decide_request, report_request
from features import schema as schemas
from features import table
from features.application import Snapshot
from features.assemble import assemble
from features.graph import EntityGraph
from features.replay import replay
from features.schema import SLOTS_MAX, Schema
from features.store import Store
from proto.miaopi.v1 import decision_pb2 as pb
from server import wire
from tests.conftest import ROOT, SHARED_DATA, TOKENIZER
from tests.test_table import REAL
from tests.test_table import written as card_table
from tests.test_tables import DOCUMENT, frame

SCHEMAS = ROOT / "features/schemas"
WORLDS = {"consumer", "auto", "small_business"}  # see test_engine
ROWS, DELAY = 300, 40


async def served(schema: Schema, store: Store, rows: list[table.TableRow]) -> Snapshot:
    """What the models would be given while serving: batches of 1 to 30, outcomes as they become known."""
    graph, chance, parts = EntityGraph(), random.Random(3), []
    ordered = list(table.in_log_order(rows, DELAY))
    while ordered:
        batch = [ordered.pop(0)]
        while ordered and batch[-1][1] is None and len(batch) < chance.randint(1, 30):
            batch.append(ordered.pop(0))
        requests = [decide_request(schema, row).SerializeToString() for row, _ in batch]
        asked = [wire.application(pb.DecideRequest.FromString(r), schema, TOKENIZER, True) for r in requests]
        started = await store.begin(asked)
        own = np.array([begun.sequence for begun in started.begun])
        links = np.zeros((len(own), SLOTS_MAX), dtype=np.bool_)
        links[:] = schema.link_slots
        view = graph.observe(started.events, own, links)
        parts.append(assemble(schema, asked, started.profiles[schema.name], view, np.arange(len(own))))
        row, due = batch[-1]
        for kind in due.outcome_kinds if due else ():
            assert due is not None
            report = wire.report(report_request(due, kind, row.event_time_ms), True)
            assert (await store.report([(report, schema)]))[0][0] == "NEW"
    return Snapshot.join(parts)


async def assert_parity(schema: Schema, data: Path, redis: Redis, tenant: str) -> None:
    rows = table.read(schema, data)
    store = Store(redis, tenant, TOKENIZER, [schema])
    await store.open()
    serving = await served(schema, store, rows)
    history = table.history(schema, TOKENIZER, list(table.in_log_order(rows, DELAY)))
    offline = replay(history)[schema.name].snapshot
    assert len(serving) == len(rows) > 100
    for name in Snapshot.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(serving, name), getattr(offline, name), err_msg=name)
    if schema.slots > 1:
        assert serving.neighbor_mask.any()


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="../shared/data is not here: real tables are not tested")
@pytest.mark.parametrize("name", sorted({f.stem for f in SCHEMAS.glob("*.yaml")} - WORLDS))
async def test_every_shipped_schema(name: str, redis: Redis, tenant: str, tmp_path: Path) -> None:
    files = {**{schema: file for schema, (file, _) in REAL.items()}, "sffsd": "sffsd_dev_first60"}
    schema, data = schemas.load(SCHEMAS / f"{name}.yaml"), tmp_path / "rows.parquet"
    whole = (
        superlender.joined(SHARED_DATA)
        if name == "superlender"
        else pl.read_parquet(SHARED_DATA / f"{files[name]}.parquet")
    )
    spec = schema.table
    assert spec is not None
    bad, good = table.bad_and_good(whole[next(iter(spec.labels.values())).column], next(iter(spec.labels.values())))
    some = pl.concat([whole.filter(bad)[: ROWS // 3], whole.filter(good)[: ROWS - ROWS // 3]])
    some.write_parquet(data)
    await assert_parity(schema, data, redis, tenant)


async def test_made_up_tables(redis: Redis, tenant: str, tmp_path: Path) -> None:
    """Also where the public tables are missing: cards with entities, and missing codes and categories without."""
    await assert_parity(schemas.load(SCHEMAS / "sffsd.yaml"), card_table(tmp_path, ROWS), redis, tenant)
    (tmp_path / "cards.yaml").write_text(yaml.safe_dump(DOCUMENT), encoding="utf-8")
    frame(ROWS, 5).with_columns(home=pl.lit("own")).write_parquet(tmp_path / "cards.parquet")
    await assert_parity(schemas.load(tmp_path / "cards.yaml"), tmp_path / "cards.parquet", redis, f"{tenant}-b")
