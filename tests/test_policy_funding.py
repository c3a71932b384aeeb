"""Shares sum to the loan or to the most that can be lent, found here by trying every amount."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from policy.funding import Offer, split

offers = st.lists(
    st.builds(
        lambda i, share, cap, rate: Offer(f"f{i}", "joint", share, cap, rate),
        st.integers(0, 9), st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]), st.integers(0, 6_000),
        st.sampled_from([0.0, 0.1]),
    ),
    max_size=4, unique_by=lambda offer: offer.funder,
)  # fmt: skip


@settings(deadline=None)  # what numba compiles, it compiles in the first example
@given(
    offers=offers, amount=st.integers(1, 9_000), rounding=st.sampled_from([100, 700, 1_000]), lent=st.integers(0, 7_000)
)
def test_the_most_that_can_be_lent_is_lent(offers: list[Offer], amount: int, rounding: int, lent: int) -> None:
    before = {offer.funder: lent for offer in offers[:1]}
    willing = [offer for offer in offers if offer.funder_rate <= 0.05]
    room = {offer.funder: offer.cap_minor - before.get(offer.funder, 0) for offer in willing}

    def lendable(some: int) -> bool:
        parts = (min(math.ceil(offer.share_max * some - 1e-6), room[offer.funder]) for offer in willing)
        return sum(max(part, 0) for part in parts) >= some

    shares = split(amount, 0.05, rounding, offers, before)
    total = sum(share.amount_minor for share in shares)
    below = [some for some in range(0, amount, rounding) if lendable(some)]
    assert total == (amount if lendable(amount) else max(below))
    for share in shares:
        assert 0 < share.amount_minor <= room[share.offer.funder] and type(share.amount_minor) is int
        assert share.amount_minor <= math.ceil(share.offer.share_max * total)
    below_shares = sum(max(min(_floor(o.share_max * total), room[o.funder]), 0) for o in willing)
    above = [s for s in shares if s.amount_minor > _floor(s.offer.share_max * total)]
    assert not above or below_shares < total
    assert [share.offer for share in shares] == [o for o in willing if o in [share.offer for share in shares]]


def _floor(amount: float) -> int:
    return math.floor(amount + 1e-6)


def test_a_share_is_rounded_up_only_where_nobody_else_lends_the_rest() -> None:
    """Of 0.7 the law may be the source, and a fen more is above it."""
    bank = Offer("bank", "joint", 0.7, 10**9, 0.0)
    for share_max, parts in ((1.0, [700_000, 300_001]), (0.3, [700_001, 300_000])):
        shares = split(1_000_001, 0.05, 100, (bank, Offer("own", "own", share_max, 10**9, 0.0)), {})
        assert [share.amount_minor for share in shares] == parts
