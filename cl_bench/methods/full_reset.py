"""Full reset: a new network and optimiser for every task, the oracle of plasticity."""

import jax
import jax.numpy as jnp
from flax import struct

from cl_bench import optimizers
from cl_bench.methods._compose import compose
from cl_bench.types import Method, Network, StreamSpec

REFERENCE = "Dohare et al., Nature 632 (2024) 768-774 (retrained network)"
NEEDS = frozenset({"boundaries"})
NEUTRAL = {"every": 2**31 - 1}  # more tasks than a run can have


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """`every`: tasks from one reset to the next, 1 in the paper."""

    every: int = struct.field(pytree_node=False, default=1)


def check(hyper: Hyper) -> None:
    """Raise ValueError for a number of tasks that cannot be."""
    if hyper.every < 1:
        raise ValueError(f"every={hyper.every}: at least 1 task from reset to reset")


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """Backprop whose learner is initialised afresh at every boundary but the first.

    Where the benchmark resets the head, the fresh network's is 0 too.
    """
    check(hyper)
    base = compose(net, spec, optimizers.make(hyper))

    def start_task(key, clock, train, learner):
        del train
        fresh = base.init(key)
        due = (clock.step > 0) & (clock.task % hyper.every == 0)
        return jax.tree.map(lambda new, old: jnp.where(due, new, old), fresh, learner)

    return base._replace(start_task=start_task)
