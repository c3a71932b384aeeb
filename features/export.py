"""Writes a tenant's archive from its store, which may be serving (features.archive says what is in it; R14, R23).

One consistent cut: all that an archived decision saw is in the archived log. Pages of the store bound the memory; the
folder appears whole or not at all. The store holds tokens only, and so does the archive (R21). What was decided is read
from evidence.Facts, since the stored reply is the wire's.
"""

import json
import struct
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from redis.asyncio import Redis
from redis.exceptions import RedisError

from features import evidence
from features.archive import DECISION_COLUMNS, DECISIONS, EVENT_COLUMNS, EVENTS, FORMAT, MANIFEST, ArchiveError, digest
from features.challenged import challengers_said
from features.durability import StoreError
from features.events import EventFormatError, unpack
from features.log import PAGE, position, prefix, rewritten
from features.reservations import Reservation

# What the policy saw beside the row, and what it said; null where evidence of before did not say. One decision a row.
ASKED = "asked_"
POLICY_COLUMNS: dict[str, Any] = {
    f"{ASKED}amount_minor": pl.Int64, f"{ASKED}term_months": pl.Int64, f"{ASKED}repayment": pl.String,
    f"{ASKED}upfront_fee_minor": pl.Int64, f"{ASKED}monthly_fee_minor": pl.Int64,
    f"{ASKED}human_review_requested": pl.Int64, "exposure_minor": pl.Int64,
    "lent": pl.List(pl.Struct({"funder": pl.String, "amount_minor": pl.Int64})), "residual_low": pl.Float64,
    "listed": pl.List(pl.Int64), "approved_amount_minor": pl.Int64, "annual_rate": pl.Float64, "grade": pl.String,
    "reasons": pl.List(pl.String), "shares": pl.List(pl.Struct({"funder": pl.String, "amount_minor": pl.Int64})),
    "resolved_as_of": pl.Int64, "resolved_amount_minor": pl.Int64,
}  # fmt: skip
_COLUMNS = DECISION_COLUMNS | POLICY_COLUMNS
ROWS_ASKED = 256  # applications asked for in one round trip: a live server waits for no more


async def write(redis: Redis, tenant: str, out: Path) -> dict[str, Any]:
    """Write a tenant's archive into the new folder `out`; its manifest. Raises ArchiveError, StoreError."""
    if out.exists():
        raise ArchiveError(f"{out}: exists")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as beside:
        new = Path(beside) / "new"
        new.mkdir()
        try:
            manifest = await _fill(redis, tenant, new)
        except RedisError as error:
            raise StoreError(str(error)) from error
        new.rename(out)
    return manifest


