"""Online accuracy: correctness of the prediction made before each update."""

import jax.numpy as jnp

from cl_bench.losses import weighted_mean
from cl_bench.metrics._parts import metric
from cl_bench.types import Metric, Network, StreamSpec


def make(net: Network, spec: StreamSpec) -> Metric:
    """`online_accuracy` in [0, 1] and `online_loss`: means over the task's examples.

    The pre-update forward pass of the learning step itself is scored, as in Dohare et
    al. 2024 (accuracy per block of one task).
    """
    del net

    def init():
        return {"score": jnp.zeros(()), "loss": jnp.zeros(()), "steps": jnp.zeros(())}

    def update(state, clock, batch, learner, signals):
        del clock, learner
        score = weighted_mean(spec.loss.score(signals.logits, batch.y), batch.weight)
        return {
            "score": state["score"] + score,
            "loss": state["loss"] + signals.loss,
            "steps": state["steps"] + 1.0,
        }

    def read(state, probe):
        del probe
        return {
            "online_accuracy": state["score"] / state["steps"],
            "online_loss": state["loss"] / state["steps"],
        }

    return metric(init=init, update=update, read=read)
