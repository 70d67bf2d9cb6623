"""Gradient norm: how large the gradients of a task are."""

import jax
import jax.numpy as jnp

from cl_bench.metrics._parts import metric
from cl_bench.types import Metric, Network, StreamSpec


def make(net: Network, spec: StreamSpec) -> Metric:
    """`gradient_norm`: mean over the task's steps of the L2 norm of the gradient.

    The norm is over all parameters at once, of the gradient of the loss and of what the
    method adds to it (penalties, rehearsal), before what it does to that gradient
    (noise, projections, but for those of `gpm`), moments and step size. It is taken at
    every step, which is one more pass over all gradients: at batch size 1, where a step
    is little more than such passes, it shows in the speed.
    """
    del net, spec

    def init():
        return {"norm": jnp.zeros(()), "steps": jnp.zeros(())}

    def update(state, clock, batch, learner, signals):
        del clock, batch, learner
        squares = [jnp.sum(jnp.square(g)) for g in jax.tree.leaves(signals.grads)]
        norm = jnp.sqrt(sum(squares[1:], squares[0]))
        return {"norm": state["norm"] + norm, "steps": state["steps"] + 1.0}

    def read(state, probe):
        del probe
        return {"gradient_norm": state["norm"] / state["steps"]}

    return metric(init=init, update=update, read=read)
