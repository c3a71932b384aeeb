"""What the graph networks share: training that stops where later rows say so, logits in parts, and ONNX.

A network is plain torch and takes raw arrays of a Snapshot, so that all of it exports.
"""

import copy
import logging
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from features.application import InvalidFieldError, Snapshot


class Settings(Protocol):
    """How a network is trained; its shapes are its own. part: rows scored at a time, which bounds the memory."""

    epochs: int
    patience: int
    batch: int
    part: int
    learning_rate: float
    weight_decay: float
    threads: int


class GraphNetwork(nn.Module, ABC):
    """Logits [B] of one label. inputs: by name, what the sizes that may vary are called, by axis."""

    inputs: ClassVar[Mapping[str, Mapping[int, str]]]
    config: Any  # Settings, frozen

    @abstractmethod
    def given(self, snapshot: Snapshot) -> tuple[Tensor, ...]:
        """The arrays of a snapshot that `forward` takes, in the order of `inputs`, without a copy where that can be."""

    @abstractmethod
    def fit_scales(self, snapshot: Snapshot) -> None:
        """Standardise by the training rows."""


Fitted = TypeVar("Fitted", bound=GraphNetwork)


def device(choice: str) -> torch.device:
    """The device to train on, of "cpu", "cuda" and "cuda:N". Raises InvalidFieldError where torch has it not."""
    try:
        found = torch.device(choice)
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise InvalidFieldError("--device", f"{choice!r} is not cpu, cuda or cuda:N")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise InvalidFieldError("--device", f"{choice}: this torch finds {torch.cuda.device_count()} CUDA devices")
    return found


def logits(model: GraphNetwork, snapshot: Snapshot) -> NDArray[np.float64]:
    """float64 [N] logits of a snapshot."""
    model.eval()
    size, on = model.config.part, next(model.parameters()).device
    with torch.no_grad():
        parts = [
            model(*(t.to(on) for t in model.given(snapshot.take(slice(i, i + size)))))
            for i in range(0, len(snapshot), size)
        ]
    return torch.cat(parts).double().cpu().numpy()


def fit(
    made: Callable[[], Fitted], seed: int,
    rows: Snapshot, labels: NDArray[np.int8], validation: Snapshot, validation_labels: NDArray[np.int8],
    progress: Callable[[str], None], on: torch.device | None = None,
) -> Fitted:  # fmt: skip
    """A network trained on rows with labels [N] of 0 and 1, stopped where the validation log loss is least.

    On the CPU the same seed and rows give the same network, which comes back there from any device.
    """
    threads_before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = made()
        config: Settings = model.config
        torch.set_num_threads(config.threads)
        model.fit_scales(rows)
        model.to(on or "cpu")
        optimiser = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=config.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.epochs)
        targets = torch.from_numpy(labels.astype(np.float32))
        least, best, waited = math.inf, copy.deepcopy(model.state_dict()), 0
        for epoch in range(config.epochs):
            _epoch(model, optimiser, rows, targets)
            schedule.step()
            loss = _log_loss(logits(model, validation), validation_labels)
            progress(f"graph network: epoch {epoch + 1}, validation log loss {loss:.5f}")
            if loss < least:
                least, best, waited = loss, copy.deepcopy(model.state_dict()), 0
            elif (waited := waited + 1) == config.patience:
                break
    torch.set_num_threads(threads_before)
    model.load_state_dict(best)
    return model.cpu().eval()


def _epoch(model: GraphNetwork, optimiser: torch.optim.Optimizer, rows: Snapshot, targets: Tensor) -> None:
    model.train()
    on = next(model.parameters()).device
    for chosen in torch.split(torch.randperm(len(targets)), model.config.batch):
        given = [t.to(on) for t in model.given(rows.take(chosen.numpy()))]
        loss = nn.functional.binary_cross_entropy_with_logits(model(*given), targets[chosen].to(on))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()


def _log_loss(logit: NDArray[np.float64], labels: NDArray[np.int8]) -> float:
    return float(np.mean(np.logaddexp(0.0, logit) - labels * logit))


def to_onnx(model: GraphNetwork, example: Snapshot) -> bytes:
    """The network as ONNX, any batch size; `example` has at least two rows and the shapes of the rest.

    dynamo=True because the older exporter silently drops reductions. Stack traces, which hold paths, are removed.
    """
    sizes = {name: torch.export.Dim(name) for axes in model.inputs.values() for name in axes.values()}
    shapes = tuple({axis: sizes[name] for axis, name in axes.items()} for axes in model.inputs.values())
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it names operators of packages that are not installed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about its own parts
        program = torch.onnx.export(
            model.eval(), model.given(example), dynamo=True, verbose=False, input_names=list(model.inputs),
            output_names=["logit"], dynamic_shapes=shapes,
        )  # fmt: skip
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    proto = program.model_proto
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())
