"""The events of a tenant's log and their packed encoding: fixed size, so a page of the log decodes in one call.

An event is an application (its tokens, amount and record), a report (which labels of which application it sets), an
approved change of a list (which token goes on or off) or a request to forget (which slots of an applicant's
applications are empty from here on).
The store appends the last two fields, which only it knows. EVENT_VERSION changes with the layout: a reader refuses
another version instead of guessing.
"""

import math
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from features.application import Application, Report
from features.schema import RECORD_MAX, SLOTS_MAX, Schema
from features.specs import LISTS, OUTCOME_KINDS

EVENT_VERSION = 1
APPLICATION, REPORT, LISTED, FORGOTTEN = 1, 2, 3, 4
LABELS = ("fraud", "default")
LABEL_UNCHANGED, LABEL_UNKNOWN, LABEL_GOOD, LABEL_BAD, LABEL_PRESUMED_GOOD = -2, -1, 0, 1, 2

EVENT = np.dtype(
    [
        ("version", "u1"), ("kind", "u1"), ("fraud", "i1"), ("default", "i1"),
        ("schema", "<u8"), ("amount", "<f8"), ("tokens", "<u8", SLOTS_MAX), ("record", "<f4", RECORD_MAX),
        ("subject", "<i8"), ("sequence", "<i8"),
    ]
)  # fmt: skip
# A report's event in the same bytes: outcome is 1 + its index in specs.OUTCOME_KINDS, 0 in logs of before.
REPORTED = np.dtype(
    [
        ("head", "V4"), ("outcome", "<u8"), ("amount_minor", "<i8"), ("rest", f"V{EVENT.itemsize - 36}"),
        ("subject", "<i8"), ("sequence", "<i8"),
    ]
)  # fmt: skip
# A change of a list in the same bytes: list is 1 + its index in specs.LISTS; expires_at_ms 0 for never; shared: the
# token is one under the consortium's secret; entry: id of the proposal that was approved.
LISTING = np.dtype(
    [
        ("head", "V4"), ("list", "u1"), ("remove", "u1"), ("shared", "u1"), ("spare", "V1"), ("expires_at_ms", "<i8"),
        ("token", "<u8"), ("entry", "V16"), ("rest", f"V{EVENT.itemsize - 56}"),
        ("subject", "<i8"), ("sequence", "<i8"),
    ]
)  # fmt: skip
# What is forgotten, in the same bytes: bit i of `slots` empties slot i of the applicant's applications so far, those of
# the schema with this fingerprint or, where it is 0, of all.
FORGETTING = np.dtype(
    [
        ("head", "V4"), ("schema", "<u8"), ("amount", "<f8"), ("applicant", "<u8"), ("slots", "<u8"),
        ("rest", f"V{EVENT.itemsize - 52}"), ("subject", "<i8"), ("sequence", "<i8"),
    ]
)  # fmt: skip
TOKENS_AT = EVENT.fields["tokens"][1] if EVENT.fields else 0  # bytes before the first token
_STORE_FIELDS = 16  # bytes of subject and sequence
_PACKED_HEAD = struct.Struct("<BBbbQd").pack
_NO_RECORD = array("f", [math.nan] * RECORD_MAX).tobytes()


class EventFormatError(ValueError):
    """Bytes in the log that are no event of this version."""


@dataclass(frozen=True)
class Events:
    """A stretch of the log in order. fields: EVENT [n]; time_ms: int64 [n], from the stream ids."""

    fields: NDArray[np.void]
    time_ms: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.fields)


def pack_application(application: Application) -> bytes:
    """An application's event without the fields that the store appends."""
    schema, numbers = application.schema, application.numbers
    record = array("f", [numbers.get(name, math.nan) for name in schema.record])
    return b"".join((
        _PACKED_HEAD(
            EVENT_VERSION, APPLICATION, LABEL_UNCHANGED, LABEL_UNCHANGED, int.from_bytes(schema.fingerprint, "little"),
            application.amount_minor / schema.minor_per_major,
        ), application.tokens.tobytes(), record.tobytes(), _NO_RECORD[4 * len(record) :],
    ))  # fmt: skip


