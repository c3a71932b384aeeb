"""Identifiers become keyed 64-bit tokens on arrival; nothing else of them is kept (R21).

BLAKE2b (RFC 7693) keyed with the tenant's secret over the entity's type and the normalised identifier, so the same
phone number is another token at another lender. Token 0 means absent.
"""

import hashlib
import unicodedata
from collections.abc import Callable

SECRET_MIN_BYTES = 16
_QUOTED_MIN = 6  # an identifier shorter than that may stand in a text by chance

# Unicode's default-ignorable characters beside those of category Cf: they show nothing, so they tell nobody apart.
_BLANK = frozenset(map(chr, (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0))) | frozenset(
    map(chr, (*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)))
)


def plain(text: str) -> str:
    """A text in Unicode's compatibility form (NFKC), without the characters that show nothing."""
    if text.isascii():
        return text
    shown = "".join(c for c in text if c not in _BLANK and unicodedata.category(c) != "Cf")
    return unicodedata.normalize("NFKC", shown)


def phone(text: str) -> str:
    """Digits alone, without the country's 86."""
    if len(text) == 11 and text.isdigit():
        return text
    digits = "".join(c for c in text if c.isdigit())
    for prefix in ("0086", "86"):
        if digits.startswith(prefix) and len(digits) == len(prefix) + 11:
            return digits[len(prefix) :]
    return digits


def compact(text: str) -> str:
    """Without spaces, in capitals."""
    return "".join(text.split()).upper()


def card(text: str) -> str:
    """Without spaces and hyphens."""
    return compact(text).replace("-", "")


def ip(text: str) -> str:
    """In small letters."""
    return text.strip().lower()


# How an identifier of a type is written in one way: 身份证 x/X, 统一社会信用代码, phone +86, spaces in card numbers.
NORMALISERS: dict[str, Callable[[str], str]] = {
    "applicant": compact, "phone": phone, "contact": phone, "card": card, "vehicle": compact,
    "company": compact, "ip": ip,
}  # fmt: skip


def normaliser(entity_type: str) -> Callable[[str], str]:
    """How an identifier of a type is written in one way."""
    return NORMALISERS.get(entity_type, str.strip)


def quotes(text: str, entity_type: str, identifier: str) -> bool:
    """Whether a text that is kept holds an identifier, which is not, in whichever way both are written."""
    for normal in (normaliser(entity_type), lambda t: "".join(t.split()).casefold()):
        sought, within = (normal(plain(t)) for t in (identifier, text))
        if len(sought) >= _QUOTED_MIN and sought in within:
            return True
    return False


class Tokenizer:
    """Makes tokens under one tenant's secret, at least 16 bytes."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < SECRET_MIN_BYTES:
            raise ValueError(f"token secret: at least {SECRET_MIN_BYTES} bytes")
        self._key = hashlib.blake2b(secret, digest_size=32).digest()
        # to be copied: half of the work on a short text
        self._hash8 = hashlib.blake2b(key=self._key, digest_size=8)
        self._id_hash = hashlib.blake2b(b"id\0", key=self._key, digest_size=16)

    @property
    def hash_key(self) -> bytes:
        """32 bytes: what a native decoder makes the same tokens and body hashes under. As secret as the secret."""
        return self._key

    def token(self, entity_type: str, identifier: str) -> int:
        """uint64 token of an identifier of a type, never 0; ValueError if nothing is left after normalising."""
        normal = normaliser(entity_type)(plain(identifier))
        if not normal:
            raise ValueError(f"it is no {entity_type}")
        return self._token(entity_type, normal)

    def compound(self, entity_type: str, tokens: tuple[int, ...]) -> int:
        """uint64 token of several entities seen together."""
        return self._token(entity_type, ",".join(map(str, tokens)))

    def key(self, application_id: str) -> str:
        """32 hex digits under which an application or an outcome is stored: ids may hold personal data."""
        keyed = self._id_hash.copy()
        keyed.update(application_id.encode())
        return keyed.hexdigest()

    def body_hash(self, body: bytes) -> bytes:
        """16 bytes that tell one body from another; keyed, so that nobody can try bodies against it."""
        return hashlib.blake2b(body, key=self._key, digest_size=16).digest()

    def _token(self, entity_type: str, normal: str) -> int:
        keyed = self._hash8.copy()
        keyed.update(f"{entity_type}\0{normal}".encode())
        return int.from_bytes(keyed.digest(), "little") or 1
