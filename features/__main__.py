"""`python -m features load`: write a source's profiles from Parquet into the store."""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
import typer
from redis.asyncio import Redis
from rich.progress import Progress

from features import schema as schemas
from features.application import InvalidFieldError, Profile, entity_tokens, feature_entry
from features.load import load_profiles
from features.schema import MISSING_CODE, Schema, SchemaError
from features.store import Store, StoreError
from features.tokens import Tokenizer

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)


@app.callback()
def _root() -> None:
    """Features: schemas, profiles, the entity graph."""


@app.command()
def load(
    schema: Annotated[Path, typer.Option(help="schema YAML that declares the source")],
    source: Annotated[str, typer.Option(help="which source")],
    data: Annotated[Path, typer.Option(help="Parquet: applicant_id, fetched_at_ms, and the source's features")],
    tenant: Annotated[str, typer.Option(help="the lender")],
) -> None:
    """Load profiles; REDIS_URL and MIAOPI_TOKEN_SECRET (this tenant's) come from the environment."""
    try:
        asyncio.run(_load(schemas.load(schema), source, pl.read_parquet(data), tenant))
    except (SchemaError, InvalidFieldError, StoreError, pl.exceptions.PolarsError, KeyError) as error:
        print(f"{data}: {error}", file=sys.stderr)
        raise typer.Exit(2) from None


async def _load(schema: Schema, source: str, frame: pl.DataFrame, tenant: str) -> None:
    if source not in schema.sources:
        raise SchemaError(f"no source {source}; {schema.name} has {', '.join(schema.sources)}")
    given = {name for name in schema.sources[source].features if not name.endswith(MISSING_CODE)}
    missing = {"applicant_id", "fetched_at_ms", *given} - set(frame.columns)
    if missing:
        raise SchemaError(f"no column {', '.join(sorted(missing))}")
    tokenizer = Tokenizer(os.environ["MIAOPI_TOKEN_SECRET"].encode())
    rows = list(_profiles(schema, source, frame, tokenizer))  # all are checked before the first is written
    redis = Redis.from_url(os.environ["REDIS_URL"])
    store = Store(redis, tenant, tokenizer, [schema])
    await store.open()
    with Progress() as progress:
        task = progress.add_task(source, total=len(rows))
        stored = await load_profiles(store, rows, lambda n: progress.advance(task, n))
    await redis.aclose()
    print(f"{len(rows)} read, {stored} stored, {len(rows) - stored} older than what was there")


def _profiles(
    schema: Schema, source: str, frame: pl.DataFrame, tokenizer: Tokenizer
) -> Iterator[tuple[int, Schema, Profile]]:
    names = schema.sources[source].features
    for i, row in enumerate(frame.iter_rows(named=True)):
        yield _profile(schema, source, names, row, tokenizer, f"row {i}: ")


def _profile(
    schema: Schema, source: str, names: tuple[str, ...], row: dict[str, Any], tokenizer: Tokenizer, key: str
) -> tuple[int, Schema, Profile]:
    numbers = dict.fromkeys(names, np.nan)
    numbers.update(
        feature_entry(schema, name, row[name], f"{key}{name}") for name in names if row.get(name) is not None
    )
    try:
        token = int(entity_tokens(schema, tokenizer, str(row["applicant_id"]), (), ())[0])
    except InvalidFieldError as error:
        raise InvalidFieldError(key + error.field, error.reason) from None
    return token, schema, Profile(source, int(row["fetched_at_ms"]), np.array(list(numbers.values()), dtype=np.float32))


if __name__ == "__main__":
    app()