def pack_report(report: Report, schema: Schema) -> bytes:
    """A report's event without the fields that the store appends. A label that the kind does not set is unchanged."""
    event = np.zeros((), dtype=EVENT)
    event["version"], event["kind"] = EVENT_VERSION, REPORT
    for name in LABELS:
        event[name] = label_value(schema, name, report.kind)
    said = event.view(REPORTED)
    said["outcome"], said["amount_minor"] = 1 + OUTCOME_KINDS.index(report.kind), report.amount_minor
    return event.tobytes()[:-_STORE_FIELDS]


def pack_listing(entry_id: str, kind: str, token: int, remove: bool, shared: bool, expires_at_ms: int) -> bytes:
    """The event of an approved change of the list `kind`, without the fields that the store appends. It sets no label.

    entry_id: 32 hex digits. token: uint64.
    """
    event = np.zeros((), dtype=EVENT)
    event["version"], event["kind"] = EVENT_VERSION, LISTED
    event["fraud"] = event["default"] = LABEL_UNCHANGED
    said = event.view(LISTING)
    said["list"], said["remove"], said["shared"] = 1 + LISTS.index(kind), remove, shared
    said["expires_at_ms"], said["token"], said["entry"] = expires_at_ms, token, np.void(bytes.fromhex(entry_id))
    return event.tobytes()[:-_STORE_FIELDS]


def packed(events: Events) -> list[bytes]:
    """Events of a log without the fields that the store appended: to append them to another."""
    return [event.tobytes()[:-_STORE_FIELDS] for event in events.fields]


def pack_forgotten(applicant: int, slots: int, schema: int) -> bytes:
    """The event that empties slots of an applicant's applications, without the fields that the store appends."""
    event = np.zeros((), dtype=EVENT)
    event["version"], event["kind"] = EVENT_VERSION, FORGOTTEN
    event["fraud"] = event["default"] = LABEL_UNCHANGED
    said = event.view(FORGETTING)
    said["schema"], said["applicant"], said["slots"] = schema, applicant, slots
    return event.tobytes()[:-_STORE_FIELDS]


def label_value(schema: Schema, label: str, kind: str) -> int:
    """What an outcome kind makes of a label: one of the LABEL_ constants."""
    if kind == "retracted":
        return LABEL_UNKNOWN
    if label not in schema.labels:
        return LABEL_UNCHANGED
    if kind in schema.labels[label].bad:
        return LABEL_BAD
    if kind in schema.labels[label].presumed_good:
        return LABEL_PRESUMED_GOOD
    return LABEL_GOOD if kind in schema.labels[label].good else LABEL_UNCHANGED


@njit(cache=True, nogil=True)
def settle(known: int, reported: int) -> int:
    """The label after a report: the last word counts, but what is only presumed good takes back nothing known."""
    if reported == LABEL_PRESUMED_GOOD:
        return LABEL_GOOD if known == LABEL_UNKNOWN else known
    return known if reported == LABEL_UNCHANGED else reported


def finish(packed: bytes, subject: int, sequence: int) -> bytes:
    """What the store makes of a packed event; replay without a store uses this."""
    return packed + subject.to_bytes(8, "little") + sequence.to_bytes(8, "little")


def unpack(blobs: Sequence[bytes], time_ms: Sequence[int]) -> Events:
    """Events of finished blobs and their times. Raises EventFormatError on a wrong size or version."""
    joined = b"".join(blobs)
    if len(joined) != len(blobs) * EVENT.itemsize:
        raise EventFormatError(f"{len(blobs)} events of {EVENT.itemsize} bytes expected, {len(joined)} bytes found")
    fields = np.frombuffer(joined, dtype=EVENT)
    if joined[:: EVENT.itemsize].count(EVENT_VERSION) != len(fields):  # the version is the first byte
        raise EventFormatError(f"event version {EVENT_VERSION} expected, {set(fields['version'].tolist())} found")
    return Events(fields, np.array(time_ms, dtype=np.int64))
