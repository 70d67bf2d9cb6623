"""Weight clipping: no weight may leave a multiple of its first range."""

import math

import jax.numpy as jnp
from flax import struct
from jax import Array

from cl_bench import optimizers
from cl_bench.methods import _penalties
from cl_bench.methods._compose import compose
from cl_bench.types import Method, NetTransform, Network, StreamSpec

REFERENCE = (
    "Elsayed, Lan, Lyle and Mahmood, RLC 2024 (arXiv 2407.01704), Algorithm 1; released "
    "code"
)
NEEDS: frozenset[str] = frozenset()
NEUTRAL = {"zeta": math.inf}


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """Best settings of the paper on input-permuted MNIST: SGD 1e-3, zeta 1 to 2."""

    step_size: float = 0.001
    zeta: float = 1.0  # kappa in the paper
    clip_last_layer: bool = struct.field(pytree_node=False, default=True)


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """After each step, weights and biases into [-zeta / sqrt(fan_in), the same].

    1 / sqrt(fan_in) is the range of PyTorch's default initialiser; a bias has its
    layer's fan_in. Parameters of normalisations and activations are not clipped.
    """
    # Departs from the paper: its networks have no normalisation, and a scale of 1
    # clipped to 1 / sqrt(fan_in) would shrink every layer.
    return compose(
        net, spec, optimizers.make(hyper), transforms=(clip_weights(net, hyper),)
    )


def clip_weights(net: Network, hyper: Hyper) -> NetTransform:
    """The clipping alone, for composition with other methods."""

    def update(key, clock, signals, state, own):
        del key, clock, signals
        names = list(state.params)
        if not hyper.clip_last_layer:
            names.remove(net.head)
        clipped = {name: _clip(state.params[name], hyper.zeta) for name in names}
        return state._replace(params={**state.params, **clipped}), own, None

    return NetTransform(lambda state: (), update)


def _clip(layer: dict[str, Array], zeta: Array | float) -> dict[str, Array]:
    bound = zeta / math.sqrt(_penalties.fan_in(layer["kernel"]))
    clipped = {
        leaf: jnp.clip(layer[leaf], -bound, bound)
        for leaf in ("kernel", "bias")
        if leaf in layer
    }
    return {**layer, **clipped}
