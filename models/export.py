"""Writes a bundle: files, schema, manifest with their hashes, and a model card (Mitchell et al. 2019; R18).

The folder appears whole or not at all: it is written beside its place and renamed. The same models give the same
bytes: no clock, no path and no host name enters.
"""

import hashlib
import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from features.schema import Schema
from models.bundle import MANIFEST, SCHEMA, BundleError, LabelModel

FORMAT = 1


def write(
    out: Path, schema: Schema, models: Mapping[str, LabelModel],
    training: Mapping[str, Any], findings: Mapping[str, Mapping[str, Any]],
) -> Path:  # fmt: skip
    """The bundle in the folder `out`, replaced if it exists.

    training: the training window and settings, for the manifest. findings: by label, what the manifest says besides
    files and calibration: rows, metrics, why there is no graph network. A reader between the two renames of a
    replacement finds no folder and should try again. Raises BundleError if `out` holds something else.
    """
    check_place(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as beside:
        new = Path(beside) / "new"
        new.mkdir()
        _fill(new, schema, models, training, findings)
        if out.exists():
            out.rename(Path(beside) / "old")
        new.rename(out)
    return out


def check_place(out: Path) -> None:
    """Raises BundleError if `out` exists and is no bundle: writing would delete what is there."""
    if out.exists() and not (out / MANIFEST).is_file():
        raise BundleError(f"{out}: exists and is no bundle")


def _fill(
    folder: Path, schema: Schema, models: Mapping[str, LabelModel],
    training: Mapping[str, Any], findings: Mapping[str, Mapping[str, Any]],
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
        columns = [schema.feature_names[i] for i in schema.columns(label)]
        found = {**findings[label], "trees": len(model.forest.roots), "columns": columns}
        labels[label] = {"files": files, "calibration": asdict(model.calibration), **found}
    _write_json(folder / SCHEMA, schema.document)
    (folder / "model_card.md").write_text(_card(schema, training, labels), encoding="utf-8")
    manifest = {
        "format": FORMAT, "schema": schema.name, "schema_hash": schema.hash, "training": training, "labels": labels,
        "files": {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.iterdir())},
    }  # fmt: skip
    _write_json(folder / MANIFEST, manifest)


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(_strict(document), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _strict(value: Any) -> Any:
    """The value with NaN as null, which is all that JSON has."""
    if isinstance(value, Mapping):
        return {key: _strict(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _card(schema: Schema, training: Mapping[str, Any], labels: Mapping[str, Any]) -> str:
    days = [datetime.fromtimestamp(training[k] / 1000, UTC).date() for k in ("from_ms", "fit_until_ms", "until_ms")]
    lines = [
        f"# Model card: {schema.name}",
        "",
        f"Probabilities of {' and '.join(labels)} for {', '.join(schema.products)}, schema `{schema.hash}`.",
        *(
            [
                f"Rows of {days[0]} to {days[2]} (UTC); calibrated and measured on those from {days[1]}, each by trees",
                "that had not seen it. The same rows helped to choose the trees, so the figures flatter a little;",
                "`python -m models evaluate` measures later rows.",
            ]
            if training["split"] == "time"
            else [
                "Rows split at random into folds: the figures are of rows that the trees scored without having seen",
                "them, but the folds also chose among candidates and calibrated, so they flatter a little.",
            ]
        ),
    ]
    for label, spec in labels.items():
        rows = spec["rows"]
        lines += [
            "",
            f"## {label}",
            "",
            f"{spec['trees']} trees on {len(spec['columns'])} columns; graph network: {spec['gnn']}.",
            f"Rows with a known label: {rows['fit']} to fit ({rows['fit_bad']} bad), {rows['validation']} to validate "
            f"({rows['validation_bad']} bad).",
            "",
            "| figure | trees alone | bundle |",
            "|---|---|---|",
        ]
        alone, both = spec["metrics"]["trees"], spec["metrics"]["bundle"]
        lines += [f"| {name} | {alone[name]:.4g} | {both[name]:.4g} |" for name in both]
    lines += [
        "",
        "## Limits",
        "",
        "Only applications whose outcome became known are learned from; declined ones have none. Fairness is not",
        "measured here. Reasons explain the trees' part of the log-odds.",
    ]
    return "\n".join(lines) + "\n"
