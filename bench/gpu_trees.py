"""The demo bundles' forests on a device, against ONNX Runtime, the serving tables and the oracle."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.schema import Schema
from gpu_kernels import reference
from gpu_kernels.device import Device
from gpu_kernels.trees import DeviceTrees
from models import registry
from models.bundle import Bundle, LabelModel
from models.device import open_session
from models.probe import random_snapshot
from models.shap import Explainer


def demo_bundles(bundles: Path = Path("models/demo")) -> list[Bundle]:
    """Every champion of the demo."""
    folders = [roles.parent for roles in sorted(bundles.glob(f"*/{registry.ROLES}"))]
    return [Bundle.open(folder / registry.read(folder).champion) for folder in folders]


def demo_models() -> list[tuple[Schema, str, LabelModel]]:
    """Schema, label and model of every champion of the demo."""
    return [(bundle.schema, label, model) for bundle in demo_bundles() for label, model in bundle.models.items()]


def random_rows(schema: Schema, label: str, model: LabelModel, rows: int, seed: int) -> NDArray[np.float32]:
    """float32 [rows, n] of the trees' columns."""
    features = random_snapshot(schema, rows, seed).features[:, schema.columns(label)]
    return np.ascontiguousarray(model.encoding(features))


def tree_differences(device: Device, model: LabelModel, rows: NDArray[np.float32], oracle: bool = True) -> list[str]:
    """What differs in any bit: margins from ONNX Runtime's, contributions from those served, both from the oracle's."""
    explainer = Explainer(model.forest, rows.shape[1])
    there = DeviceTrees(device, model.forest, explainer.tables, rows.shape[1])
    given = device.xp.asarray(rows)
    margins, contributions = device.host(there.margins(given)), device.host(there.contributions(given))
    (served,) = open_session(model.trees_onnx).run(None, {"row": rows})
    expected = {
        "margins of ONNX Runtime": (margins, served[:, 0]),
        "contributions served": (contributions, explainer.contributions(rows)),
    }
    if oracle:
        expected["margins of the oracle"] = (margins, reference.margins(model.forest, rows))
        said = reference.contributions(model.forest, explainer.tables, rows, rows.shape[1])
        expected["contributions of the oracle"] = (contributions, said)
    return [name for name, (one, other) in expected.items() if not np.array_equal(one, other)]
