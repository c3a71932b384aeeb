"""`python -m models promote | retire | rollback | list`: which bundle of a registry decides, from the command line."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from models import registry, show
from models.bundle import Bundle, read_manifest

console = Console()
SCHEMAS = Path("features/schemas")
RegistryFolder = Annotated[
    Path, typer.Option("--registry", envvar="MIAOPI_BUNDLES", help="folder that MIAOPI_BUNDLES names")
]
SchemasFolder = Annotated[
    Path, typer.Option("--schemas", envvar="MIAOPI_SCHEMAS", exists=True, help="folder that MIAOPI_SCHEMAS names")
]
SchemaName = Annotated[str, typer.Option("--schema", help="name of the schema")]


def promote(
    bundle: Annotated[Path, typer.Option(exists=True, help="folder of the bundle")],
    registry_folder: RegistryFolder,
    challenger: Annotated[bool, typer.Option("--challenger", help="score it beside the champion only")] = False,
    schema_folder: SchemasFolder = SCHEMAS,
) -> None:
    """Make a bundle the champion of its schema, which running servers take over; or a challenger."""
    opened = Bundle.open(bundle)
    schema = registry.served_schema(schema_folder, opened.schema.name)
    if opened.deep:
        _warn("its network looks at two hops, for a GPU: servers without one refuse it unless MIAOPI_DEEP_ON_CPU=slow")
    if challenger:
        version, _ = registry.challenge(registry_folder, bundle, schema)
        _say(f"{schema.name}: {version} is a challenger")
    else:
        version, before = registry.promote(registry_folder, bundle, schema)
        _say(f"{schema.name}: {version} is the champion, before: {before.champion if before else 'none'}")


def retire(
    registry_folder: RegistryFolder,
    schema: SchemaName,
    version: Annotated[str, typer.Option(help="the challenger's version")],
) -> None:
    """Score a challenger no longer. Its bundle stays."""
    registry.retire(registry_folder, schema, version)
    _say(f"{schema}: {version} is no challenger any more")


def rollback(registry_folder: RegistryFolder, schema: SchemaName, schema_folder: SchemasFolder = SCHEMAS) -> None:
    """Make the champion before the present one champion again."""
    served = registry.served_schema(schema_folder, schema)
    roles = registry.rollback(registry_folder, schema)
    _say(f"{schema}: {roles.champion} is the champion again")
    made_for = read_manifest(registry_folder / schema / roles.champion)[1]["schema_hash"]
    if made_for != served.hash:
        _warn(f"it was made for schema {made_for}: servers of {served.hash} start only on an older champion of theirs")


def list_command(registry_folder: RegistryFolder) -> None:
    """Every version with its role, the window of time it was trained on and its figures."""
    console.print(show.versions(registry_folder))


def _say(message: str) -> None:
    console.print(message, markup=False, highlight=False, soft_wrap=True)


def _warn(message: str) -> None:
    console.print(f"warning: {message}", style="yellow", markup=False, soft_wrap=True)
