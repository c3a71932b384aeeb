"""Writes a bundle: files, schema, manifest with their hashes, and a model card (R18).

The folder appears whole or not at all: it is written beside its place, brought to disk and renamed. The bundle it
replaces stands in `<out>.old` until then, where a kill in between leaves it. The same models give the same bytes: no
clock, no path and no host name enters.
"""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from features.hops import FAR, NEAR
from features.schema import Schema
from models.bundle import DEEP_FORMAT, FORMAT, MANIFEST, RESIDUAL_VALUE, SCHEMA, BundleError, LabelModel, ResidualModel
from models.card import card
from models.conformal import QUANTILES
from models.scorer import probe_scores, residual_probe


def write(
    out: Path, schema: Schema, models: Mapping[str, LabelModel],
    training: Mapping[str, Any], findings: Mapping[str, Mapping[str, Any]], residual: ResidualModel | None = None,
    notes: Mapping[str, Sequence[str]] = MappingProxyType({}), report: str = "",
) -> Path:  # fmt: skip
    """The bundle in the folder `out`, replaced if it exists.

    training: the training window and settings, for the manifest. findings: by label, what the manifest says besides
    files and calibration: rows, metrics, why there is no graph network. notes: by label, lines of the card about the
    test part. report: the page report.html, none if empty. A reader between the two renames of a replacement finds no
    folder and should try again. Raises BundleError if `out` holds something else.
    """
    check_place(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as beside:
        new = Path(beside) / "new"
        new.mkdir()
        _fill(new, schema, models, training, findings, residual, notes, report)
        for written in (*new.iterdir(), new):
            sync(written)
        _move(new, out)
    return out


def check_place(out: Path) -> None:
    """Raises BundleError if `out` or `<out>.old` exists and is no bundle: writing would delete what is there."""
    for folder in (out, _old(out)):
        if folder.exists() and not (folder / MANIFEST).is_file():
            raise BundleError(f"{folder}: exists and is no bundle")


def _old(out: Path) -> Path:
    return out.with_name(f"{out.name}.old")


def _move(new: Path, out: Path) -> None:
    """Rename `new` to `out`. What stood there joins the temporary files last, and comes back if the renaming fails."""
    old = _old(out)
    if out.exists():
        if old.exists():  # left by a replacement that was killed
            old.rename(new.with_name("older"))
        out.rename(old)
    try:
        new.rename(out)
    finally:
        if not out.exists() and old.exists():
            old.rename(out)
    sync(out.parent)
    if old.exists():
        old.rename(new.with_name("old"))


def sync(path: Path) -> None:
    """Bring the bytes of a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fill(
    folder: Path, schema: Schema, models: Mapping[str, LabelModel],
    training: Mapping[str, Any], findings: Mapping[str, Mapping[str, Any]], residual: ResidualModel | None,
    notes: Mapping[str, Sequence[str]], report: str,
) -> None:  # fmt: skip
    labels: dict[str, Any] = {}
    for label, model in models.items():
        files = {"trees": f"{label}_trees.onnx", "forest": f"{label}_forest.npz"}
        (folder / files["trees"]).write_bytes(model.trees_onnx)
        (folder / files["forest"]).write_bytes(model.forest.pack())
        if model.encoding.own or model.encoding.extra:
            files["encoding"] = f"{label}_encoding.npz"
            (folder / files["encoding"]).write_bytes(model.encoding.pack())
        if model.gnn_onnx is not None:
            files["gnn"] = f"{label}_gnn.onnx"
            (folder / files["gnn"]).write_bytes(model.gnn_onnx)
        if model.gnn_weights is not None:
            files["weights"] = f"{label}_gnn.npz"
            (folder / files["weights"]).write_bytes(model.gnn_weights.pack())
        columns = [schema.feature_names[i] for i in schema.columns(label)]
        found = {
            **findings[label], **({"hops": [NEAR, FAR]} if model.deep else {}), "trees": len(model.forest.roots),
            "columns": columns, "probe": probe_scores(schema, label, model),
        }  # fmt: skip
        labels[label] = {"files": files, "calibration": asdict(model.calibration), **found}
    value = {} if residual is None else {"residual_value": _residual(folder, schema, residual)}
    _write_json(folder / SCHEMA, schema.document)
    (folder / "model_card.md").write_text(card(schema, training, labels, residual, notes), encoding="utf-8")
    if report:
        (folder / "report.html").write_text(report, encoding="utf-8")
    manifest = {
        "format": DEEP_FORMAT if any(model.deep for model in models.values()) else FORMAT, "schema": schema.name,
        "schema_hash": schema.hash, "training": training, "labels": labels, **value,
        "files": {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.iterdir())},
    }  # fmt: skip
    _write_json(folder / MANIFEST, manifest)


def _residual(folder: Path, schema: Schema, model: ResidualModel) -> dict[str, Any]:
    if schema.residual_value is None:
        raise BundleError(f"{folder}: schema {schema.name} has no residual_value")
    (folder / RESIDUAL_VALUE).write_bytes(model.onnx)
    return {
        "columns": list(schema.residual_value.features), "quantiles": QUANTILES, "offsets": model.conformal.offsets,
        "presence": model.presence, "figures": model.figures, "probe": residual_probe(schema, model),
    }  # fmt: skip


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(_strict(document), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _strict(value: Any) -> Any:
    """The value with NaN as null, which is all that JSON has."""
    if isinstance(value, Mapping):
        return {key: _strict(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
