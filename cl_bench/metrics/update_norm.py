"""Update norm: how far the optimiser moves the parameters in one step."""

import jax
import jax.numpy as jnp

from cl_bench.metrics._parts import mean_over_steps
from cl_bench.types import Metric, Network, StreamSpec


def make(net: Network, spec: StreamSpec) -> Metric:
    """`update_norm`: mean over the task's steps of the L2 norm of the update.

    Over all parameters at once, of what the optimiser adds to them: step size included,
    without what a method does to the weights afterwards (noise, resets).
    """
    del net, spec

    def norm(batch, learner, signals):
        del batch, learner
        squares = [jnp.sum(jnp.square(u)) for u in jax.tree.leaves(signals.updates)]
        return jnp.sqrt(sum(squares[1:], squares[0]))

    return mean_over_steps("update_norm", norm)
