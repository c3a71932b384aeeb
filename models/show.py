"""Figures, comparisons and registries as a person reads them in a terminal."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from models import compare, registry
from models.bundle import MANIFEST, BundleError, read_manifest
from models.registry import Roles


def figures(title: str, by_part: Mapping[str, Mapping[str, float]]) -> Table:
    """Figures by name, a column for each part."""
    printed = Table("figure", *by_part, title=title)
    for name in next(iter(by_part.values()), {}):
        printed.add_row(name, *(f"{part[name]:.4g}" for part in by_part.values()))
    return printed


def comparison(console: Console, found: Mapping[str, Any]) -> None:
    """What `compare.comparison` found."""
    for label, figures in found["labels"].items():
        printed = Table(
            "figure", *(f"{name} {found[name]['version']}" for name in ("champion", "challenger")),
            title=f"{label}, {figures['rows']} rows, {figures['known']} with a label, {figures['bad']} of them bad",
        )  # fmt: skip
        for name in compare.FIGURES:
            printed.add_row(name, *(_text(figures[side][name]) for side in ("champion", "challenger")))
        console.print(printed)
        difference = figures["auc_difference"]
        console.print(
            f"AUC of the challenger less the champion's {_text(difference['challenger_less_champion'])}, 95 % interval "
            f"{_text(difference['low'])} to {_text(difference['high'])}; PSI of the scores {_text(figures['psi'])}",
            soft_wrap=True,
        )
        groups = {
            "approved by the champion": figures["champion"]["approved"],
            "approved by the challenger": figures["challenger"]["approved"],
            "swap-in": figures["swap_in"], "swap-out": figures["swap_out"],
        }  # fmt: skip
        for name, group in groups.items():
            console.print(f"{name}: {group['rows']}, bad rate {_text(group['bad_rate'])} of {group['known']} known")


def versions(folder: Path) -> Table:
    """Every version of a registry with its role, window of training and figures, by its manifest alone.

    What says nothing that is understood is marked. Raises BundleError where roles cannot be read.
    """
    printed = Table("schema", "version", "role", "trained", "figures of its validation")
    for file in sorted(folder.glob(f"*/{registry.ROLES}")):
        roles = registry.read(file.parent)
        for place in sorted(found.parent for found in file.parent.glob(f"[!.]*/{MANIFEST}")):
            try:
                days, said = _summary(read_manifest(place)[1])
            except (BundleError, KeyError, TypeError, ValueError, AttributeError) as error:
                problem = str(error) if isinstance(error, BundleError) else f"is no manifest: {error!r}"
                days, said = "", f"does not load: {problem.removeprefix(f'{place / MANIFEST}: ')}"
            printed.add_row(file.parent.name, place.name, _role(roles, place.name), days, said)
    return printed


def _summary(manifest: Mapping[str, Any]) -> tuple[str, str]:
    """Window of training and figures of a manifest."""
    days = " to ".join(_day(manifest["training"][end]) for end in ("from_ms", "until_ms"))
    chosen = {label: spec["metrics"][spec["chosen"]] for label, spec in manifest["labels"].items()}
    return days, "\n".join(f"{label}: {_short(found)}" for label, found in chosen.items())


def _text(number: float | None) -> str:
    return "unknown" if number is None else f"{number:.4g}"


def _short(found: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name} {_text(found[name])}" for name in ("auc", "auprc", "ks", "ece"))


def _role(roles: Roles, version: str) -> str:
    if version == roles.champion:
        return "champion"
    return "challenger" if version in roles.challengers else "previous" if version in roles.previous else ""


def _day(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d}"
