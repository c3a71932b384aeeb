"""What waits for a person, and what a person decides of it (R22): the service's side of features.reviews.

A person decides within the policy that is served now: its authority, caps, exposure and funders. The first decision
stays on record beside what the person said.
"""

import math
from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from features import evidence
from features.application import InvalidFieldError, borrower, check_person, check_text
from features.consent import consent_slots
from features.evidence import Facts
from features.forgotten import drawn_from
from features.reservations import Reservation
from features.reviews import FORGOTTEN, Case, ReviewQueue
from features.schema import Schema
from features.tokens import Tokenizer
from policy.authority import Mandate, mandate
from policy.cells import Value
from policy.decide import Policy
from policy.funding import Share, split
from policy.rates import all_in_rate
from policy.specs import AUTHORITY, LISTS
from proto.miaopi.v1 import decision_pb2 as pb
from server import wire
from server.engine import Engine
from server.errors import ConflictError, NotFoundError, PermissionDeniedError, PreconditionError, UnavailableError
from server.products import Product
from server.replies import funding

PAGE_MAX, PAGE_USUAL = 256, 64
NOTE_MAX = 1000
OFFICER = "officer"  # the type of entity that brings applications in
_KEY_DIGITS = 32
_CLOSED = {
    "ENDED": "a report has ended the application",
    "FORGOTTEN": "the applicant is forgotten on request; a new application is decided anew",
}


