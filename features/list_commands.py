"""`python -m features lists`: propose, approve and show entries of lists, by the code that the service runs.

REDIS_URL, MIAOPI_TOKEN_SECRETS, MIAOPI_CONSORTIUM_SECRET and MIAOPI_SCHEMAS come from the environment, as the server's.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from redis.asyncio import Redis

from features import schema as schemas
from features.application import InvalidFieldError
from features.list_entries import CONSORTIUM, PAGE_MAX, Consortium, Entry, EntryRefusedError, ListEntries, listable
from features.schema import SchemaError
from features.specs import LISTS
from features.store import Store, StoreError
from features.tokens import Tokenizer

app = typer.Typer(
    no_args_is_help=True, help="Black, grey and white lists (名单): one person proposes, another approves."
)

T = TypeVar("T")
Tenant = Annotated[str, typer.Option(help="the lender")]
By = Annotated[str, typer.Option(help="who it is")]


@app.command()
def propose(
    tenant: Tenant,
    kind: Annotated[str, typer.Option("--list", help=f"one of {', '.join(LISTS)}")],
    entity_type: Annotated[str, typer.Option("--type", help="type of entity that a schema declares")],
    reason: Annotated[str, typer.Option(help="why")],
    source: Annotated[str, typer.Option(help="where it is from: investigation, court …")],
    by: By,
    identifier: Annotated[str, typer.Option("--id", prompt="identifier", help="asked for where it is left out")],
    remove: Annotated[bool, typer.Option("--remove", help="take it off instead")] = False,
    shared: Annotated[bool, typer.Option("--shared", help="for every lender of the consortium")] = False,
    expires_at_ms: Annotated[int, typer.Option(help="from when on it no longer counts, ms; 0 for never")] = 0,
) -> None:
    """Propose to put an identifier on a list or to take it off; prints the proposal's id."""

    async def ask(entries: ListEntries) -> str:
        folder = Path(os.environ.get("MIAOPI_SCHEMAS", "features/schemas"))
        proposal = entries.proposal(
            listable(schemas.load(path) for path in sorted(folder.glob("*.yaml"))),
            kind=kind, entity_type=entity_type, identifier=identifier, reason=reason, source=source, proposed_by=by,
            remove=remove, shared=shared, expires_at_ms=expires_at_ms,
        )  # fmt: skip
        return await entries.propose(proposal)

    print(_run(tenant, ask))


@app.command()
def approve(tenant: Tenant, entry: Annotated[str, typer.Option(help="id of the proposal")], by: By) -> None:
    """Approve what another person proposed; prints the number of its event."""
    print(_run(tenant, lambda entries: entries.approve(entry, by)))


@app.command()
def show(
    tenant: Tenant,
    kind: Annotated[str, typer.Option("--list", help="one of them only")] = "",
    waiting: Annotated[bool, typer.Option("--waiting", help="what nobody has approved yet")] = False,
) -> None:
    """Print proposals and entries, a JSON object a line, the newest first."""

    async def pages(entries: ListEntries) -> list[Entry]:
        found, after = await entries.page((kind,) if kind else LISTS, waiting, PAGE_MAX, "")
        while after:
            more, after = await entries.page((kind,) if kind else LISTS, waiting, PAGE_MAX, after)
            found += more
        return found

    for entry in _run(tenant, pages):
        said = entry.proposal
        line = {
            "entry": entry.entry_id, "list": said.kind, "type": said.entity_type, "remove": said.remove,
            "shared": said.shared, "reason": said.reason, "source": said.source, "expires_at_ms": said.expires_at_ms,
            "proposed_by": said.proposed_by, "proposed_at_ms": entry.proposed_at_ms,
            "approved_by": entry.approved_by, "approved_at_ms": entry.approved_at_ms,
        }  # fmt: skip
        print(json.dumps(line, ensure_ascii=False))


def _run(tenant: str, ask: Callable[[ListEntries], Awaitable[T]]) -> T:
    """The answer of a question to a tenant's entries; exit status 2, and why on standard error, where there is none."""

    async def run() -> T:
        async with _entries(tenant) as entries:
            return await ask(entries)

    try:
        return asyncio.run(run())
    except (InvalidFieldError, EntryRefusedError, SchemaError, StoreError) as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from None


@asynccontextmanager
async def _entries(tenant: str) -> AsyncIterator[ListEntries]:
    try:
        tokenizer = Tokenizer(json.loads(os.environ["MIAOPI_TOKEN_SECRETS"])[tenant].encode())
        secret = os.environ.get("MIAOPI_CONSORTIUM_SECRET", "")
        shared = Tokenizer(secret.encode()) if secret else None
        url = os.environ["REDIS_URL"]
    except KeyError as error:
        raise StoreError(f"{error.args[0]}: is not set, or no tenant of MIAOPI_TOKEN_SECRETS") from None
    except ValueError as error:
        raise StoreError(f"MIAOPI_TOKEN_SECRETS, MIAOPI_CONSORTIUM_SECRET: {error}") from None
    async with Redis.from_url(url) as redis:
        store = Store(redis, tenant, tokenizer, [])
        await store.open()
        consortium = None if shared is None else Consortium(Store(redis, CONSORTIUM, shared, []), shared)
        yield ListEntries(tenant, store, tokenizer, consortium)
