"""Sample plasticity: how much of its own loss a step takes away."""

import jax.numpy as jnp

from cl_bench.losses import mask_logits, weighted_mean
from cl_bench.metrics._parts import mean_over_steps
from cl_bench.types import Metric, Network, StreamSpec

SMALLEST = 1e-8  # a loss below it counts as this


def make(net: Network, spec: StreamSpec) -> Metric:
    """`sample_plasticity` in [0, 1]: mean over the task's steps of p.

    p = clip(1 - L_after / max(L_before, 1e-8), 0, 1), both losses of the step's own
    minibatch: before the step as the step itself saw it, after it by one more forward
    pass in evaluation mode with all that the method changed (Elsayed and Mahmood, ICLR
    2024; their batch is one example). The pass is taken at every step and costs about
    a third of one.
    """

    def plasticity(batch, learner, signals):
        def loss(logits):
            return weighted_mean(spec.loss.per_example(logits, batch.y), batch.weight)

        logits = net.apply(learner.net, batch.x, train=False, key=None)[0]
        after = loss(mask_logits(logits, batch.classes))
        before = jnp.maximum(loss(signals.logits), SMALLEST)
        return jnp.clip(1.0 - after / before, 0.0, 1.0)

    return mean_over_steps("sample_plasticity", plasticity)
