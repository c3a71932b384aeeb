"""The bundles of a deployment on disk: every version ever promoted, and which of them decides (R18, R19, R23).

`<registry>/<schema>/<version>/` is a bundle, its version the hash of its manifest; `<registry>/<schema>/roles.json`
names champion, challengers and the champions before. A bundle is whole on disk and has scored its probe here before a
role names it; roles change by one rename under a lock, so a reader finds the old or the new ones, and no change is
lost to another. Versions stay: what decided years ago can score again.
"""

import fcntl
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from features import schema as schemas
from features.schema import Schema
from models.bundle import MANIFEST, Bundle, BundleError, read_manifest
from models.device import CPU, Device
from models.export import sync
from models.scorer import Scorer

ROLES, LOCK = "roles.json", ".lock"
FILE_MODE, FOLDER_MODE = 0o644, 0o755  # whatever the umask: the server may run as another user
Version = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]


class Roles(BaseModel):
    """Who decides: the champion; who is scored beside it: the challengers; and the champions before, oldest first."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    champion: Version
    previous: tuple[Version, ...] = ()
    challengers: tuple[Version, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> "Roles":
        if len({self.champion, *self.challengers}) != 1 + len(self.challengers):
            raise ValueError("a version has two roles")
        return self


def read(folder: Path) -> Roles:
    """The roles of a schema's folder. Raises BundleError naming the file."""
    file = folder / ROLES
    try:
        return Roles.model_validate_json(file.read_bytes())
    except OSError as error:
        raise BundleError(f"{file}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise BundleError(f"{file}: {where + ': ' if where else ''}{first['msg']}") from None


def load(folder: Path, version: str, schema: Schema, device: Device = CPU) -> Scorer:
    """The scorer of a version in a schema's folder. Raises BundleError where it cannot score or is another version."""
    return Scorer(_named(folder / version, Bundle.load(folder / version, schema)), device)


def fitting(folder: Path, roles: Roles, schema: Schema) -> str:
    """The newest of the champion and those before that was made for this very schema; the champion where none was.

    So servers of the old and of the new schema serve side by side while a lender moves from one to the other. Raises
    BundleError where the champion's manifest cannot be read.
    """
    if read_manifest(folder / roles.champion)[1].get("schema_hash") != schema.hash:
        for version in reversed(roles.previous):
            with suppress(BundleError):  # damaged: an older one may do
                if read_manifest(folder / version)[1].get("schema_hash") == schema.hash:
                    return version
    return roles.champion


def promote(registry: Path, source: Path, schema: Schema) -> tuple[str, Roles | None]:
    """Make the bundle in the folder `source` the champion; its version, and the roles before. Raises BundleError."""

    def change(version: str, roles: Roles | None) -> Roles:
        if roles is None:
            return Roles(champion=version)
        if roles.champion == version:
            return roles
        return Roles(champion=version, previous=(*roles.previous, roles.champion), challengers=_without(roles, version))

    return _admit(registry, source, schema, change)


def challenge(registry: Path, source: Path, schema: Schema) -> tuple[str, Roles | None]:
    """Make the bundle in the folder `source` a challenger; its version, and the roles before. Raises BundleError."""

    def change(version: str, roles: Roles | None) -> Roles:
        if roles is None:
            raise BundleError(f"{registry / schema.name}: has no champion to challenge")
        if roles.champion == version:
            raise BundleError(f"{registry / schema.name / ROLES}: {version} is the champion")
        return roles.model_copy(update={"challengers": (*_without(roles, version), version)})

    return _admit(registry, source, schema, change)


def retire(registry: Path, name: str, version: str) -> Roles:
    """Score a challenger of the schema called `name` no longer; the new roles. Raises BundleError."""
    folder = registry / name
    with _locked(folder):
        roles = read(folder)
        if version not in roles.challengers:
            raise BundleError(f"{folder / ROLES}: {version} is no challenger")
        return _write(folder, roles.model_copy(update={"challengers": _without(roles, version)}))


def rollback(registry: Path, name: str) -> Roles:
    """Make the last champion before the present one of the schema called `name` champion again; the new roles.

    It must score its probe with the schema it was made for, which may be older than the one served. Raises BundleError.
    """
    folder = registry / name
    with _locked(folder):
        roles = read(folder)
        if not roles.previous:
            raise BundleError(f"{folder / ROLES}: no champion before {roles.champion}")
        *previous, champion = roles.previous
        Scorer(_named(folder / champion, Bundle.open(folder / champion)))
        return _write(folder, Roles(champion=champion, previous=tuple(previous), challengers=_without(roles, champion)))


def served_schema(folder: Path, name: str) -> Schema:
    """The schema called `name` among the served ones. Raises SchemaError."""
    schema = schemas.load(folder / f"{name}.yaml")
    if schema.name != name:
        raise schemas.SchemaError(f"{folder / name}.yaml: name: must be {name}")
    return schema


def _named(place: Path, bundle: Bundle) -> Bundle:
    """The bundle in a place that is called as its version."""
    if bundle.version != place.name:
        raise BundleError(f"{place / MANIFEST}: is version {bundle.version}")
    return bundle


def _without(roles: Roles, version: str) -> tuple[str, ...]:
    return tuple(challenger for challenger in roles.challengers if challenger != version)


def _admit(
    registry: Path, source: Path, schema: Schema, change: Callable[[str, Roles | None], Roles]
) -> tuple[str, Roles | None]:
    """Try a bundle, copy it in and give it the role that `change` makes of the roles before."""
    folder = registry / schema.name
    bundle = Bundle.load(source, schema)
    Scorer(bundle)  # scores its probe: nothing is made for one that does not
    for place in (registry, folder):
        if not place.exists():
            place.mkdir(parents=True, exist_ok=True)
            place.chmod(FOLDER_MODE)
    with _locked(folder):
        before = read(folder) if (folder / ROLES).exists() else None
        roles = change(bundle.version, before)
        if (folder / bundle.version).exists():
            _named(folder / bundle.version, Bundle.load(folder / bundle.version, schema))
        else:
            _copy(source, bundle, folder / bundle.version)
        if roles != before:
            _write(folder, roles)
    return bundle.version, before


def _copy(source: Path, bundle: Bundle, place: Path) -> None:
    """What the manifest names, on disk and whole before it stands in its place."""
    with tempfile.TemporaryDirectory(prefix=".", dir=place.parent) as beside:
        new = Path(beside) / place.name
        new.mkdir()
        for name in (*bundle.manifest["files"], MANIFEST):
            shutil.copyfile(source / name, new / name)
            (new / name).chmod(FILE_MODE)
            sync(new / name)
        _named(new, Bundle.load(new, bundle.schema))
        new.chmod(FOLDER_MODE)
        sync(new)
        new.rename(place)
    sync(place.parent)


def _write(folder: Path, roles: Roles) -> Roles:
    new = folder / f".{ROLES}"
    new.write_text(roles.model_dump_json(indent=1) + "\n", encoding="utf-8")
    new.chmod(FILE_MODE)
    sync(new)
    new.rename(folder / ROLES)
    sync(folder)
    return roles


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One change of a schema's folder at a time, between processes and threads."""
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(open(folder / LOCK, "a"))  # NFS locks what is open to write, and no folder
            fcntl.flock(opened, fcntl.LOCK_EX)
        except OSError as error:
            raise BundleError(f"{folder / LOCK}: cannot be locked: {error.strerror}") from None
        yield
