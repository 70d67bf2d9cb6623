"""Online normalisation: running statistics forward, a control process backward.

Source: Chiley et al., NeurIPS 2019 (arXiv 1905.05894), with the released code,
Cerebras/online-normalization. Each example is one step t of both processes, so that a
batch of any size, 1 included, gives what its examples would give one by one; the
positions of a convolution are averaged within an example.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

DECAYS = (0.999, 0.99)  # alpha forward and backward, the defaults of the released code
Stats = dict[str, Array]


def init_errors(size: int) -> Stats:
    """What the backward pass accumulates: sums of the errors that it corrects, [U]."""
    return {"error_y": jnp.zeros(size), "error_1": jnp.zeros(size)}


def normalise(
    z: Array,
    stats: Stats,
    errors: Stats | None,
    train: bool,
    forward_decay: float,
    backward_decay: float,
    epsilon: float,
) -> tuple[Array, Stats]:
    """y = (z - mean) / sqrt(var + epsilon), z [B, ..., U], and the new statistics.

    mean and var [U] are those before the example; while training they then move,
    var <- a var + (1 - a) var(z) + a (1 - a) (mean(z) - mean)^2,
    mean <- a mean + (1 - a) mean(z), mean(z) and var(z) over the example's positions.
    The gradient of z is that of `_pull_back`, and the gradient with respect to `errors`
    is their new value.
    """
    if not train or errors is None:
        return (z - stats["mean"]) / jnp.sqrt(stats["var"] + epsilon), stats
    decays = (forward_decay, backward_decay)
    each = z.reshape(z.shape[0], -1, z.shape[-1])
    y, stats = _control(decays, epsilon, each, stats, errors)
    return y.reshape(z.shape), stats


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _control(decays, epsilon, z: Array, stats: Stats, errors: Stats):
    return _push_forward(decays, epsilon, z, stats, errors)[0]


def _push_forward(decays, epsilon, z: Array, stats: Stats, errors: Stats):
    a = decays[0]

    def example(stats, x):  # x [positions, U]
        mean, var = stats["mean"], stats["var"]
        scale = jnp.sqrt(var + epsilon)
        delta = x.mean(0) - mean
        new_var = a * var + a * (1.0 - a) * delta**2
        if len(x) > 1:
            new_var = new_var + (1.0 - a) * x.var(0)
        new = {"mean": mean + (1.0 - a) * delta, "var": new_var}
        return new, ((x - mean) / scale, scale)

    stats, (y, scale) = _over_examples(example, stats, z)
    return (y, stats), (y, scale, errors)


def _pull_back(decays, epsilon, saved, cotangents):
    """The gradient g of y becomes that of z, its errors held in check: per example,

    g <- g - (1 - a) error_y y,  error_y <- error_y + mean(g y),  g <- g / scale,
    g <- g - (1 - a) error_1,    error_1 <- error_1 + mean(g).
    """
    del epsilon
    y, scale, errors = saved
    a = decays[1]

    def example(errors, at):
        y, scale, g = at
        g = g - (1.0 - a) * errors["error_y"] * y
        error_y = errors["error_y"] + (g * y).mean(0)
        g = g / scale - (1.0 - a) * errors["error_1"]
        return {"error_y": error_y, "error_1": errors["error_1"] + g.mean(0)}, g

    errors, gradient = _over_examples(example, errors, (y, scale, cotangents[0]))
    nothing = {"mean": jnp.zeros(y.shape[-1]), "var": jnp.zeros(y.shape[-1])}
    return gradient, nothing, errors


def _over_examples(example, state, xs):
    """lax.scan over the leading axis, without a loop where there is one example."""
    if len(jax.tree.leaves(xs)[0]) > 1:
        return jax.lax.scan(example, state, xs)
    state, out = example(state, jax.tree.map(lambda x: x[0], xs))
    return state, jax.tree.map(lambda x: x[None], out)


_control.defvjp(_push_forward, _pull_back)
