"""List entries on the wire: requests into features.list_entries, which checks and stores, and its answers back."""

from collections.abc import Collection

from features.list_entries import Entry, EntryRefusedError, ListEntries
from features.specs import LISTS
from proto.miaopi.v1 import decision_pb2 as pb
from server.errors import ConflictError, NotFoundError, PermissionDeniedError, PreconditionError

PAGE = 64  # where the request does not say

_ERROR_OF = {
    "NOT_FOUND": NotFoundError,
    "SAME_PERSON": PermissionDeniedError,
    "APPROVED": ConflictError,
    "EXPIRED": PreconditionError,
}
_KIND_OF = dict(enumerate(LISTS, 1))  # by number of pb.ListKind


async def propose(entries: ListEntries, types: Collection[str], request: pb.ProposeListEntryRequest) -> bytes:
    """The response of a proposal. types: of entities that can be listed. Raises InvalidFieldError."""
    proposal = entries.proposal(
        types,
        kind=_KIND_OF.get(request.list, ""),
        entity_type=request.entity.type,
        identifier=request.entity.id,
        remove=request.remove,
        shared=request.shared,
        reason=request.reason,
        source=request.source,
        expires_at_ms=request.expires_at_ms,
        proposed_by=request.proposed_by,
    )
    return pb.ProposeListEntryResponse(entry_id=await entries.propose(proposal)).SerializeToString()


async def approve(entries: ListEntries, request: pb.ApproveListEntryRequest, replaying: bool) -> bytes:
    """The response of an approval. Raises InvalidFieldError, and a ServiceError where it cannot be approved."""
    if replaying:
        raise PreconditionError("a server in replay mode puts nothing on a list: an approval is of now, not of history")
    try:
        sequence = await entries.approve(request.entry_id, request.approved_by)
    except EntryRefusedError as error:
        raise _ERROR_OF[error.status](str(error)) from None
    return pb.ApproveListEntryResponse(sequence=sequence).SerializeToString()


async def page(entries: ListEntries, request: pb.ListEntriesRequest) -> bytes:
    """The response with a page of entries. Raises InvalidFieldError."""
    kinds = LISTS if not request.list else (_KIND_OF.get(request.list, ""),)
    found, after = await entries.page(kinds, request.waiting, request.page_size or PAGE, request.page_token)
    response = pb.ListEntriesResponse(entries=[_entry(entry) for entry in found], next_page_token=after)
    return response.SerializeToString()


def _entry(entry: Entry) -> pb.ListEntry:
    said = entry.proposal
    return pb.ListEntry(
        entry_id=entry.entry_id,
        list=pb.ListKind.Name(1 + LISTS.index(said.kind)),
        entity_type=said.entity_type,
        remove=said.remove,
        shared=said.shared,
        reason=said.reason,
        source=said.source,
        expires_at_ms=said.expires_at_ms,
        proposed_by=said.proposed_by,
        proposed_at_ms=entry.proposed_at_ms,
        approved_by=entry.approved_by,
        approved_at_ms=entry.approved_at_ms,
    )
