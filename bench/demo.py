"""The whole service on a population it never saw: history loaded, then applications sent one by one through gRPC.

The world has another seed than the one the bundles were trained on. Its outcomes are reported when they become known.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence

import grpc
import numpy as np
from redis.asyncio import Redis
from rich.console import Console
from rich.progress import Progress, track
from rich.table import Table

from bench import history, world
from bench.serving import SECRET, client, server_process
from features.embedded import embedded_store
from features.load import load_history, load_profiles
from features.store import Store
from features.tokens import Tokenizer
from models.evaluate import auc
from proto.miaopi.v1 import decision_pb2 as pb

DEMO_SEED = 11
PAST_APPLICATIONS = 10_000
DECISIONS = 2_000

console = Console()


def run() -> None:
    """Run the demo; the last line is JSON."""
    made = world.build(DEMO_SEED, PAST_APPLICATIONS + DECISIONS)
    applications = [i for i, event in enumerate(made.events) if isinstance(event, pb.DecideRequest)]
    cut = applications[PAST_APPLICATIONS]
    with embedded_store() as url:
        asyncio.run(_load(url, made, cut))
        with server_process(url, replay="true") as (address, _):
            replies, seconds = _decide(address, made.events[cut:])
    for reply in _examples(replies):
        _show(reply)
    figures = summary(replies, seconds, made.truth)
    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, str(value))
    console.print(table)
    print(json.dumps(figures))


async def _load(url: str, made: world.World, cut: int) -> None:
    """Profiles and the events before `cut` into the store."""
    of_product = history.schemas_by_product()
    tokenizer = Tokenizer(SECRET.encode())
    redis = Redis.from_url(url)
    store = Store(redis, "demo", tokenizer, list(of_product.values()))
    await store.open()
    known = history.profiles(made.profiles, of_product, tokenizer)
    past = history.history(made.events[:cut], (), of_product, tokenizer)
    with Progress() as progress:
        task = progress.add_task("profiles", total=len(known))
        await load_profiles(store, known, lambda n: progress.advance(task, n))
        task = progress.add_task("history", total=len(past.events))
        await load_history(store, past, lambda n: progress.advance(task, n))
    await redis.aclose()


def _decide(address: str, events: Sequence[history.Event]) -> tuple[list[pb.DecideResponse], list[float]]:
    """Replies in order, and the seconds each took at the client."""
    replies, seconds = [], []
    with client(address) as stub:
        for event in track(events, "decide"):
            if isinstance(event, pb.DecideRequest):
                started = time.perf_counter()
                replies.append(stub.Decide(event))
                seconds.append(time.perf_counter() - started)
            else:
                try:
                    stub.ReportOutcome(event)
                except grpc.RpcError as error:
                    raise RuntimeError(f"outcome {event.outcome_id} refused: {error}") from error
    return replies, seconds


def summary(
    replies: Sequence[pb.DecideResponse], seconds: Sequence[float], truth: dict[str, world.Truth]
) -> dict[str, float]:
    """The figures of the last line. Recognised fraud is what was not approved; bad is fraud or default."""
    outcome = np.array([r.outcome for r in replies])
    fraud = np.array([truth[r.application_id].fraud for r in replies])
    bad = fraud | np.array([truth[r.application_id].default for r in replies])
    approved = outcome <= pb.OUTCOME_LIMIT
    count = Counter(outcome.tolist())
    return {
        "decisions": len(replies),
        "approve": count[pb.OUTCOME_APPROVE],
        "limit": count[pb.OUTCOME_LIMIT],
        "review": count[pb.OUTCOME_REVIEW],
        "decline": count[pb.OUTCOME_DECLINE],
        "automation_rate": round(float(np.mean(outcome != pb.OUTCOME_REVIEW)), 4),
        "fraud_auc": round(auc(fraud.astype(np.int8), np.array([r.fraud_probability for r in replies])), 4),
        "fraud_recall": round(float(np.mean(~approved[fraud])), 4),
        "bad_rate_all": round(float(np.mean(bad)), 4),
        "bad_rate_approved": round(float(np.mean(bad[approved])), 4),
        "p50_ms": round(float(np.percentile(seconds, 50)) * 1e3, 2),
        "p99_ms": round(float(np.percentile(seconds, 99)) * 1e3, 2),
    }


def _examples(replies: Sequence[pb.DecideResponse]) -> list[pb.DecideResponse]:
    """Of each outcome the decision with most to say."""
    return list({reply.outcome: reply for reply in sorted(replies, key=lambda r: (r.outcome, len(r.reasons)))}.values())


def _show(reply: pb.DecideResponse) -> None:
    """One decision as a person would read it."""
    outcome = pb.Outcome.Name(reply.outcome).removeprefix("OUTCOME_")
    console.rule(f"{reply.application_id}  {outcome}")
    if reply.approved_amount_minor:
        console.print(
            f"¥{reply.approved_amount_minor / 100:,.0f}  年利率 annual rate {reply.annual_rate:.2%}, "
            f"含费 all-in {reply.all_in_rate:.2%}, 等级 grade {reply.grade}"
        )
    console.print(f"欺诈概率 fraud {reply.fraud_probability:.2%}  违约概率 default {reply.default_probability:.2%}")
    for reason in reply.reasons:
        strength = f" ({reason.contribution:+.2f})" if reason.contribution else ""
        console.print(f"  {reason.code}{strength}: {reason.text_zh} / {reason.text_en}", highlight=False)
        if reason.legal_source:
            console.print(f"    依据 source: {reason.legal_source}")
    if reply.degraded:
        console.print(f"  缺失 degraded: {', '.join(reply.degraded)}")
