"""Frozen features: only the head learns after the first task, or from the start."""

import jax.numpy as jnp
from flax import struct

from cl_bench import optimizers
from cl_bench.methods import _freeze
from cl_bench.methods._compose import compose
from cl_bench.types import Method, Network, StreamSpec

REFERENCE = (
    "Control, without a paper of its own: feature extraction as in Li and Hoiem, ECCV "
    "2016 (arXiv 1606.09282), and random features"
)
NEEDS = frozenset({"boundaries"})
NEUTRAL: dict[str, float] | None = None  # the hidden layers do freeze
FEATURES = ("first_task", "random")


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """`features`: 'first_task' are those that it learnt; 'random' the initial ones."""

    features: str = struct.field(pytree_node=False, default="first_task")


def check(hyper: Hyper) -> None:
    """Raise ValueError for features that do not exist."""
    if hyper.features not in FEATURES:
        raise ValueError(
            f"features={hyper.features!r} is none of {', '.join(FEATURES)}"
        )


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """Backprop whose hidden layers stop moving at the first boundary, or never move.

    Everything but the head is frozen to the last bit: weights, biases, scales, shifts
    and statistics of a normalisation. The head trains on, with its optimiser's moments,
    and forgets where tasks share its outputs. `Signals.grads` has the gradients of the
    frozen layers too.

    Raises ValueError as `check` does, and for a network without hidden layers.
    """
    # Batch normalisation goes on normalising training batches by their own statistics.
    check(hyper)
    _freeze.require_hidden(net, "frozen_features")
    base = compose(net, spec, optimizers.make(hyper))

    def step(key, clock, batch, learner):
        frozen = jnp.bool_(hyper.features == "random") | (clock.task > 0)
        free = {
            name: dict.fromkeys(layer, ~frozen | (name == net.head))
            for name, layer in learner.net.params.items()
        }
        after, signals = base.step(key, clock, batch, learner)
        after = _freeze.hold_statistics(frozen, learner, after)
        return _freeze.hold(free, learner, after, signals)

    return base._replace(step=step)
