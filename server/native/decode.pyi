from features.schema import Schema
from server.native.plain import ProductPlan

FEATURES_MAX: int

class Decoder:
    def __init__(
        self,
        tenants: tuple[tuple[str, bytes], ...],
        products: tuple[ProductPlan, ...],
        repayment_methods: tuple[str, ...],
        consortium: bytes | None,
        replaying: bool,
    ) -> None: ...
    def decode(
        self, body: bytes, latest_consent_ms: int, /
    ) -> (
        tuple[
            str, str, Schema, str, int, int, bytes, dict[str, float], str, int, int, bool, int, bytes, dict[str, int],
            bytes | None,
        ]
        | None
    ): ...  # fmt: skip

def split(body: bytes, most: int, /) -> list[bytes] | None: ...
def blake2b(key: bytes, message: bytes, digest_size: int, /) -> bytes: ...
