"""Forgetting on request (R20): a withdrawn consent, or an applicant altogether; once recorded, in force everywhere.

One call of the store appends events that empty slots of the applicant's applications so far, notes since when consents
given before no longer count, deletes profiles, and records who asked. Decisions with their evidence stay as they are,
under tokens, since the law asks lenders to keep them (个人信息保护法 Art. 47, R23); so does what is still owed, and
what is on a list. Asking again is recorded again: a consent given in between ends with it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from features.application import InvalidFieldError
from features.consent import consent_slots
from features.events import pack_forgotten
from features.schema import SLOTS_MAX
from features.store import Store
from features.tokens import Tokenizer, quotes

_EVERY_SLOT = (1 << SLOTS_MAX) - 1
_EVERY_SCHEMA = 0


@dataclass(frozen=True)
class Forgetting:
    """Whose consent for which purpose is withdrawn; without a purpose, who is to be forgotten.

    requested_by: who asks on the applicant's behalf, a name of staff; it stands in the record as it is.
    """

    applicant_id: str
    requested_by: str
    purpose: str | None = None


@dataclass(frozen=True)
class Forgotten:
    """sequence: of the last event of the request; profiles: how many were deleted."""

    sequence: int
    profiles: int


async def forget(store: Store, tokenizer: Tokenizer, asked: Forgetting) -> Forgotten:
    """Record a request over every schema that the tenant has had. Raises InvalidFieldError, StoreError."""
    while (done := await _asked_of(store, await store.schemas(), tokenizer, asked)) is None:
        pass  # a release that starts meanwhile brought a schema more
    return done


async def _asked_of(
    store: Store, documents: Mapping[str, Mapping[str, Any]], tokenizer: Tokenizer, asked: Forgetting
) -> Forgotten | None:
    """Record a request over some schemas; None, and nothing written, where the tenant has others by now."""
    applicants = {name: _applicant(document, tokenizer, asked) for name, document in documents.items()}
    everyone = sorted({*applicants.values()})
    profiles: list[str] = []
    if asked.purpose is None:
        events = [pack_forgotten(applicant, _EVERY_SLOT, _EVERY_SCHEMA) for applicant in everyone]
        named = {f"p:{s}:{applicants[name]:016x}" for name, d in documents.items() for s in _own_sources(d)}
        profiles = sorted(named)
    else:
        events = _withdrawn(documents, applicants, asked.purpose)
    tokens = [f"{applicant:016x}" for applicant in everyone]
    record = {"applicants": tokens, "purpose": asked.purpose, "requested_by": asked.requested_by}
    arguments: list[bytes | str] = [store.epoch, str(len(documents)), json.dumps(record, ensure_ascii=False)]
    arguments += [str(len(events)), *events, *(f"{token}:{asked.purpose or ''}" for token in tokens)]
    keys = store.keys("log", "meta", "forgotten", "withdrawn", "schemas", *profiles)
    done = await store.call("forget", keys, arguments, durable=True)
    return None if done is None else Forgotten(int(done[0]), int(done[1]))


def _withdrawn(documents: Mapping[str, Mapping[str, Any]], applicants: Mapping[str, int], purpose: str) -> list[bytes]:
    """An event for each schema that asks for consent to the purpose. Raises InvalidFieldError where none does."""
    slots = {name: consent_slots(document) for name, document in sorted(documents.items())}
    known = sorted({*chain.from_iterable(slots.values())})
    if purpose not in known:
        raise InvalidFieldError("purpose", f"must be one of {', '.join(known) or 'none'}")
    return [
        pack_forgotten(
            applicants[name], sum(1 << s for s in of[purpose]), int.from_bytes(bytes.fromhex(name), "little")
        )
        for name, of in slots.items()
        if purpose in of
    ]


def _applicant(document: Mapping[str, Any], tokenizer: Tokenizer, asked: Forgetting) -> int:
    """The applicant's token under a schema, whose first entity is the applicant whatever it is called."""
    kind = next(iter(document.get("entities") or {}), "applicant")
    if quotes(asked.requested_by, kind, asked.applicant_id):
        raise InvalidFieldError("requested_by", "holds the identifier, which is kept nowhere")
    try:
        return tokenizer.token(kind, asked.applicant_id)
    except ValueError:
        raise InvalidFieldError("applicant_id", f"is no {kind}") from None


def _own_sources(document: Mapping[str, Any]) -> list[str]:
    """The sources of a schema that know the applicant, and not a vehicle."""
    kind = next(iter(document.get("entities") or {}), "applicant")
    return [name for name, source in (document.get("sources") or {}).items() if (source.get("of") or kind) == kind]
