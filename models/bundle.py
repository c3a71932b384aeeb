"""A bundle: one folder with all that scoring a schema needs, checked as it loads (docs/architecture.md "Bundle").

What differs from the manifest, or was made for another schema, refuses to load (R19, R23). `version` is a hash of the
manifest, which holds the hashes of all other files, so equal versions score equally.
"""

import hashlib
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.hops import FAR, NEAR
from features.schema import Schema
from models.attention import Weights
from models.calibrate import Calibration
from models.conformal import QUANTILES, Conformal
from models.encode import Encoding
from models.probe import PROBE_ROWS
from models.shap import Forest

MANIFEST = "manifest.json"
FORMAT, DEEP_FORMAT = 2, 3  # the second with a deep network, which a release of before cannot feed
DEEP = "deep"
SCHEMA = "schema.json"
RESIDUAL_VALUE = "residual_value.onnx"
UNREADABLE = (KeyError, TypeError, ValueError, IndexError, EOFError, zipfile.BadZipFile)  # of a packed .npz


class BundleError(ValueError):
    """A bundle that cannot be used; the message names the file and the reason."""


@dataclass(frozen=True)
class LabelModel:
    """The models of one label; `gnn_onnx` is None where the trees score alone, `encoding` makes the trees' columns.
    gnn_weights: the network's, where models.attention knows it. deep: it is the one that looks at two hops.
    """

    trees_onnx: bytes
    forest: Forest
    encoding: Encoding
    gnn_onnx: bytes | None
    calibration: Calibration
    gnn_weights: Weights | None = None
    deep: bool = False


@dataclass(frozen=True)
class ResidualModel:
    """What a car fetches. onnx: from the features of the schema's section to quantiles of log shares of the list price.

    conformal shifts them by kind. presence: by kind and feature, 1 where every sale of the kind had it, so that without
    it nothing is known, -1 where none had it, so that it is not looked at, else 0. figures: what the manifest says.
    """

    onnx: bytes
    conformal: Conformal
    presence: tuple[tuple[int, ...], ...]
    figures: Mapping[str, Any]


@dataclass(frozen=True)
class Bundle:
    """A checked bundle in memory; later changes of its folder do not touch it."""

    schema: Schema
    version: str
    manifest: Mapping[str, Any]
    models: Mapping[str, LabelModel]
    residual: ResidualModel | None = None

    @property
    def deep(self) -> bool:
        """Whether a label's network looks at two hops: it is meant for a GPU."""
        return any(model.deep for model in self.models.values())

    @classmethod
    def open(cls, path: Path) -> "Bundle":
        """The bundle in a folder with the schema it was made for. Raises BundleError as `load` does."""
        text = _read(path / SCHEMA)
        try:
            schema = Schema(json.loads(text), str(path / SCHEMA))
        except ValueError as error:
            raise BundleError(f"{path / SCHEMA}: is no schema: {error}") from None
        return cls.load(path, schema)

    @classmethod
    def load(cls, path: Path, schema: Schema) -> "Bundle":
        """The bundle in a folder. Raises BundleError if a file is missing or changed, or the schema is another."""
        at = path / MANIFEST
        name, manifest = read_manifest(path)
        try:
            made_for, labels = manifest["schema_hash"], manifest["labels"]
            _check(made_for == schema.hash, at, f"made for schema {made_for}, {schema.name} is {schema.hash}")
            _check(set(labels) == set(schema.labels), at, f"labels {', '.join(labels)} are not those of the schema")
            files = _files(path, manifest["files"])
            models = {label: _label_model(path, files, schema, label, labels[label]) for label in labels}
            residual = _residual_model(at, files, schema, manifest)
            described = files[SCHEMA]
        except BundleError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{at}: is no manifest: {error!r}") from None
        _check(_says(described, schema.document), path / SCHEMA, "is not the schema of the manifest's hash")
        return cls(schema, name, manifest, models, residual)


def read_manifest(path: Path) -> tuple[str, dict[str, Any]]:
    """Version and manifest of the bundle in a folder, whose other files are not looked at. Raises BundleError."""
    at = path / MANIFEST
    text = _read(at)
    try:
        manifest = dict(json.loads(text))
        found = manifest["format"]
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{at}: is no manifest: {error!r}") from None
    _check(found in (FORMAT, DEEP_FORMAT), at, f"format {found!r}, {FORMAT} and {DEEP_FORMAT} are read here")
    return hashlib.sha256(text).hexdigest()[:16], manifest


def _files(path: Path, names: Mapping[str, str]) -> dict[str, bytes]:
    """Read once: what was checked is what is used."""
    files = {}
    for name in names:
        _check(Path(name).name == name, path / MANIFEST, f"{name!r} is no file of this folder")
        files[name] = _read(path / name)
        same = hashlib.sha256(files[name]).hexdigest() == names[name]
        _check(same, path / name, "differs from the manifest's sha256")
    return files