async def _fill(redis: Redis, tenant: str, folder: Path) -> dict[str, Any]:
    """Decisions up to the last one of now first, then the log: it holds at least what these saw."""
    keys = prefix(tenant)
    newest: Any = await redis.xrevrange(f"{keys}decisions", count=1)
    epoch, last = await position(redis, f"{keys}meta")
    if not epoch:
        raise ArchiveError(f"tenant {tenant} has no log")
    before = await rewritten(redis, f"{keys}meta")
    await _sink(folder / EVENTS, EVENT_COLUMNS, _events(redis, f"{keys}log", last))
    until = newest[0][0] if newest else b"0-0"
    decisions = await _sink(folder / DECISIONS, _COLUMNS, _decisions(redis, f"{keys}decisions", until, epoch, last))
    if (await position(redis, f"{keys}meta"))[0] != epoch or await rewritten(redis, f"{keys}meta") != before:
        raise ArchiveError("the log was started anew or changed meanwhile; archive it again")
    documents: Any = await redis.hgetall(f"{keys}schemas")
    manifest = {
        "format": FORMAT, "tenant": tenant, "epoch": epoch, "sequence": last, "decisions": decisions,
        "schemas": {name.decode(): json.loads(text) for name, text in sorted(documents.items())},
        "files": {name: digest(folder / name) for name in (EVENTS, DECISIONS)},
    }  # fmt: skip
    (folder / MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return manifest


async def _sink(file: Path, columns: Mapping[str, Any], frames: AsyncIterator[pl.DataFrame]) -> int:
    """Join frames in one Parquet file, of which no more than a frame is in memory; how many rows there are."""
    with tempfile.TemporaryDirectory(dir=file.parent.parent) as pages:
        parts, rows = [Path(pages) / "0"], 0
        pl.DataFrame(schema=columns).write_parquet(parts[0])
        async for frame in frames:
            parts.append(Path(pages) / str(len(parts)))
            frame.write_parquet(parts[-1])
            rows += len(frame)
        pl.scan_parquet(parts).sink_parquet(file, row_group_size=PAGE)
    return rows


async def _events(redis: Redis, key: str, last: int) -> AsyncIterator[pl.DataFrame]:
    """Pages of the log up to the event numbered `last`, without a gap."""
    cursor, read = "-", 0
    while read < last:
        page: Any = await redis.xrange(key, cursor, "+", min(PAGE, last - read))
        times = [int(entry_id.split(b"-")[0]) for entry_id, _ in page]
        blobs = [fields[b"e"] for _, fields in page]
        try:
            found = unpack(blobs, times).fields["sequence"]
        except EventFormatError as error:
            raise ArchiveError(f"after event {read}: {error}") from None
        if not len(found) or not np.array_equal(found, np.arange(read + 1, read + 1 + len(found))):
            raise ArchiveError(f"the log has no event {read + 1}, or lost events meanwhile; archive it again")
        cursor, read = f"({page[-1][0].decode()}", int(found[-1])
        yield pl.DataFrame({"sequence": found, "time_ms": times, "event": blobs}, schema=EVENT_COLUMNS)


async def _decisions(redis: Redis, key: str, until: bytes, epoch: str, last: int) -> AsyncIterator[pl.DataFrame]:
    """Pages of the decisions up to the entry `until` of their stream, with what people said of them up to `last`."""
    cursor = "-"
    while True:
        page: Any = await redis.xrange(key, cursor, until.decode(), PAGE)
        if not page:
            return
        names = [fields[b"k"] for _, fields in page]
        rows = []
        for start in range(0, len(names), ROWS_ASKED):
            asked, pipeline = names[start : start + ROWS_ASKED], redis.pipeline(transaction=False)
            for name in asked:
                pipeline.hgetall(name)
            rows += [_decision(*found, epoch, last) for found in zip(asked, await pipeline.execute(), strict=True)]
        cursor = f"({page[-1][0].decode()}"
        yield pl.DataFrame(rows, schema=_COLUMNS)


def _decision(name: bytes, fields: Mapping[bytes, bytes], epoch: str, last: int) -> dict[str, Any]:
    """The row of one application's hash."""
    if b"e" not in fields:
        raise ArchiveError(f"{name.decode()}: its decision has no evidence")
    try:
        facts, features = evidence.unpack(fields[b"e"])
    except (struct.error, TypeError, ValueError) as error:
        raise ArchiveError(f"{name.decode()}: its evidence cannot be read: {error}") from None
    if facts.epoch != epoch:
        raise ArchiveError(f"{name.decode()}: was decided on the log of epoch {facts.epoch}, this is {epoch}")
    try:
        said = challengers_said(fields)
    except StoreError as error:
        raise ArchiveError(f"{name.decode()}: {error}") from None
    challengers = [
        {"version": version, "fraud": evidence.known(fraud), "default": evidence.known(default)}
        for version, (fraud, default) in said.items()
    ]
    known = facts._asdict() | {f"{ASKED}{name}": value for name, value in (facts.asked or {}).items()}
    return {column: known.get(column) for column in _COLUMNS} | _taken(fields, last) | {
        "lent": None if facts.lent is None else _by_funder(facts.lent.items()),
        "product": fields[b"p"].decode(), "features": features, "challengers": challengers,
        "profiles": [{"source": s, "fetched_at_ms": ms} for s, ms in facts.profiles.items()],
    }  # fmt: skip


def _taken(fields: Mapping[bytes, bytes], last: int) -> dict[str, Any]:
    """Who lends what was approved, by the decision or by a person, and when and what a person decided, up to `last`."""
    reserved = Reservation.unpack(fields[b"r"]) if b"r" in fields else None
    shares = None if reserved is None else _by_funder((funder, minor) for funder, minor, _ in reserved.shares)
    if b"v" not in fields:
        return {"shares": shares}
    as_of = int(fields[b"vs"]) if b"vs" in fields else None  # nobody kept it before
    if as_of is not None and as_of > last:
        return {}
    amount = 0 if reserved is None else reserved.amount_minor
    return {"shares": shares, "resolved_as_of": as_of, "resolved_amount_minor": amount}


def _by_funder(amounts: Iterable[tuple[str, int]]) -> list[dict[str, str | int]]:
    return [{"funder": funder, "amount_minor": minor} for funder, minor in amounts]
