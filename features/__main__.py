"""`python -m features`: load profiles, archive a log, keep lists, unlink the forgotten, write graph snapshots."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer
from redis.asyncio import Redis
from rich.progress import Progress

from features import export, list_commands
from features import schema as schemas
from features.application import InvalidFieldError, Profile, feature_entry, make_profile, subject_token
from features.archive import ArchiveError
from features.graph import SequenceGapError
from features.graph_snapshot import folder_of
from features.load import load_profiles
from features.schema import Schema, SchemaError
from features.snapshot_writer import SnapshotWriter, keep_writing
from features.specs import MISSING_CODE
from features.store import Store, StoreError
from features.tokens import Tokenizer
from features.unlink import Unlinked
from features.unlink import unlink as unlink_log

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
app.add_typer(list_commands.app, name="lists")


@app.callback()
def _root() -> None:
    """Features: schemas, profiles, the entity graph."""


@app.command()
def load(
    schema: Annotated[Path, typer.Option(help="schema YAML that declares the source")],
    source: Annotated[str, typer.Option(help="which source")],
    data: Annotated[Path, typer.Option(help="Parquet: subject_id, fetched_at_ms, and the source's features")],
    tenant: Annotated[str, typer.Option(help="the lender")],
) -> None:
    """Load profiles; REDIS_URL, MIAOPI_TOKEN_SECRETS and MIAOPI_PROFILE_DAYS come from the environment."""
    try:
        asyncio.run(_load(schemas.load(schema), source, pl.read_parquet(data), tenant))
    except (SchemaError, InvalidFieldError, StoreError, pl.exceptions.PolarsError, KeyError) as error:
        print(f"{data}: {error}", file=sys.stderr)
        raise typer.Exit(2) from None


@app.command()
def archive(
    tenant: Annotated[str, typer.Option(help="the lender")],
    out: Annotated[Path, typer.Option(help="new folder of the archive")],
) -> None:
    """Write a tenant's log and decisions into a folder; the server may go on. REDIS_URL comes from the environment."""
    try:
        manifest = asyncio.run(_archive(tenant, out))
    except (ArchiveError, StoreError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from None
    print(f"{manifest['sequence']} events and {manifest['decisions']} decisions into {out}")


@app.command()
def snapshot(
    tenant: Annotated[str, typer.Option(help="the lender")],
    out: Annotated[Path, typer.Option(envvar="MIAOPI_SNAPSHOTS", help="the servers' MIAOPI_SNAPSHOTS")],
    every_seconds: Annotated[float, typer.Option(min=1, help="how long from one to the next")] = 300.0,
    once: Annotated[bool, typer.Option("--once", help="write one and end")] = False,
) -> None:
    """Follow a tenant's log and write its graph and lists now and then, from which servers start at once.

    REDIS_URL and MIAOPI_TOKEN_SECRETS come from the environment.
    """
    try:
        asyncio.run(_snapshot(tenant, out, every_seconds, once))
    except (StoreError, SequenceGapError, KeyError, OSError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from None


async def _snapshot(tenant: str, out: Path, every_seconds: float, once: bool) -> None:
    say = partial(print, file=sys.stderr, flush=True)
    async with _store(tenant) as (_, store):
        writer = SnapshotWriter(store, folder_of(out, tenant), say)
        if once:
            say(f"written: {await writer.write() or 'nothing, the log is empty'}")
        else:
            await keep_writing(writer, every_seconds, say)


@asynccontextmanager
async def _store(tenant: str) -> AsyncIterator[tuple[Redis, Store]]:
    tokenizer = Tokenizer(json.loads(os.environ["MIAOPI_TOKEN_SECRETS"])[tenant].encode())
    async with Redis.from_url(os.environ["REDIS_URL"]) as redis:
        yield redis, Store(redis, tenant, tokenizer, [])


@app.command()
def unlink(tenant: Annotated[str, typer.Option(help="the lender")]) -> None:
    """Take the identifiers of forgotten applicants out of a tenant's log; servers may go on.

    REDIS_URL and MIAOPI_TOKEN_SECRETS come from the environment.
    """
    try:
        done = asyncio.run(_unlink(tenant))
    except (StoreError, KeyError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from None
    print(f"{done.tokens} tokens went, {done.kept} stay since others or a list name them; {done.events} events")


async def _unlink(tenant: str) -> Unlinked:
    async with _store(tenant) as (redis, store):
        return await unlink_log(redis, tenant, store)


async def _archive(tenant: str, out: Path) -> dict[str, Any]:
    if "REDIS_URL" not in os.environ:
        raise StoreError("REDIS_URL: is not set")
    async with Redis.from_url(os.environ["REDIS_URL"]) as redis:
        return await export.write(redis, tenant, out)


async def _load(schema: Schema, source: str, frame: pl.DataFrame, tenant: str) -> None:
    if source not in schema.sources:
        raise SchemaError(f"no source {source}; {schema.name} has {', '.join(schema.sources)}")
    given = {name for name in schema.sources[source].features if not name.endswith(MISSING_CODE)}
    missing = {"subject_id", "fetched_at_ms", *given} - set(frame.columns)
    if missing:
        raise SchemaError(f"no column {', '.join(sorted(missing))}")
    tokenizer = Tokenizer(json.loads(os.environ["MIAOPI_TOKEN_SECRETS"])[tenant].encode())
    if not (days := os.environ.get("MIAOPI_PROFILE_DAYS", "0")).isdecimal():
        raise StoreError(f"MIAOPI_PROFILE_DAYS: is no number of days: {days}")
    rows = []  # all are checked before the first is written
    for i, row in enumerate(frame.iter_rows(named=True)):
        try:
            rows.append(_profile(schema, source, row, tokenizer))
        except InvalidFieldError as error:
            raise InvalidFieldError(f"row {i}: {error.field}", error.reason) from None
    redis = Redis.from_url(os.environ["REDIS_URL"])
    store = Store(redis, tenant, tokenizer, [schema], profile_days=int(days))
    await store.open()
    with Progress() as progress:
        task = progress.add_task(source, total=len(rows))
        stored = await load_profiles(store, rows, lambda n: progress.advance(task, n))
    await redis.aclose()
    print(f"{len(rows)} read, {stored} stored, {len(rows) - stored} older than what was there")


def _profile(schema: Schema, source: str, row: dict[str, Any], tokenizer: Tokenizer) -> tuple[int, Schema, Profile]:
    numbers = dict(
        feature_entry(schema, name, row[name], name)
        for name in schema.sources[source].features
        if row.get(name) is not None
    )
    if row["fetched_at_ms"] is None:
        raise InvalidFieldError("fetched_at_ms", "is missing")
    token = subject_token(schema, tokenizer, source, row["subject_id"] or "")
    return token, schema, make_profile(schema, source, int(row["fetched_at_ms"]), numbers)


if __name__ == "__main__":
    app()
