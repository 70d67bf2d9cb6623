"""Online loss: the loss of the prediction made before each update."""

import jax.numpy as jnp

from cl_bench.metrics._parts import metric
from cl_bench.types import Metric, Network, StreamSpec


def make(net: Network, spec: StreamSpec) -> Metric:
    """`online_loss`: mean over the task's steps of the mini-batch's loss, penalty left out.

    For regression streams, where a score in [0, 1] says little: with batch size 1 and
    the squared error it is the mean pre-update squared error (Dohare et al. 2023).
    Classification streams take `online_accuracy`, which records this number as well.
    """
    del net, spec

    def init():
        return {"loss": jnp.zeros(()), "steps": jnp.zeros(())}

    def update(state, clock, batch, learner, signals):
        del clock, batch, learner
        return {"loss": state["loss"] + signals.loss, "steps": state["steps"] + 1.0}

    def read(state, probe):
        del probe
        return {"online_loss": state["loss"] / state["steps"]}

    return metric(init=init, update=update, read=read)
