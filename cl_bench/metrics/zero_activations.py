"""Zero activations: hidden outputs that are exactly 0 on the current examples."""

import jax.numpy as jnp
from jax import Array

from cl_bench.metrics._parts import alive_units, metric
from cl_bench.types import Metric, Network, StreamSpec


def make(net: Network, spec: StreamSpec) -> Metric:
    """`zero_activation_fraction` in [0, 1] of all hidden outputs, and by layer.

    The share of hidden outputs equal to 0 in the forward pass of the learning step,
    mean over the task's steps. Elsayed and Mahmood (ICLR 2024) call it dead units, but
    it is taken on the single current example: half of all outputs of a healthy ReLU
    layer. Every position of a feature map is an output. Examples of weight 0 and units
    that are not alive do not count.
    """
    del spec
    name = "zero_activation_fraction"
    rows = [name] + [f"{name}/{unit.name}" for unit in net.units]

    def init():
        return {"steps": jnp.zeros(())} | {row: jnp.zeros(()) for row in rows}

    def update(state, clock, batch, learner, signals):
        del clock
        zeros, sizes = [], []
        for unit in net.units:
            h = signals.acts[unit.name]
            valid = batch.weight.reshape(-1, *(1,) * (h.ndim - 1)) > 0.0
            valid = jnp.broadcast_to(valid & alive_units(learner.net, unit), h.shape)
            # NaN is not 0, but a layer that holds one has no share of zeros.
            found = jnp.where(valid, (h == 0.0) + 0.0 * h, 0.0)
            zeros.append(jnp.sum(found))
            sizes.append(jnp.sum(valid).astype(jnp.float32))
        shares = [_share(sum(zeros), sum(sizes))] + [
            _share(*pair) for pair in zip(zeros, sizes, strict=True)
        ]
        sums = {row: state[row] + s for row, s in zip(rows, shares, strict=True)}
        return sums | {"steps": state["steps"] + 1.0}

    def read(state, probe):
        del probe
        return {row: state[row] / state["steps"] for row in rows} if net.units else {}

    return metric(init=init, update=update, read=read)


def _share(zeros: Array | float, size: Array | float) -> Array:
    return zeros / jnp.maximum(size, 1.0)
