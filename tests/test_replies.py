"""Replies are what protobuf itself would say, of every number and word."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from features.application import Reason
from policy.decide import Decision, Outcome
from policy.funding import Offer, Share
from proto.miaopi.v1 import decision_pb2 as pb
from server.replies import Place, addressed, decision_replies

VERSIONS = pb.DecideResponse(versions=pb.Versions(bundle="b", policy="p", schema="s"))
PRODUCT: Any = SimpleNamespace(versions=VERSIONS.SerializeToString())
INTEGER = st.integers(0, 2**63 - 1)
RATE = st.floats(0, 1)
WORDS = st.text(max_size=150)
REASON = st.builds(Reason, WORDS, WORDS, WORDS, st.just(0.0), WORDS, WORDS)
MOVED = st.builds(Reason, WORDS, WORDS, WORDS, st.floats(1e-9, 9), WORDS)
SHARE = st.builds(Share, st.builds(Offer, WORDS, WORDS, RATE, INTEGER, RATE), INTEGER)
DECISION = st.builds(
    Decision, st.sampled_from(list(Outcome)[1:]), INTEGER, RATE, RATE, st.sampled_from(["", "AAA"]),
    st.lists(REASON, max_size=3).map(tuple), st.lists(WORDS, max_size=2).map(tuple), st.just(()),
    st.lists(SHARE, max_size=2).map(tuple),
)  # fmt: skip
PROBABILITY = RATE | st.just(math.nan)
ROW = st.tuples(DECISION, st.lists(MOVED, max_size=3), PROBABILITY, PROBABILITY, INTEGER, INTEGER, INTEGER)
EPOCH = "0123456789abcdef"


def reason(r: Reason) -> pb.Reason:
    return pb.Reason(
        code=r.code, text_zh=r.zh, text_en=r.en, contribution=r.contribution, evidence=r.evidence,
        legal_source=r.legal_source,
    )  # fmt: skip


def said(d: Decision, moved: list[Reason], fraud: float, default: float, *place: int) -> pb.DecideResponse:
    sequence, as_of, event_time_ms = place
    position = pb.LogPosition(epoch=EPOCH, sequence=sequence, as_of=as_of, event_time_ms=event_time_ms)
    shares = [(s.offer.funder, s.amount_minor, s.offer.funder_rate, s.offer.mode) for s in d.shares]
    return pb.DecideResponse(
        application_id="a", outcome=pb.Outcome.Name(d.outcome.value), approved_amount_minor=d.approved_amount_minor,
        annual_rate=d.annual_rate, all_in_rate=d.all_in_rate, grade=d.grade,
        reasons=[reason(r) for r in (*d.reasons, *moved)], fraud_probability=fraud,
        default_probability=None if math.isnan(default) else default, versions=VERSIONS.versions,
        log_position=position, degraded=d.degraded,
        funding=[pb.FundingShare(funder=f, amount_minor=a, funder_rate=r, mode=m) for f, a, r, m in shares],
    )  # fmt: skip


@settings(deadline=None)  # the first compiles
@given(st.lists(ROW, min_size=1, max_size=4))
def test_a_reply_says_what_protobuf_says(rows: list[Any]) -> None:
    decisions, moved, fraud, default, *place = zip(*rows, strict=True)
    at = Place(EPOCH, *(np.array(column, dtype=np.int64) for column in place))
    replies = decision_replies(PRODUCT, decisions, moved, np.array(fraud), np.array(default), at)
    for row, reply in zip(rows, replies, strict=True):
        found, expected = pb.DecideResponse.FromString(addressed("a", reply)), said(*row)
        assert found.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)