class Reviews:
    """The queue of one tenant as the service answers for it."""

    def __init__(
        self, queue: ReviewQueue, tokenizer: Tokenizer, products: Mapping[str, Product], engine: Engine
    ) -> None:
        self._queue, self._tokenizer, self._products, self._engine = queue, tokenizer, products, engine
        self._schemas: dict[str, Schema | None] = {}

    async def page(self, request: pb.ListReviewsRequest) -> pb.ListReviewsResponse:
        """A page of the queue. Raises InvalidFieldError."""
        if not 0 <= request.page_size <= PAGE_MAX:
            raise InvalidFieldError("page_size", f"must be from 0 to {PAGE_MAX}, is {request.page_size}")
        cases, after = await self._queue.page(_place(request.page_token), request.page_size or PAGE_USUAL)
        seen = [(case, evidence.unpack(case.evidence)) for case in cases]
        schemas = [await self._schema(facts.schema) for _, (facts, _) in seen]
        purposes = [consent_slots(schema.document) if schema else {} for schema in schemas]
        withdrawn = await self._queue.withdrawn(list(zip(cases, purposes, strict=True)))
        await self._queue.drop([case for case, of in zip(cases, withdrawn, strict=True) if FORGOTTEN in of])
        reply = pb.ListReviewsResponse(next_page_token="" if after is None else f"{after[0]}-{after[1]}")
        for (case, (facts, row)), schema, of in zip(seen, schemas, withdrawn, strict=True):
            if FORGOTTEN not in of:
                reply.reviews.append(_pending(case, facts, schema, row, of))
        return reply

    async def resolution(self, application_id: str) -> pb.ReviewResolution | None:
        """What a person decided of an application; None where nobody has."""
        case = await self._queue.case(self._tokenizer.key(application_id))
        return _stored(case.resolution, case.resolved_at_ms) if case and case.resolution else None

    async def resolve(self, request: pb.ResolveReviewRequest) -> pb.ReviewResolution:
        """Record what a person decides; it is stored once.

        Raises InvalidFieldError, NotFoundError, ConflictError, PermissionDeniedError, PreconditionError and
        UnavailableError.
        """
        asked, key = _checked(request), self._key(request)
        case = await self._queue.case(key)
        if case is None:
            raise NotFoundError("application_id, review_id: no decision is stored for it")
        asked_hash = self._tokenizer.body_hash(asked.SerializeToString(deterministic=True))
        if case.resolution:
            return await self._known(case, asked_hash)
        first = pb.DecideResponse.FromString(case.decision)
        if first.outcome != pb.OUTCOME_REVIEW:
            raise PreconditionError(f"it does not wait for a person: {pb.Outcome.Name(first.outcome)}")
        if (product := self._products.get(case.product)) is None:
            raise UnavailableError(f"its product {case.product} is not served here")
        try:
            reservation = await self._reservation(case, product.policy, first, asked)
        except PreconditionError:  # the same request, under way twice, may have taken the room itself
            again = await self._queue.case(key)
            if again is not None and again.resolution:
                return await self._known(again, asked_hash)
            raise
        asked.policy = product.policy.version
        body = asked.SerializeToString(deterministic=True)
        said = await self._queue.resolve(case, asked_hash, body, reservation, list(product.policy.funders))
        if said.status == "CONFLICT":
            raise ConflictError("a person has decided otherwise")
        if said.status in _CLOSED:
            raise PreconditionError(_CLOSED[said.status])
        if said.status == "REFUSED" and reservation is not None:
            raise PreconditionError(_no_room(reservation, said.exposure_minor, said.lent or {}))
        return _stored(said.resolution, said.resolved_at_ms)

    async def _known(self, case: Case, asked_hash: bytes) -> pb.ReviewResolution:
        """What is on record, once enough have it. Raises ConflictError for who asks for anything else."""
        if case.asked_hash != asked_hash:
            raise ConflictError("a person has decided otherwise")
        await self._queue.confirm()
        return _stored(case.resolution, case.resolved_at_ms)

    async def _reservation(
        self, case: Case, policy: Policy, first: pb.DecideResponse, asked: pb.ReviewResolution
    ) -> Reservation | None:
        """What the resolution takes, all that the policy lets a person decide checked; the shares enter `asked`."""
        facts, row = evidence.unpack(case.evidence)
        schema = await self._schema(facts.schema)
        if facts.asked is None or schema is None:
            raise PreconditionError("its evidence does not say what was asked for; decide on a new application")
        (withdrawn,) = await self._queue.withdrawn([(case, consent_slots(schema.document))])
        may = mandate(policy.tables, _inputs(schema, facts, row, first, withdrawn), asked.authority)
        if not may.holds:
            known = "has no such authority" if AUTHORITY in policy.tables else "has no table authority: nobody decides"
            raise PermissionDeniedError(f"authority: the policy of {case.product} {known}")
        if asked.outcome == pb.OUTCOME_DECLINE:
            return None
        _check_terms(asked, facts.asked, may)
        await self._check_standing(case, facts, schema, asked.reviewer)
        shares: tuple[Share, ...] = ()
        if policy.funders:
            lent = await self._queue.lent(policy.funders)
            amount = asked.approved_amount_minor
            shares = split(amount, asked.annual_rate, may.rounding_minor, may.offers, lent)
            if (funded := sum(share.amount_minor for share in shares)) < amount:
                raise PreconditionError(
                    f"approved_amount_minor: the funders lend {funded} of {amount} at this rate now"
                )
        asked.funding.extend(funding(shares))
        taken = tuple((s.offer.funder, s.amount_minor, s.offer.cap_minor) for s in shares)
        whose = borrower(self._products[case.product].schema, int(case.applicant, 16))
        return Reservation(whose, asked.approved_amount_minor, may.exposure_max_minor, taken)

    async def _check_standing(self, case: Case, facts: Facts, schema: Schema, reviewer: str) -> None:
        """Nobody approves what a report ended, what they brought in themselves, or who is known by now to be worse than
        the first decision knew.
        """
        if case.ended:
            raise PreconditionError(_CLOSED["ENDED"])
        if case.tokens is None:
            raise PreconditionError("the log no longer holds the application; decide on a new one")
        officer = schema.entities.get(OFFICER)
        if officer and int(case.tokens[officer.first_slot]) == self._tokenizer.token(OFFICER, reviewer):
            raise PermissionDeniedError("reviewer: is the officer who brought the application; another person decides")
        fraud, black = await self._engine.standing(facts.sequence, case.tokens)
        if fraud:
            raise PreconditionError("fraud is confirmed of it by now")
        if black > (facts.listed or (0,))[0]:
            raise PreconditionError("one of its identifiers is on the black list by now")

    def _key(self, request: pb.ResolveReviewRequest) -> str:
        if bool(request.application_id) == bool(request.review_id):
            raise InvalidFieldError("application_id", "exactly one of application_id and review_id is needed")
        if request.application_id:
            return self._tokenizer.key(check_text("application_id", request.application_id, wire.ID_MAX))
        if not _is_key(request.review_id):
            raise InvalidFieldError("review_id", "is none of the queue")
        return request.review_id

    async def _schema(self, fingerprint: str) -> Schema | None:
        if fingerprint not in self._schemas:
            self._schemas[fingerprint] = await self._queue.schema(fingerprint)
        return self._schemas[fingerprint]


