"""How this process is deployed, read once from the environment. Risk settings are policy files."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from features.list_entries import CONSORTIUM
from features.tokens import SECRET_MIN_BYTES

LOOPBACK = ("127.0.0.1", "[::1]", "localhost")


class Settings(BaseSettings):
    """Environment variables MIAOPI_<NAME>, and REDIS_URL. An unknown MIAOPI_ variable refuses to start."""

    model_config = SettingsConfigDict(env_prefix="MIAOPI_", frozen=True, hide_input_in_errors=True)

    listen: str = Field("127.0.0.1:50051", description="host:port or unix:PATH; beyond loopback only with TLS")
    native_listen: str = Field("", description="as listen, for the native front end: unary calls alone, and faster")
    processes: int = Field(1, ge=1, le=256, description="servers that share the ports, one a core: server.processes")
    reuse_port: bool = Field(False, description="share the ports with other servers of this machine")
    redis_url: str = Field("", validation_alias="REDIS_URL", description="empty: an embedded store for this process")
    token_secrets: dict[str, str] = Field({}, description="JSON, token secret by tenant, at least 16 bytes each")
    consortium_secret: str = Field("", description="token secret of the lenders that share lists, at least 16 bytes")
    schemas: Path = Field(Path("features/schemas"), description="folder of <schema>.yaml")
    bundles: Path = Field(Path("models/demo"), description="the registry of bundles")
    policies: Path = Field(Path("policy/products"), description="folder of <product>/policy.json")
    snapshots: Path | None = Field(None, description="folder of graph snapshots: python -m features snapshot writes it")
    tls_cert: Path | None = Field(None, description="PEM certificate chain")
    tls_key: Path | None = Field(None, description="PEM key of it")
    tls_client_ca: Path | None = Field(None, description="PEM of who signs clients' certificates: mTLS")
    replay: bool = Field(False, description="take event times from requests: for feeding history only")
    profile_days: int = Field(0, ge=0, description="days after its fetch until a profile is deleted; 0: never")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda:\d+)$", description="decides; auto: cuda:0, or cpu")
    device_batch_min: int = Field(1, ge=1, le=1024, description="smaller batches are decided on the CPU")
    deep_on_cpu: Literal["refuse", "slow"] = Field("refuse", description="what a deep network does where no GPU is")
    batch_max: int = Field(64, ge=1, le=1024)
    queue_max: int = Field(1024, ge=1, description="applications waiting per tenant; more get RESOURCE_EXHAUSTED")
    deadline_min_ms: float = Field(2.0, ge=0, description="less time left than this: not begun")
    drain_seconds: float = Field(10.0, ge=0)
    wait_replicas: int = Field(0, ge=0, description="replicas of the store that must have a decision before its reply")
    wait_aof: bool = Field(False, description="whether it must be in the store's append-only file on disk")
    wait_ms: int = Field(100, ge=1, le=1000, description="for how long at most; then UNAVAILABLE")

    @model_validator(mode="after")
    def _check(self) -> "Settings":
        known = {f"MIAOPI_{name.upper()}" for name in type(self).model_fields if name != "redis_url"}
        unknown = sorted(n for n in os.environ if n.startswith("MIAOPI_") and n not in known)
        if unknown:
            raise ValueError(f"unknown setting {', '.join(unknown)}")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("MIAOPI_TLS_CERT and MIAOPI_TLS_KEY go together")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("MIAOPI_TLS_CLIENT_CA needs MIAOPI_TLS_CERT")
        for name, address in (("LISTEN", self.listen), ("NATIVE_LISTEN", self.native_listen)):
            near = not address or address.startswith("unix:") or address.rsplit(":", 1)[0] in LOOPBACK
            if self.tls_cert is None and not near:
                raise ValueError(f"MIAOPI_{name}={address}: only loopback or unix: without MIAOPI_TLS_CERT")
        for path in (self.tls_cert, self.tls_key, self.tls_client_ca):
            if path is not None and not path.is_file():
                raise ValueError(f"{path}: no such file")
        if self.processes > 1 or self.reuse_port:
            if self.replay:
                raise ValueError("MIAOPI_REPLAY: history is fed to one process, in order")
            for name, address in (("LISTEN", self.listen), ("NATIVE_LISTEN", self.native_listen)):
                if address.startswith("unix:") or address.endswith(":0"):
                    raise ValueError(f"MIAOPI_{name}={address}: only a TCP port of one's choice can be shared")
        if self.redis_url and not self.token_secrets:
            raise ValueError("MIAOPI_TOKEN_SECRETS is needed with REDIS_URL")
        for tenant, secret in self.token_secrets.items():
            if len(secret.encode()) < SECRET_MIN_BYTES:
                raise ValueError(f"MIAOPI_TOKEN_SECRETS: {tenant}: at least {SECRET_MIN_BYTES} bytes")
        if CONSORTIUM in self.token_secrets:
            raise ValueError(f"MIAOPI_TOKEN_SECRETS: {CONSORTIUM} is no lender: shared lists are kept under that name")
        if self.consortium_secret and len(self.consortium_secret.encode()) < SECRET_MIN_BYTES:
            raise ValueError(f"MIAOPI_CONSORTIUM_SECRET: at least {SECRET_MIN_BYTES} bytes")
        return self
