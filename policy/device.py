"""Where a policy's tables run: on a CUDA device while that works, else by policy.kernel, with the same bits.

A device takes large batches; small ones cost less here. It is entered with its first batch, which both run, and only
where all bits agree. One that fails costs no decisions: its batch and all later ones run here, with a warning. What a
loan costs (policy.rates) and who lends it (policy.funding) is never the device's: it rounds exponentials otherwise,
and funders lend to one application after another.
"""

import sys
from collections.abc import Callable, Sequence
from functools import cache, partial

import numpy as np

from features.place import Place, PlaceError
from gpu_kernels.policy import DevicePolicy
from policy.decide import Policy
from policy.kernel import judge
from policy.program import COUNT, RATE, Floats, Ints, Judged, Plan, Program

LEAST = 16_384  # rows: below, opening, launching and copying cost more than the tables


class DifferentError(RuntimeError):
    """A device whose bits are not the CPU's; the message names what differs."""


class DeviceJudge:
    """Runs the tables of a policy, as its `judge`, at a place that is opened with the first large batch."""

    def __init__(self, opened: Callable[[], Place], names: Sequence[str]) -> None:
        self._opened, self._names = opened, names
        self._there: DevicePolicy | None = None
        self._agrees = False

    def __call__(self, program: Program, plan: Plan, values: Floats, asked: Ints, out: Judged) -> None:
        """As policy.kernel.judge. Raises gpu_kernels.policy.ProgramError for tables that no kernel runs."""
        if len(asked) >= LEAST and (place := self._opened()).device is not None:
            try:
                if self._there is None:
                    self._there = DevicePolicy(place.device, program, plan, self._names)
                self._there.judge(values, asked, out)
                self._enter(program, plan, values, asked, out)
                return
            except place.failures as error:
                place.lost(error)
        judge(program, plan, values, asked, out)

    def _enter(self, program: Program, plan: Plan, values: Floats, asked: Ints, out: Judged) -> None:
        """Raises DifferentError where the CPU says something else of the first batch."""
        if not self._agrees:
            here = Judged.empty(len(asked), program, out.votes.shape[1])
            judge(program, plan, values, asked, here)
            if found := differences(out, here):
                raise DifferentError(f"device and CPU differ in {', '.join(found)}")
            self._agrees = True


def differences(one: Judged, other: Judged) -> list[str]:
    """What differs in any bit of what policy.kernel.judge fills."""
    counts = np.minimum(one.ints[COUNT], other.ints[COUNT])
    heard = np.arange(one.votes.shape[1]) < counts[:, None]
    pairs = {
        "memory": (one.memory, other.memory), "status": (one.status, other.status), "ints": (one.ints, other.ints),
        "rates": (one.floats[RATE], other.floats[RATE]), "votes": (one.votes[heard], other.votes[heard]),
    }  # fmt: skip
    return [name for name, (a, b) in pairs.items() if a.tobytes() != b.tobytes()]


def run_at(policy: Policy, choice: str) -> None:
    """From now on `policy` runs its tables at a place: "cpu", or "cuda:N" while that works."""
    if choice != "cpu":
        policy.judge = DeviceJudge(partial(_place, choice), policy.compiled.names)


@cache
def _place(choice: str) -> Place:
    """This process's own: a device is opened where it is used."""
    try:
        return Place.of(choice, _warn)
    except PlaceError as error:
        _warn(f"{choice} cannot be opened here, the CPU decides: {error}")
        return Place()


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)
