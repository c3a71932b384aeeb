"""Bulk loading: profiles from Parquet by the command line, history through the serving verbs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from features.application import Report
from features.load import load_history
from features.replay import History
from features.schema import Schema
from features.store import Store, StoreError
from tests.conftest import ROOT, application, profiles_of

BUREAU = ("overdue_24m", "inquiries_3m", "open_loans", "utilisation", "history_months", "monthly_payment")
SECRET = "a secret of tests"  # conftest's TOKENIZER has it


def load(path: Path, redis_url: str, tenant: str, source: str = "bureau") -> subprocess.CompletedProcess[str]:
    """Run `python -m features load`."""
    return subprocess.run(
        [sys.executable, "-m", "features", "load", "--schema", "features/schemas/consumer.yaml", "--source", source,
         "--data", str(path), "--tenant", tenant],
        env=os.environ | {"REDIS_URL": redis_url, "MIAOPI_TOKEN_SECRETS": json.dumps({tenant: SECRET})},
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def bureau(rows: int, **changes: object) -> pl.DataFrame:
    columns: dict[str, object] = {f"bureau_{name}": [0.5] * rows for name in BUREAU}
    columns |= {"subject_id": [f"applicant of a{i}" for i in range(rows)], "fetched_at_ms": [5] * rows}
    return pl.DataFrame(columns | changes)


async def test_profiles_from_parquet(
    tmp_path: Path, redis_url: str, tenant: str, store: Store, consumer: Schema
) -> None:
    bureau(700, bureau_open_loans=[None] + [2.0] * 699).write_parquet(tmp_path / "bureau.parquet")
    ended = load(tmp_path / "bureau.parquet", redis_url, tenant)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "700 read, 700 stored, 0 older than what was there"
    started = await store.begin([application(consumer, "a0"), application(consumer, "a699")])
    first, last = (profiles_of(consumer, started.profiles[consumer.name], row)["bureau"] for row in (0, 1))
    assert first.fetched_at_ms == 5 and str(first.numbers[2]) == "nan" and last.numbers[2] == 2.0


@pytest.mark.parametrize(
    ("changes", "source", "said"),
    [
        ({"bureau_utilisation": [0.5, 99.0]}, "bureau", "row 1: bureau_utilisation: must be from 0 to 5"),
        ({"subject_id": ["x", None]}, "bureau", "row 1: subject_id: is missing"),
        ({f"bureau_{n}": [1.0, None] for n in BUREAU}, "bureau", "row 1: features: is empty"),
        ({}, "gossip", "no source gossip"),
        ({}, "tax", "no column tax_income"),
    ],
)
async def test_bad_profiles_store_nothing(
    tmp_path: Path, redis_url: str, tenant: str, store: Store, consumer: Schema,
    changes: dict[str, object], source: str, said: str,
) -> None:  # fmt: skip
    bureau(2, **changes).write_parquet(tmp_path / "bureau.parquet")
    ended = load(tmp_path / "bureau.parquet", redis_url, tenant, source)
    assert ended.returncode == 2 and said in ended.stderr
    started = await store.begin([application(consumer, "a0")])
    assert not started.profiles[consumer.name].fetched_at_ms.any()


async def test_history_in_order(store: Store, consumer: Schema) -> None:
    first, second = (application(consumer, f"a{i}", event_time_ms=1_000 * (i + 1)) for i in range(2))
    report = Report("o", "a0", "repaid", 1_500)
    done: list[int] = []
    await load_history(store, History([first, report, second]), done.append)
    assert done == [1, 1, 1] and await store.position() == 3
    with pytest.raises(StoreError, match="a2: PAST"):
        await load_history(store, History([first._replace(application_id="a2")]))
    with pytest.raises(StoreError, match="a0: PENDING"):
        await load_history(store, History([first]))
