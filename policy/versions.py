"""Policies of a deployment on disk: as they lie, or every version ever published and which is in service (R16, R19).

`<policies>/<product>/` is a working copy, `policy.json` with what stands beside it, until it holds `roles.json`; then
`<product>/<version>/` are versions, named by `Policy.version`, and the roles say which decides, which did before and
who changed it when. A version is whole on disk and has passed its cases before the roles name it; roles change by one
rename under a lock, so a reader finds the old or the new ones. Versions stay: an old decision names one (R23).
"""

import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from features import schema as schemas
from features.schema import Schema
from policy import cases
from policy.decide import POLICY, Policy
from policy.errors import PolicyError, cannot_read
from policy.reasons import REASONS_PATH

ROLES, LOCK, PUBLISHED = "roles.json", ".lock", "published.json"
WORDS = REASONS_PATH.name
WATCHED = (ROLES, POLICY, WORDS, cases.CASES)  # what a change of is a change of the policy
FILE_MODE, FOLDER_MODE = 0o644, 0o755  # whatever the umask: the server may run as another user
Version = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_VERSION = re.compile(r"[0-9a-f]{64}")


class Change(BaseModel):
    """Who put a version in service, when (UTC) and why."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    action: Literal["kept", "publish", "rollback"]
    version: Version
    by: str
    note: str
    when: str


class Roles(BaseModel):
    """The version in service, those before it, oldest first, and every change there ever was."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    current: Version
    previous: tuple[Version, ...] = ()
    changes: tuple[Change, ...] = ()


def read(folder: Path) -> Roles | None:
    """The roles of a product's folder; None where it is a working copy. Raises PolicyError naming the file."""
    file = folder / ROLES
    try:
        return Roles.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise cannot_read(file, error) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        said = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
        raise PolicyError(file, said, zh=f"内容不符：{said}") from None


def in_service(folder: Path) -> Path:
    """Where the policy lies that a product's folder says decides. Raises PolicyError."""
    roles = read(folder)
    return folder if roles is None else folder / roles.current


def load(place: Path, product: str, schema: Schema) -> Policy:
    """The policy in a place, which passes the cases that lie there. Raises PolicyError, also where a published version
    is not what it was.
    """
    policy = _named(place, product, schema)
    if (table := place / cases.CASES).exists():
        cases.check(table, cases.read(table, schema, policy), policy)
    return policy


def _named(place: Path, product: str, schema: Schema) -> Policy:
    """The policy in a place, which is the one that the place is called after where it is called after a version."""
    policy = Policy.load(place, product, schema)
    if _VERSION.fullmatch(place.name) and policy.version != place.name:
        zh = f"发布之后被改动：现为版本 {policy.version}"
        raise PolicyError(place / POLICY, f"was changed after it was published: is version {policy.version}", zh=zh)
    return policy


def schemas_of(folder: Path) -> dict[str, Schema]:
    """The schema of each product that the schemas of a folder have. Raises SchemaError."""
    return {product: schema for path in sorted(folder.glob("*.yaml")) for schema in (schemas.load(path),)
            for product in schema.products}  # fmt: skip


def publish(policies: Path, source: Path, product: str, schema: Schema, by: str, note: str) -> tuple[str, Roles | None]:
    """Put the policy in the folder `source` in service; its version, and the roles before. Raises PolicyError.

    The version in service already stays so, with the cases of `source`. A working copy is kept as the version before.
    """
    _check_named(by)
    if not (source / cases.CASES).exists():
        zh = "没有这个文件；没有案例的政策不能发布"
        raise PolicyError(source / cases.CASES, "there is none; only a policy with cases is published", zh=zh)
    version = load(source, product, schema).version
    folder = policies / product
    for place in (policies, folder):
        if not place.exists():
            place.mkdir(parents=True, exist_ok=True)
            place.chmod(FOLDER_MODE)
    with _locked(folder):
        before, when = read(folder), _now()
        known = before or _kept(folder, product, schema, version, when)
        _admit(source, folder / version, product, schema, {"by": by, "note": note, "when": when})
        change = Change(action="publish", version=version, by=by, note=note, when=when)
        if known is None:
            _write(folder, Roles(current=version, changes=(change,)))
        elif known.current != version:
            previous, changes = (*known.previous, known.current), (*known.changes, change)
            _write(folder, Roles(current=version, previous=previous, changes=changes))
    return version, known


def rollback(policies: Path, product: str, schema: Schema, by: str, note: str = "") -> Roles:
    """Put the version before the present one in service again; the new roles. Raises PolicyError."""
    _check_named(by)
    folder = policies / product
    with _locked(folder):
        roles = read(folder)
        if roles is None or not roles.previous:
            current, current_zh = (roles.current,) * 2 if roles else ("the working copy", "工作副本")
            zh = f"{current_zh} 之前没有版本"
            raise PolicyError(folder / ROLES, f"no version before {current}", zh=zh)
        *previous, version = roles.previous
        load(folder / version, product, schema)
        change = Change(action="rollback", version=version, by=by, note=note, when=_now())
        return _write(folder, Roles(current=version, previous=tuple(previous), changes=(*roles.changes, change)))


def _kept(folder: Path, product: str, schema: Schema, version: str, when: str) -> Roles | None:
    """The working copy of a folder, kept as the version before `version`; None where there is none or it is that."""
    if not (folder / POLICY).exists():
        return None
    kept, who = load(folder, product, schema).version, {"by": "", "note": "the working copy", "when": when}
    if kept == version:
        return None
    _admit(folder, folder / kept, product, schema, who)
    return Roles(current=kept, changes=(Change(action="kept", version=kept, **who),))


def _admit(source: Path, place: Path, product: str, schema: Schema, published: Mapping[str, str]) -> None:
    """A version in its place: copied there whole, or what is there verified and given the newest cases."""
    with tempfile.TemporaryDirectory(prefix=".", dir=place.parent) as beside:
        new = Path(beside) / place.name
        new.mkdir()
        for name in (POLICY, WORDS, cases.CASES):
            if (file := source / name).exists() or name == WORDS:
                shutil.copyfile(file if file.exists() else REASONS_PATH, new / name)
        (new / PUBLISHED).write_text(json.dumps(published, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        for file in new.iterdir():
            file.chmod(FILE_MODE)
            _sync(file)
        load(new, product, schema)  # is what it is called still
        if place.exists():
            _named(place, product, schema)
            if (new / cases.CASES).exists():
                (new / cases.CASES).rename(place / cases.CASES)
        else:
            new.chmod(FOLDER_MODE)
            _sync(new)
            new.rename(place)
        _sync(place)
    _sync(place.parent)


def _write(folder: Path, roles: Roles) -> Roles:
    new = folder / f".{ROLES}"
    new.write_text(roles.model_dump_json(indent=1) + "\n", encoding="utf-8")
    new.chmod(FILE_MODE)
    _sync(new)
    new.rename(folder / ROLES)
    _sync(folder)
    return roles


def _check_named(by: str) -> None:
    if not by.strip():
        raise PolicyError(Path(ROLES), "who changes a policy must be named", zh="必须写明由谁变更政策")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One change of a product's folder at a time, between processes and threads."""
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(open(folder / LOCK, "a"))  # NFS locks what is open to write, and no folder
            fcntl.flock(opened, fcntl.LOCK_EX)
        except OSError as error:
            zh = f"无法加锁：{error.strerror}"
            raise PolicyError(folder / LOCK, f"cannot be locked: {error.strerror}", zh=zh) from None
        yield
