"""Full reset: a new network and optimiser for every task, the oracle of plasticity."""

import jax
import jax.numpy as jnp
from flax import struct

from cl_bench import optimizers
from cl_bench.methods._compose import compose
from cl_bench.types import Method, Network, StreamSpec

REFERENCE = "Dohare et al., Nature 632 (2024) 768-774 (retrained network)"
NEEDS = frozenset({"boundaries"})
# Backprop in the first task alone: what starts anew has no strength to set to 0.
NEUTRAL: dict[str, float] | None = None


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """Those of the optimiser."""


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """Backprop whose learner is initialised afresh at every boundary but the first."""
    base = compose(net, spec, optimizers.make(hyper))

    def start_task(key, clock, train, learner):
        del train
        return jax.tree.map(
            lambda new, old: jnp.where(clock.step > 0, new, old),
            base.init(key),
            learner,
        )

    return base._replace(start_task=start_task)
