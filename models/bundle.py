"""A bundle: one folder with all that scoring a schema needs, checked as it loads (docs/architecture.md "Bundle").

What differs from the manifest, or was made for another schema, refuses to load (R19, R23). `version` is a hash of the
manifest, which holds the hashes of all other files, so equal versions score equally.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.schema import Schema
from models.calibrate import Calibration
from models.encode import Encoding
from models.reasons import Forest

MANIFEST = "manifest.json"
SCHEMA = "schema.json"


class BundleError(ValueError):
    """A bundle that cannot be used; the message names the file and the reason."""


@dataclass(frozen=True)
class LabelModel:
    """The models of one label; `gnn_onnx` is None where the trees score alone, `encoding` makes the trees' columns."""

    trees_onnx: bytes
    forest: Forest
    encoding: Encoding
    gnn_onnx: bytes | None
    calibration: Calibration


@dataclass(frozen=True)
class Bundle:
    """A checked bundle in memory; later changes of its folder do not touch it."""

    schema: Schema
    version: str
    manifest: Mapping[str, Any]
    models: Mapping[str, LabelModel]

    @classmethod
    def open(cls, path: Path) -> "Bundle":
        """The bundle in a folder with the schema it was made for. Raises BundleError as `load` does."""
        try:
            schema = Schema(json.loads(_read(path / SCHEMA)), str(path / SCHEMA))
        except ValueError as error:
            raise BundleError(f"{path / SCHEMA}: is no schema: {error}") from None
        return cls.load(path, schema)

    @classmethod
    def load(cls, path: Path, schema: Schema) -> "Bundle":
        """The bundle in a folder. Raises BundleError if a file is missing or changed, or the schema is another."""
        text = _read(path / MANIFEST)
        try:
            manifest = json.loads(text)
            made_for, names, labels = manifest["schema_hash"], manifest["files"], manifest["labels"]
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{path / MANIFEST}: is no manifest: {error!r}") from None
        if made_for != schema.hash:
            raise BundleError(f"{path / MANIFEST}: made for schema {made_for}, {schema.name} is {schema.hash}")
        files = {name: _read(path / name) for name in names}  # read once: what was checked is what is used
        for name, content in files.items():
            if hashlib.sha256(content).hexdigest() != names[name]:
                raise BundleError(f"{path / name}: differs from the manifest's sha256")
        models = {label: _label_model(schema, label, files, spec) for label, spec in labels.items()}
        return cls(schema, version(text), manifest, models)


def version(manifest: bytes) -> str:
    """16 hex digits naming the bundle with this manifest."""
    return hashlib.sha256(manifest).hexdigest()[:16]


def _label_model(schema: Schema, label: str, files: Mapping[str, bytes], spec: Mapping[str, Any]) -> LabelModel:
    names, calibration = spec["files"], spec["calibration"]
    plain = Encoding(len(schema.columns(label)))  # where no feature is a category
    return LabelModel(
        files[names["trees"]],
        Forest.unpack(files[names["forest"]]),
        Encoding.unpack(files[names["encoding"]]) if "encoding" in names else plain,
        files[names["gnn"]] if "gnn" in names else None,
        Calibration(calibration["intercept"], tuple(calibration["weights"])),
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from None