def _pending(
    case: Case, facts: Facts, schema: Schema | None, row: NDArray[np.float32], withdrawn: Collection[str]
) -> pb.PendingReview:
    asked: Mapping[str, int | str] = facts.asked or {}
    reply = pb.PendingReview(
        decision=pb.DecideResponse.FromString(case.decision), product=case.product, review_id=case.review_id,
        amount_minor=int(asked.get("amount_minor", 0)), term_months=int(asked.get("term_months", 0)),
        waiting_since_ms=case.since_ms,
    )  # fmt: skip
    shown: dict[str, Value | None] = dict(_beside(facts))
    if schema is not None:
        private = {feature.name for feature in schema.features if feature.personal}
        named = _features(schema, row, withdrawn).items()
        shown |= {name: value for name, value in named if name not in private}
    for name, value in shown.items():
        if isinstance(value, str):
            reply.facts[name].text = value
        elif value is not None:
            reply.facts[name].number = value
    return reply


def _checked(request: pb.ResolveReviewRequest) -> pb.ReviewResolution:
    """What a request asks to record, whoever's application it is. Raises InvalidFieldError."""
    if request.outcome not in (pb.OUTCOME_APPROVE, pb.OUTCOME_LIMIT, pb.OUTCOME_DECLINE):
        raise InvalidFieldError("outcome", "must be APPROVE, LIMIT or DECLINE")
    approved, most = request.outcome != pb.OUTCOME_DECLINE, wire.MONEY_MAX
    if not int(approved) <= request.approved_amount_minor <= (most if approved else 0):
        raise InvalidFieldError("approved_amount_minor", "must be above 0, and for DECLINE 0")
    if not 0 <= request.annual_rate <= (1 if approved else 0):
        raise InvalidFieldError("annual_rate", "must be from 0 to 1, and for DECLINE 0")
    return pb.ReviewResolution(
        outcome=request.outcome, approved_amount_minor=request.approved_amount_minor, annual_rate=request.annual_rate,
        reviewer=check_person("reviewer", request.reviewer, wire.ID_MAX),
        authority=check_text("authority", request.authority, wire.ID_MAX),
        note=check_text("note", request.note, NOTE_MAX),
    )  # fmt: skip


