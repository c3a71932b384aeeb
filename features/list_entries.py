"""Entries of lists as people keep them: proposed by one, approved by another, then an event of the log (R10, R23).

An entry holds a token and never the identifier (R21). Approval appends the event that features.lists reads, in one call
with the check that two persons were there. Entries for every lender of a consortium are kept under a tenant of its own,
under tokens of its own secret, with a log in the same format; each tenant takes that log into its own, in order and
each entry once, so that its own log stays the only order that decides.
"""

import asyncio
import json
import re
import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass

from features.application import InvalidFieldError, check_person, check_text
from features.events import LISTING, Events, pack_listing, packed
from features.schema import Schema
from features.specs import LISTS
from features.store import Store, StoreError
from features.tokens import Tokenizer, plain, quotes

CONSORTIUM = "consortium"  # the tenant that shared entries are kept under; no lender may have the name
REASON_MAX, NAME_MAX, IDENTIFIER_MAX = 1000, 128, 256
PAGE_MAX = 256
_MEMBER = re.compile(r"\d{13}:[0-9a-f]{32}")

# What keeps a proposal from being approved, by the status that the store answers.
REFUSALS = {
    "NOT_FOUND": "no such proposal",
    "SAME_PERSON": "who proposed it cannot approve it",
    "APPROVED": "another person approved it before",
    "EXPIRED": "it has expired meanwhile",
}


class EntryRefusedError(Exception):
    """A proposal that cannot be approved. `status` is a key of REFUSALS."""

    def __init__(self, status: str) -> None:
        super().__init__(f"entry_id: {REFUSALS[status]}")
        self.status = status


class ConsortiumError(StoreError):
    """The secret is not the one that the consortium's entries are under: none of them would ever be found."""


@dataclass(frozen=True)
class Proposal:
    """A token to put on a list, or to take off it.

    kind: one of specs.LISTS. token: under the tenant's secret, or the consortium's where it is shared. expires_at_ms: 0
    for never. proposed_by: with the tenant in front where it is shared.
    """

    kind: str
    entity_type: str
    token: int
    remove: bool
    shared: bool
    reason: str
    source: str
    expires_at_ms: int
    proposed_by: str

    def event(self, entry_id: str) -> bytes:
        """Its event, for the store to append."""
        return pack_listing(entry_id, self.kind, self.token, self.remove, self.shared, self.expires_at_ms)


@dataclass(frozen=True)
class Entry:
    """A stored proposal; approved_by is empty and approved_at_ms 0 while it waits."""

    entry_id: str
    proposal: Proposal
    proposed_at_ms: int
    approved_by: str
    approved_at_ms: int


@dataclass(frozen=True)
class Consortium:
    """What the lenders that share entries have in common. store: the tenant CONSORTIUM's."""

    store: Store
    tokenizer: Tokenizer

    async def open(self) -> None:
        """Read its log from the beginning. Raises ConsortiumError, StoreError."""
        await self.store.open()
        name = self.tokenizer.key(CONSORTIUM)
        if (await self.store.call("join", self.store.keys("meta"), [name])).decode() != name:
            raise ConsortiumError("MIAOPI_CONSORTIUM_SECRET: the consortium's entries are under another secret")


