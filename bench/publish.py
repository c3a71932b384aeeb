"""Policies published and rolled back under load (R16, R19): does a request fail, does a reply mix two versions, and how
soon does a reply come from the new one?

The two versions differ in their prices and in the words of every reason, so that each reply shows which one made it.
Every application is of somebody new, known to the sources: a reply about the same few applicants, over and over, would
only say that they apply too often.
"""

import asyncio
import json
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml
from redis.asyncio import Redis

from bench import history, world
from bench.changes import figures, requests_of, under_load
from bench.serving import SECRET, server_process
from features import schema as schemas
from features.embedded import embedded_store
from features.load import load_profiles
from features.schema import Schema
from features.store import Store
from features.tokens import Tokenizer
from policy import cases, versions
from policy.decide import POLICY
from policy.reasons import REASONS_PATH, reason_texts
from proto.miaopi.v1 import decision_pb2 as pb

SCHEMA = Path("features/schemas/consumer.yaml")
PRODUCTS = Path("policy/products")
PRODUCT = "consumer"
WORLD_SEED = 5
APPLICATIONS = 1500  # in the world for each publication: more than clients ask for meanwhile
MARK = " (new)"  # after each reason's words of the candidate
RATE_STEP = 0.0005  # added to its prices


@dataclass(frozen=True)
class Said:
    """What replies of a version may say: its words by reason code, and its annual rates where none is computed."""

    rates: frozenset[float]
    words: Mapping[str, str]


def run(publications: int) -> dict[str, float]:
    """Figures of the last line, of so many publications and rollbacks in turn."""
    schema, made = schemas.load(SCHEMA), world.build(WORLD_SEED, APPLICATIONS * (publications + 2))
    with tempfile.TemporaryDirectory(prefix="miaopi-") as name, embedded_store() as url:
        policies = Path(shutil.copytree(PRODUCTS, Path(name) / "policies"))
        first, _ = versions.publish(policies, policies / PRODUCT, PRODUCT, schema, "bench", "as shipped")
        candidate = variant(policies / PRODUCT / first, Path(name) / "candidate")
        second = versions.load(candidate, PRODUCT, schema).version
        said = {first: _said(policies / PRODUCT / first), second: _said(candidate)}
        requests = requests_of(made, PRODUCT)
        asyncio.run(_know(url, schema, made))
        with server_process(url, policies=policies) as (address, _):
            published = _published(policies, candidate, schema, publications)
            calls, changes = under_load(address, requests, published, "policy")
    answered = [call.reply for call in calls if call.answered]
    priced = [reply for reply in answered if reply.annual_rate]
    return {
        **figures(calls, changes, "policy"),
        "mixed": sum(not _fits(reply, said[reply.versions.policy]) for reply in answered),
        "approved": sum(reply.outcome <= pb.OUTCOME_LIMIT for reply in answered),
        "priced_first": sum(reply.versions.policy == first for reply in priced),
        "priced_second": sum(reply.versions.policy == second for reply in priced),
        "applied_again": max(0, len(calls) - len(requests)),
        "publications": len(changes),
    }


def variant(source: Path, out: Path) -> Path:
    """Another version of a policy, written to `out`: every price that is a number higher, every reason reworded."""
    shutil.copytree(source, out)
    document = json.loads((source / POLICY).read_text(encoding="utf-8"))
    for rule, column in _prices(document):
        if (rate := _rate(rule[column])) is not None:
            rule[column] = f"{rate + RATE_STEP:.4f}"
    (out / POLICY).write_text(json.dumps(document, ensure_ascii=False, indent=1), encoding="utf-8")
    words = {code: {"zh": zh, "en": en + MARK} for code, (zh, en) in _texts(source).items()}
    (out / REASONS_PATH.name).write_text(yaml.safe_dump(words, allow_unicode=True), encoding="utf-8")
    table = pl.read_csv(out / cases.CASES, infer_schema=False)
    table.with_columns(pl.lit("").alias("expect_annual_rate")).write_csv(out / cases.CASES)  # of the old prices
    return out


def _prices(document: Any) -> Iterator[tuple[dict[str, str], str]]:
    """(row, its column) of each price in a policy file."""
    content = next(node["content"] for node in document["nodes"] if node["name"] == "price")
    column = next(column["id"] for column in content["outputs"] if column["field"] == "annual_rate")
    yield from ((rule, column) for rule in content["rules"])


def _rate(cell: str) -> float | None:
    """The number in a cell; None where it is computed."""
    return float(cell) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", cell.strip()) else None


def _texts(folder: Path) -> Mapping[str, tuple[str, str]]:
    path = folder / REASONS_PATH.name
    return reason_texts(path, path.read_bytes())


def _said(folder: Path) -> Said:
    cells = [rule[column] for rule, column in _prices(json.loads((folder / POLICY).read_bytes()))]
    rates = [_rate(cell) for cell in cells]
    known = frozenset() if None in rates else frozenset(rate for rate in rates if rate is not None)
    return Said(known, {code: en for code, (_, en) in _texts(folder).items()})


def _fits(reply: pb.DecideResponse, said: Said) -> bool:
    """Whether a reply is all of the version that it names; one that shows none does not count as whole."""
    words = [reason.text_en == said.words[reason.code] for reason in reply.reasons if reason.code in said.words]
    return bool(words) and all(words) and (reply.annual_rate in said.rates or not (reply.annual_rate and said.rates))


def _published(policies: Path, candidate: Path, schema: Schema, publications: int) -> Iterator[str]:
    """The version in service after each publication and rollback."""
    for n in range(publications):
        if n % 2:
            yield versions.rollback(policies, PRODUCT, schema, "bench").current
        else:
            yield versions.publish(policies, candidate, PRODUCT, schema, "bench", "prices up")[0]


async def _know(url: str, schema: Schema, made: world.World) -> None:
    """What the sources know of the product's applicants, as of now."""
    known = [request for request in made.profiles if request.product == PRODUCT]
    for request in known:
        request.fetched_at_ms = round(time.time() * 1000)
    async with Redis.from_url(url) as redis:
        store = Store(redis, "demo", Tokenizer(SECRET.encode()), [schema])
        await store.prepare()
        await load_profiles(store, history.profiles(known, {PRODUCT: schema}, Tokenizer(SECRET.encode())))