def _check_terms(resolution: pb.ReviewResolution, asked: Mapping[str, int | str], may: Mandate) -> None:
    """An approval's amount and rate against what was asked, the policy's caps and the reviewer's authority."""
    amount, most = resolution.approved_amount_minor, int(asked["amount_minor"])
    if (resolution.outcome == pb.OUTCOME_APPROVE) != (amount == most) or amount > most:
        raise InvalidFieldError("approved_amount_minor", f"APPROVE is for the {most} asked for, LIMIT for less")
    if amount > may.amount_max_minor:
        raise PermissionDeniedError(f"authority: {resolution.authority} approves at most {may.amount_max_minor}")
    if may.barred:
        raise PreconditionError(f"the policy declines it, whoever decides: {', '.join(dict.fromkeys(may.barred))}")
    if may.undecided:
        raise PreconditionError(f"the policy's tables do not decide for it: {', '.join(may.undecided)}")
    if may.cap_minor is not None and amount > may.cap_minor:
        raise InvalidFieldError("approved_amount_minor", f"is above the policy's cap of {may.cap_minor}")
    if may.cap_rate is not None:
        rate = all_in_rate(
            amount, resolution.annual_rate, int(asked["term_months"]), str(asked["repayment"]),
            int(asked["upfront_fee_minor"]), int(asked["monthly_fee_minor"]),
        )  # fmt: skip
        if rate > may.cap_rate:
            raise InvalidFieldError("annual_rate", f"is {rate:.4f} with all fees, above the policy's {may.cap_rate:g}")


def _inputs(
    schema: Schema, facts: Facts, row: NDArray[np.float32], first: pb.DecideResponse, withdrawn: Collection[str]
) -> dict[str, Value | None]:
    """The policy's inputs by name as the first decision saw them; None is missing."""
    degraded = dict(name.split(":")[1:] for name in first.degraded)
    values = _features(schema, row, withdrawn) | dict(_beside(facts)) | dict(facts.asked or {})
    values |= {f"{source}_state": degraded.get(source, "fresh") for source in schema.sources}
    values |= {"fraud_probability": facts.fraud_probability, "default_probability": facts.default_probability}
    return values | {"human_review_requested": bool((facts.asked or {}).get("human_review_requested"))}


def _beside(facts: Facts) -> dict[str, Value | None]:
    """What the policy saw beside the feature row."""
    listed = dict(zip((f"listed_{kind}" for kind in LISTS), facts.listed or (), strict=False))
    return {"exposure_minor": facts.exposure_minor, "residual_low": facts.residual_low, **listed}


def _features(schema: Schema, row: NDArray[np.float32], withdrawn: Collection[str]) -> dict[str, Value | None]:
    """What models or policy saw of a feature row, by name; an open category's number would tell nobody anything. What
    stands on a consent withdrawn since is missing.
    """
    named: dict[str, Value | None] = {}
    slots = {slot for purpose, of in consent_slots(schema.document).items() if purpose in withdrawn for slot in of}
    gone = drawn_from(schema, sum(1 << slot for slot in slots))
    for feature, number in zip(schema.features, row, strict=True):
        if feature.audit or (feature.category and not feature.values):
            continue
        if math.isnan(number) or feature.name in gone:
            named[feature.name] = None
        else:  # the shortest decimal that the float32 stands for, as policy.inputs has it
            named[feature.name] = feature.values[int(number)] if feature.values else float(str(number))
    return named


def _stored(resolution: bytes, resolved_at_ms: int) -> pb.ReviewResolution:
    stored = pb.ReviewResolution.FromString(resolution)
    stored.resolved_at_ms = resolved_at_ms
    return stored


def _no_room(taken: Reservation, exposure_minor: int, lent: Mapping[str, int]) -> str:
    left = {funder: max(0, cap - lent.get(funder, 0)) for funder, _, cap in taken.shares}
    if taken.exposure_max_minor is not None:
        left = {"the borrower": max(0, taken.exposure_max_minor - exposure_minor)} | left
    return f"approved_amount_minor: left are {', '.join(f'{minor} of {name}' for name, minor in left.items())}"


def _place(token: str) -> tuple[int, str]:
    """Where a page ended; before all for the first."""
    if not token:
        return (0, "")
    since, _, name = token.partition("-")
    if not (since.isascii() and since.isdigit() and len(since) <= 15 and _is_key(name)):
        raise InvalidFieldError("page_token", "is none of a page")
    return int(since), name


def _is_key(text: str) -> bool:
    return len(text) == _KEY_DIGITS and set(text) <= set("0123456789abcdef")
