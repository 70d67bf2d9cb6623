"""A fully connected variational autoencoder: a network that draws new inputs.

Shapes: B batch, D inputs, Z latent numbers. Parameters: module -> {'kernel': [in, out],
'bias': [out]}, of 'encoder_i', 'mean', 'log_var', 'decoder_i' and 'output'; the hidden
layers of the decoder are those of the encoder turned round. Kingma and Welling, ICLR
2014 (arXiv 1312.6114), equation 10 with one draw and appendix B.
"""

from itertools import pairwise

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench.types import Key, PyTree

DECODERS = ("bernoulli", "gaussian")
TOLERANCE = 1e-3  # rounding of a pixel that was rotated or averaged


def check(hidden: tuple[int, ...], latent: int, decoder: str) -> None:
    """Raise ValueError for a size or a decoder that cannot be."""
    if decoder not in DECODERS:
        raise ValueError(f"decoder={decoder!r} is none of {', '.join(DECODERS)}")
    if not hidden or min(hidden) < 1 or latent < 1:
        raise ValueError(
            f"generator_hidden={hidden} and latent={latent}: at least one hidden layer, "
            "and one unit in each"
        )


def init(key: Key, inputs: int, hidden: tuple[int, ...], latent: int) -> PyTree:
    """New parameters, kernels and biases U(-b, b) with b = fan_in^-1/2 (PyTorch's)."""
    down, up = (inputs, *hidden), (latent, *hidden[::-1])
    sizes = {f"encoder_{i + 1}": size for i, size in enumerate(pairwise(down))}
    sizes |= {"mean": (hidden[-1], latent), "log_var": (hidden[-1], latent)}
    sizes |= {f"decoder_{i + 1}": size for i, size in enumerate(pairwise(up))}
    sizes |= {"output": (hidden[0], inputs)}
    keys = jax.random.split(key, len(sizes))
    return {
        name: _dense_init(k, *size)
        for k, (name, size) in zip(keys, sizes.items(), strict=True)
    }


def negative_elbo(params: PyTree, x: Array, eps: Array, decoder: str) -> Array:
    """-log p(x | z) + KL(q(z | x) || N(0, 1)) [B] in nats, of inputs x [B, D].

    q(z | x) is N(mean, exp(log_var)), z = mean + exp(log_var / 2) eps, eps [B, Z].
    'bernoulli': D probabilities sigmoid(output), x in [0, 1] weighing both outcomes; an
    x that is not gives NaN, loss and gradient, since its loss has no minimum. 'gaussian': variance 1 about
    the output, without the constant.
    """
    mean, log_var = encode(params, x)
    output = decode(params, mean + jnp.exp(0.5 * log_var) * eps)
    if decoder == "bernoulli":
        inside = (x >= -TOLERANCE) & (x <= 1.0 + TOLERANCE)
        # A factor, so that the gradient is not a number either.
        known = jnp.where(inside, 1.0, jnp.nan)
        error = known * (jax.nn.softplus(output) - x * output)
    else:
        error = 0.5 * jnp.square(x - output)
    kl = 0.5 * (jnp.square(mean) + jnp.exp(log_var) - 1.0 - log_var)
    return jnp.sum(error, axis=-1) + jnp.sum(kl, axis=-1)


def sample(params: PyTree, key: Key, number: int, decoder: str) -> Array:
    """[number, D]: what the decoder expects at z ~ N(0, 1), in [0, 1] if 'bernoulli'."""
    latent = params["decoder_1"]["kernel"].shape[0]
    output = decode(params, jax.random.normal(key, (number, latent)))
    return jax.nn.sigmoid(output) if decoder == "bernoulli" else output


def encode(params: PyTree, x: Array) -> tuple[Array, Array]:
    """Mean and log-variance [B, Z] of q(z | x)."""
    h = _hidden(params, "encoder", x)
    return _dense(params["mean"], h), _dense(params["log_var"], h)


def decode(params: PyTree, z: Array) -> Array:
    """The decoder's output [B, D], before any sigmoid."""
    return _dense(params["output"], _hidden(params, "decoder", z))


def _hidden(params: PyTree, part: str, h: Array) -> Array:
    layers = sum(name.startswith(part) for name in params)
    for i in range(layers):
        h = jax.nn.relu(_dense(params[f"{part}_{i + 1}"], h))
    return h


def _dense(layer: PyTree, h: Array) -> Array:
    return h @ layer["kernel"] + layer["bias"]


def _dense_init(key: Key, inputs: int, outputs: int) -> PyTree:
    bound = inputs**-0.5
    w, b = jax.random.split(key)
    return {
        "kernel": jax.random.uniform(w, (inputs, outputs), minval=-bound, maxval=bound),
        "bias": jax.random.uniform(b, (outputs,), minval=-bound, maxval=bound),
    }
