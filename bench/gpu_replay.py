"""A whole history, replayed into training rows and scored: on a device and on the CPU, the same rows in the same run.

Wall time from applications in memory to rows in memory, packing and assembling on the host included: what
`python -m models train | score` and `python -m policy simulate` wait for.
"""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from bench import history, world
from bench.gpu_trees import demo_bundles
from bench.serving import SECRET
from features.place import HERE, Place
from features.replay import Rows, replay
from features.tokens import Tokenizer
from gpu_kernels.device import Device
from models.history_scorer import HistoryScorer

T = TypeVar("T")
Report = dict[str, Any]
PROBABILITY_TOLERANCE = 1e-5
ARRAYS = ("features", "entity_state", "neighbor_state", "neighbor_mask", "source_state")


def replay_times(device: Device, networks: str, applications: int) -> Report:
    """applications/s of replay and of scoring, on the device and on the CPU; `differing`: arrays of rows that are not
    equal in every bit, probabilities that are further apart than 1e-5, and whatever made the device give up.

    networks: where the networks of a bundle run beside the device, as of Place. The world has `applications`.
    """
    made, of_product, tokenizer = world.build(5, applications), history.schemas_by_product(), Tokenizer(SECRET.encode())
    past = history.history(made.events, history.profiles(made.profiles, of_product, tokenizer), of_product, tokenizer)
    past.profile_table  # noqa: B018  made once, by neither
    differing: list[str] = []
    there, rates, rows = Place(device, networks, differing.append), Report(), dict[str, dict[str, Rows]]()
    for name, place in (("cpu", HERE), ("device", there)):
        replay(past, place=place)  # compiles and reserves
        seconds, rows[name] = _timed(lambda: replay(past, place=place))  # noqa: B023
        rates[f"replay_{name}_per_s"] = applications / seconds
    for schema, expected in rows["cpu"].items():
        differing += [f"{schema}: {name}" for name in _differing(rows["device"][schema], expected)]
    furthest, spent = 0.0, {"cpu": 0.0, "device": 0.0}
    for bundle in demo_bundles():
        if bundle.schema.name not in rows["cpu"]:
            continue
        snapshot, found = rows["cpu"][bundle.schema.name].snapshot, {}
        for name, place in (("cpu", HERE), ("device", there)):
            scorer = HistoryScorer(bundle, place)
            scorer.score(snapshot)
            seconds, found[name] = _timed(lambda: scorer.score(snapshot))  # noqa: B023
            spent[name] += seconds
        for label in bundle.models:
            one, other = (getattr(found[name], f"{label}_probability") for name in ("cpu", "device"))
            furthest = max(furthest, float(np.abs(one - other).max()))
    if furthest > PROBABILITY_TOLERANCE:
        differing.append(f"probabilities of a history, by {furthest:.2g}")
    rates |= {f"score_{name}_per_s": applications / seconds for name, seconds in spent.items()}
    return {"applications": applications, **rates, "furthest": furthest, "differing": differing}


def _timed(ask: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    found = ask()
    return time.perf_counter() - start, found


def _differing(found: Rows, expected: Rows) -> list[str]:
    pairs = [(name, getattr(found.snapshot, name), getattr(expected.snapshot, name)) for name in ARRAYS]
    pairs += [(f"label {label}", found.labels[label], known) for label, known in expected.labels.items()]
    return [name for name, one, other in pairs if one.tobytes() != other.tobytes()]
