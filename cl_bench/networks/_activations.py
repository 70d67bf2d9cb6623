"""Activations of hidden units, some with parameters, some with two features a unit."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array


def _crelu(z: Array) -> Array:
    """[..., U] -> [..., 2, U]: relu(z), relu(-z) (Shang et al., ICML 2016)."""
    return jnp.stack([jax.nn.relu(z), jax.nn.relu(-z)], axis=-2)


def _fourier(z: Array) -> Array:
    """[..., U] -> [..., 2, U]: sin z, cos z (Lewandowski et al., ICLR 2025)."""
    return jnp.stack([jnp.sin(z), jnp.cos(z)], axis=-2)


def _prelu(layer: dict[str, Array], z: Array) -> Array:
    """z where z > 0, else a_i z: a slope for each unit (He et al., ICCV 2015)."""
    return jnp.where(z > 0.0, z, layer["prelu"] * z)


def _adalin_relu(layer: dict[str, Array], z: Array) -> Array:
    """phi(z) + a_i z g(z), g = cos(pi/2 |phi'(z)| / max |phi'|), no gradient through g.

    For ReLU g is 0 where z > 0 and 1 elsewhere. Source: Rohani et al., CoLLAs 2025
    (arXiv 2505.09486), its equation from a secondary source.
    """
    return jax.nn.relu(z) + layer["adalin"] * jnp.where(z > 0.0, 0.0, z)


def _adalin_tanh(layer: dict[str, Array], z: Array) -> Array:
    """As `_adalin_relu`, with phi = tanh: phi' = 1 - tanh^2, at most 1."""
    h = jnp.tanh(z)
    g = jax.lax.stop_gradient(jnp.cos(math.pi / 2.0 * (1.0 - h**2)))
    return h + layer["adalin"] * z * g


# Functions of the pre-activation alone.
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,  # slope 0 at 0, as in PyTorch; that of jnp.maximum is 1/2
    "leaky_relu": lambda z: jnp.where(z > 0.0, z, 0.01 * z),
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "elu": jax.nn.elu,
    "swish": jax.nn.swish,
    "linear": lambda z: z,
    "crelu": _crelu,
    "fourier": _fourier,
}
# Functions with one learnt number a unit: name -> (leaf, its first value, function).
LEARNT: dict[str, tuple[str, float, Callable[[dict[str, Array], Array], Array]]] = {
    "prelu": ("prelu", 0.25, _prelu),
    "adalin_relu": ("adalin", 0.0, _adalin_relu),
    "adalin_tanh": ("adalin", 0.0, _adalin_tanh),
}
NAMES = (*ACTIVATIONS, *LEARNT)


def check(name: str) -> None:
    """Raise ValueError for an activation that does not exist."""
    if name not in NAMES:
        raise ValueError(f"activation {name!r} is none of {sorted(NAMES)}")


def features(name: str) -> int:
    """Outputs of one unit: 2 for 'crelu' and 'fourier', else 1."""
    return 2 if name in ("crelu", "fourier") else 1


def init_leaves(name: str, size: int) -> dict[str, Array]:
    """The activation's own parameters, [size] each: {} for most."""
    if name not in LEARNT:
        return {}
    leaf, value, _ = LEARNT[name]
    return {leaf: jnp.full(size, value)}


def activate(name: str, layer: dict[str, Array], z: Array) -> Array:
    """Pre-activations [B, ..., U] -> [B, ..., U], or [B, ..., 2, U] (two features).

    `layer` is the module's entry in `params`, which holds `init_leaves`.
    """
    if name in LEARNT:
        return LEARNT[name][2](layer, z)
    return ACTIVATIONS[name](z)


def flatten_features(h: Array) -> Array:
    """[B, ..., 2, U] -> [B, ..., 2 U] for the next layer, the unit index fastest."""
    return h.reshape(*h.shape[:-2], h.shape[-2] * h.shape[-1])
