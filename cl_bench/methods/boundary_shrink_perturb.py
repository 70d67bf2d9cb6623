"""Shrink and perturb as first published: once at every task boundary."""

import jax
from flax import struct

from cl_bench import noise, optimizers
from cl_bench.methods._compose import compose
from cl_bench.types import Method, Network, StreamSpec

REFERENCE = (
    "Ash and Adams, NeurIPS 2020 (arXiv 1910.08475); equation and settings from a "
    "secondary source"
)
NEEDS = frozenset({"boundaries"})
NEUTRAL = {"keep": 1.0, "noise_std": 0.0}


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """theta <- keep * theta + noise_std * N(0, 1); settings not checked against the paper."""

    keep: float = 0.6
    noise_std: float = 0.01


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """Shrinks and perturbs every weight and bias at the start of all tasks but the first.

    Optimiser moments stay as they are.
    """

    def start_task(key, clock, train, learner):
        del train
        params = learner.net.params
        xi = noise.normal_like(key, params, "exact")
        moved = jax.tree.map(
            lambda p, x: hyper.keep * p + hyper.noise_std * x, params, xi
        )
        first = clock.step == 0
        params = jax.tree.map(lambda p, q: jax.numpy.where(first, p, q), params, moved)
        return learner._replace(net=learner.net._replace(params=params))

    return compose(net, spec, optimizers.make(hyper), start_task=start_task)