def _label_model(
    path: Path, files: Mapping[str, bytes], schema: Schema, label: str, spec: Mapping[str, Any]
) -> LabelModel:
    columns = [schema.feature_names[i] for i in schema.columns(label)]
    _check(spec["columns"] == columns, path / MANIFEST, f"{label}: columns are not those of the schema")
    known = len(spec["probe"]) == PROBE_ROWS and all(isinstance(p, float) and 0 <= p <= 1 for p in spec["probe"])
    _check(known, path / MANIFEST, f"{label}: the probe needs {PROBE_ROWS} probabilities")
    names, found = spec["files"], spec["calibration"]
    calibration = Calibration(found["intercept"], tuple(found["weights"]), found.get("gnn_mean"))
    inputs = 1 + ("gnn" in names)
    _check(len(calibration.weights) == inputs, path / MANIFEST, f"{label}: one weight for each of {inputs} models")
    numbers = [calibration.intercept, *calibration.weights, *([calibration.gnn_mean] if "gnn" in names else [])]
    finite = all(isinstance(number, float) and math.isfinite(number) for number in numbers)
    positive = finite and min(calibration.weights) > 0
    _check(positive, path / MANIFEST, f"{label}: calibration needs finite numbers and positive weights")
    trees, packed, gnn = files[names["trees"]], files[names["forest"]], files[names["gnn"]] if "gnn" in names else None
    try:
        forest = Forest.unpack(packed)
    except UNREADABLE as error:
        raise BundleError(f"{path / names['forest']}: is no forest: {error}") from None
    encoding = Encoding(len(columns))  # where no category needs one
    if "encoding" in names:
        encoding = _encoding(path / names["encoding"], files[names["encoding"]], len(columns))
    weights = _weights(path / names["weights"], files[names["weights"]]) if "weights" in names else None
    deep = spec.get("network") == DEEP
    _check(not deep or spec.get("hops") == [NEAR, FAR], path / MANIFEST, f"{label}: hops are not {NEAR} and {FAR}")
    return LabelModel(trees, forest, encoding, gnn, calibration, weights, deep)


def _residual_model(
    at: Path, files: Mapping[str, bytes], schema: Schema, manifest: Mapping[str, Any]
) -> ResidualModel | None:
    found, spec = manifest.get("residual_value"), schema.residual_value
    _check((found is None) == (RESIDUAL_VALUE not in files), at, f"residual_value and {RESIDUAL_VALUE} belong together")
    if found is None:
        return None
    if spec is None or found["columns"] != list(spec.features) or found["quantiles"] != list(QUANTILES):
        raise BundleError(f"{at}: residual_value: columns are not those of the schema, or quantiles not {QUANTILES}")
    kinds = schema.features[schema.column[spec.kind]].values
    offsets = tuple(None if known is None else tuple(known) for known in found["offsets"])
    numbers = [number for known in offsets if known for number in known]
    finite = all(isinstance(number, float) and math.isfinite(number) for number in numbers)
    whole = len(offsets) == len(kinds) and all(known is None or len(known) == len(QUANTILES) for known in offsets)
    _check(
        finite and whole, at, f"residual_value: needs {len(QUANTILES)} finite offsets for each of {len(kinds)} kinds"
    )
    presence = tuple(tuple(row) for row in found["presence"])
    whole = len(presence) == len(kinds) and all(len(row) == len(spec.features) for row in presence)
    _check(whole and {*sum(presence, ())} <= {-1, 0, 1}, at, "residual_value: presence is not by kind and column")
    lengths = [len(row) for row in found["probe"]]
    _check(lengths == [len(QUANTILES)] * PROBE_ROWS, at, f"residual_value: the probe needs {PROBE_ROWS} rows")
    finite = all(isinstance(number, float) and math.isfinite(number) for row in found["probe"] for number in row)
    _check(finite, at, "residual_value: the probe needs finite numbers")
    return ResidualModel(files[RESIDUAL_VALUE], Conformal(offsets), presence, found["figures"])


def _encoding(file: Path, packed: bytes, columns: int) -> Encoding:
    try:
        encoding = Encoding.unpack(packed)
    except UNREADABLE as error:
        raise BundleError(f"{file}: is no encoding: {error}") from None
    known = all(0 <= lookup.column < columns for lookup in (*encoding.own, *encoding.extra))
    _check(encoding.columns == columns and known, file, f"is no encoding of {columns} columns")
    return encoding


def _weights(file: Path, packed: bytes) -> Weights:
    try:
        return Weights.unpack(packed)
    except UNREADABLE as error:
        raise BundleError(f"{file}: are no weights of a network: {error}") from None


def _says(text: bytes, document: Mapping[str, Any]) -> bool:
    try:
        return bool(json.loads(text) == document)
    except ValueError:
        return False


def _check(holds: bool, file: Path, reason: str) -> None:
    if not holds:
        raise BundleError(f"{file}: {reason}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from None