class ListEntries:
    """One tenant's entries, and those of the consortium that it is of. `store` is opened by its owner."""

    def __init__(self, tenant: str, store: Store, tokenizer: Tokenizer, consortium: Consortium | None = None) -> None:
        self._tenant = tenant
        self._store = store
        self._tokenizer = tokenizer
        self._consortium = consortium
        self._taking = asyncio.Lock()
        self._taken = False  # whether all that was read of the consortium's log is in the tenant's

    def proposal(
        self,
        types: Collection[str],
        *,
        kind: str,
        entity_type: str,
        identifier: str,
        reason: str,
        source: str,
        proposed_by: str,
        remove: bool = False,
        shared: bool = False,
        expires_at_ms: int = 0,
    ) -> Proposal:
        """The checked proposal of a person. types: what `listable` says. Raises InvalidFieldError."""
        if kind not in LISTS:
            raise InvalidFieldError("list", f"must be one of {', '.join(LISTS)}")
        if entity_type not in types:
            raise InvalidFieldError("entity.type", f"must be one of {', '.join(sorted(types))}")
        if shared and self._consortium is None:
            raise InvalidFieldError("shared", "no consortium is served here")
        check_text("entity.id", identifier, IDENTIFIER_MAX)
        check_text("reason", reason, REASON_MAX)
        check_text("source", source, NAME_MAX)
        check_person("proposed_by", proposed_by, NAME_MAX)
        if expires_at_ms < 0 or (remove and expires_at_ms):
            raise InvalidFieldError("expires_at_ms", "a removal has none" if remove else "must be in the future")
        tokenizer = self._consortium.tokenizer if shared and self._consortium else self._tokenizer
        try:
            token = tokenizer.token(entity_type, identifier)
        except ValueError:
            raise InvalidFieldError("entity.id", f"is no {entity_type}") from None
        for field, text in (("reason", reason), ("source", source), ("proposed_by", proposed_by)):
            if quotes(text, entity_type, identifier):
                raise InvalidFieldError(field, "holds the identifier, which is kept nowhere")
        return Proposal(
            kind, entity_type, token, remove, shared, reason, source, expires_at_ms, self._signed(proposed_by, shared)
        )

    async def propose(self, proposal: Proposal) -> str:
        """Store a proposal that waits for another person; its id. Raises InvalidFieldError where it has expired."""
        entry_id = secrets.token_hex(16)
        kind = proposal.kind
        store = self._of(proposal.shared)
        said = await store.call(
            "propose_entry", store.keys(f"list:{entry_id}", f"lists:{kind}", f"lists:waiting:{kind}"),
            [entry_id, json.dumps(asdict(proposal)), str(proposal.expires_at_ms)],
        )  # fmt: skip
        if said is None:
            raise InvalidFieldError("expires_at_ms", "must be in the future")
        return entry_id

    async def approve(self, entry_id: str, approved_by: str) -> int:
        """Put a proposal into force; the number of its event in the tenant's log. The same person may ask again.

        Raises InvalidFieldError, EntryRefusedError.
        """
        check_person("approved_by", approved_by, NAME_MAX)
        check_text("entry_id", entry_id, NAME_MAX)
        for shared in (False, True) if self._consortium else (False,):
            found = (await self._read(shared, [entry_id]))[0]
            if found is not None:
                return await (self._approve_shared if shared else self._approve)(found, approved_by)
        raise EntryRefusedError("NOT_FOUND")

    async def page(self, kinds: Sequence[str], waiting: bool, size: int, after: str) -> tuple[list[Entry], str]:
        """At most `size` entries of some lists, the newest proposal first, and where the next page begins ("" : none).

        waiting: only proposals that wait. after: where the page before ended, "" for the first. Raises
        InvalidFieldError.
        """
        if not 1 <= size <= PAGE_MAX:
            raise InvalidFieldError("page_size", f"must be from 1 to {PAGE_MAX}")
        if after and not _MEMBER.fullmatch(after):
            raise InvalidFieldError("page_token", "is no place where a page ended")
        if not set(kinds) <= set(LISTS):
            raise InvalidFieldError("list", f"must be one of {', '.join(LISTS)}")
        keys = [f"lists:{'waiting:' if waiting else ''}{kind}" for kind in kinds]
        members: list[tuple[str, bool]] = []
        for shared in (False, True) if self._consortium else (False,):
            store = self._of(shared)
            found = await store.call("list_members", store.keys(*keys), [after, str(size + 1)])
            members += [(member.decode(), shared) for member in found]
        members.sort(reverse=True)
        entries: dict[str, Entry | None] = {}
        for shared in (False, True):
            asked = [member.split(":")[1] for member, of in members[:size] if of == shared]
            entries |= zip(asked, await self._read(shared, asked) if asked else (), strict=True)
        some = [entry for m, _ in members[:size] if (entry := entries[m.split(":")[1]]) is not None]
        return some, members[size - 1][0] if len(members) > size else ""

    async def take_again(self) -> None:
        """From the beginning, when `share` is next called: the tenant's log may have lost what was taken."""
        async with self._taking:
            self._taken = False

    async def share(self) -> None:
        """Take what the consortium approved into the tenant's log, in its order. Raises StoreError."""
        if self._consortium is None:
            return
        async with self._taking:
            log = self._consortium.store
            if not self._taken:
                await self._consortium.open()
            self._taken = False  # until it is done: who is cancelled meanwhile has read what is not taken
            await log.position()
            while len(events := await log.tail()):
                await self._take(events)
            self._taken = True

    async def _take(self, events: Events) -> list[int]:
        """Numbers in the tenant's log of events of the consortium's, which are appended where they were not yet."""
        ids = [entry.tobytes() for entry in events.fields.view(LISTING)["entry"]]
        arguments: list[bytes | str] = [self._store.epoch]
        for pair in zip(ids, packed(events), strict=True):
            arguments += pair
        return [
            int(n)
            for n in await self._store.call("share_entries", self._store.keys("log", "meta", "shared"), arguments)
        ]

    async def _approve_shared(self, entry: Entry, approved_by: str) -> int:
        """Approve for the consortium and take all up to it; its number in the tenant's log."""
        await self.share()
        await self._approve(entry, approved_by)
        await self.share()
        arguments: list[bytes | str] = [
            self._store.epoch,
            bytes.fromhex(entry.entry_id),
            entry.proposal.event(entry.entry_id),
        ]
        keys = self._store.keys("log", "meta", "shared")
        return int((await self._store.call("share_entries", keys, arguments, durable=True))[0])

    async def _approve(self, entry: Entry, approved_by: str) -> int:
        proposal = entry.proposal
        store, by = self._of(proposal.shared), self._signed(approved_by, proposal.shared)
        status, sequence = await store.call(
            "approve_entry", store.keys("log", "meta", f"list:{entry.entry_id}", f"lists:waiting:{proposal.kind}"),
            [store.epoch, entry.entry_id, proposal.event(entry.entry_id), by, _folded(by),
             _folded(proposal.proposed_by)], durable=True,
        )  # fmt: skip
        if (name := status.decode()) in REFUSALS:
            raise EntryRefusedError(name)
        return int(sequence)

    async def _read(self, shared: bool, entry_ids: Sequence[str]) -> list[Entry | None]:
        store = self._of(shared)
        found = await store.call("list_entries", store.keys(*(f"list:{entry_id}" for entry_id in entry_ids)), [])
        return [
            None if said is None else Entry(
                entry_id, Proposal(**json.loads(said[0])), int(said[1]), said[2].decode(), int(said[3] or 0)
            )
            for entry_id, said in zip(entry_ids, found, strict=True)
        ]  # fmt: skip

    def _of(self, shared: bool) -> Store:
        return self._consortium.store if shared and self._consortium else self._store

    def _signed(self, name: str, shared: bool) -> str:
        return f"{self._tenant}/{name}" if shared else name


def listable(schemas: Iterable[Schema]) -> frozenset[str]:
    """Types of entities that can be listed: those that have an identifier, in any of some schemas."""
    return frozenset(e.name for schema in schemas for e in schema.entities.values() if not e.of)


def _folded(name: str) -> str:
    """A person's name to compare, however it is written."""
    return "".join(plain(plain(name).casefold()).split())
