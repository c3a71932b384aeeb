"""Requests of the wire become a History: the same checks and tokens as in the server, so no train/serve skew."""

from collections.abc import Mapping, Sequence

from rich.progress import Progress

from bench.serving import SECRET
from bench.world import World
from features import schema as schemas
from features.application import Application, Profile, Report, subject_token
from features.load import profiles_by_subject
from features.replay import History, Rows, replay
from features.schema import Schema
from features.tokens import Tokenizer
from proto.miaopi.v1.decision_pb2 import DecideRequest, PutProfileRequest, ReportOutcomeRequest
from server import wire
from server.settings import Settings

SCHEMAS = ("consumer", "auto", "small_business")
Event = DecideRequest | ReportOutcomeRequest


def schemas_by_product() -> dict[str, Schema]:
    """The schemas of the world by the products they serve."""
    loaded = [schemas.load(Settings().schemas / f"{name}.yaml") for name in SCHEMAS]
    return {product: schema for schema in loaded for product in schema.products}


def profiles(
    requests: Sequence[PutProfileRequest], of_product: Mapping[str, Schema], tokenizer: Tokenizer
) -> list[tuple[int, Schema, Profile]]:
    """(token of whom it knows, schema, profile) of each request."""
    return [
        (subject_token(of_product[r.product], tokenizer, r.source, r.subject_id), of_product[r.product],
         wire.profile(r, of_product[r.product], replaying=True))
        for r in requests
    ]  # fmt: skip


def history(
    events: Sequence[Event],
    known: Sequence[tuple[int, Schema, Profile]],
    of_product: Mapping[str, Schema],
    tokenizer: Tokenizer,
) -> History:
    """The events in order, and the profiles."""
    items: list[Application | Report] = []
    for event in events:
        if isinstance(event, DecideRequest):
            items.append(wire.application(event, of_product[event.product], tokenizer, replaying=True))
        else:
            items.append(wire.report(event, replaying=True))
    return History(items, profiles_by_subject(known))


def rows(made: World, *, deep: bool = False) -> dict[str, Rows]:
    """The training rows of a world by schema, with hops if `deep`; a bar shows the replay."""
    of_product, tokenizer = schemas_by_product(), Tokenizer(SECRET.encode())
    past = history(made.events, profiles(made.profiles, of_product, tokenizer), of_product, tokenizer)
    with Progress() as progress:
        task = progress.add_task("replay", total=len(past.events))
        return replay(past, lambda n: progress.advance(task, n), deep=deep)
