"""The demo's bundles with a deep network in place of theirs, of random weights: what serves it needs no training."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from bench.gpu_trees import demo_bundles
from features.schema import Schema
from models import export, networks
from models.bundle import LabelModel
from models.deep import DeepConfig, DeepGNN
from models.probe import random_snapshot


@cache
def network(schema: Schema) -> DeepGNN:
    """Scaled as training would."""
    rows = random_snapshot(schema, 300, 0, deep=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = DeepGNN(DeepConfig.of(schema, "fraud", rows))
    made.fit_scales(rows)
    return made.eval()


@cache
def exported(schema: Schema) -> bytes:
    """The network as ONNX, which takes seconds to make."""
    return networks.to_onnx(network(schema), random_snapshot(schema, 16, 0, deep=True))


def deep_bundle(name: str, out: Path) -> Path:
    """A bundle of the schema called `name` in the folder `out`."""
    shipped = next(found for found in demo_bundles() if found.schema.name == name)
    models: dict[str, LabelModel] = {**shipped.models}
    models["fraud"] = replace(models["fraud"], gnn_onnx=exported(shipped.schema), gnn_weights=None, deep=True)
    made = ("files", "calibration", "trees", "columns", "probe")
    findings = {
        label: {key: value for key, value in said.items() if key not in made}
        for label, said in shipped.manifest["labels"].items()
    }
    findings["fraud"]["network"] = "deep"
    return export.write(out, shipped.schema, models, shipped.manifest["training"], findings, shipped.residual)
