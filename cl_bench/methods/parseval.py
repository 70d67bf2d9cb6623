"""Parseval regularisation: the rows of every hidden layer's weights stay orthogonal."""

import jax.numpy as jnp
from flax import struct
from jax import Array

from cl_bench import optimizers
from cl_bench.methods import _penalties
from cl_bench.methods._compose import compose
from cl_bench.types import Learner, Method, Network, PyTree, StreamSpec

REFERENCE = (
    "Chung, Cherif, Precup and Meger, NeurIPS 2024 (arXiv 2412.07224), eq. 1; settings "
    "of the released code (wechu/parseval_reg) from a secondary description"
)
NEEDS: frozenset[str] = frozenset()
NEUTRAL = {"strength": 0.0}
REFERENCE_WIDTH = 64  # units a layer in the paper's networks


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """The released code's: s = 2, strengths for 64 units a layer and scaled to others."""

    strength: float = 1e-3
    s: float = 2.0  # the square of the gain: 2 for ReLU
    scale_by_width: bool = struct.field(pytree_node=False, default=True)


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """Loss + strength sum over hidden layers of ||W W' - s I||_F^2, W [out, fan in].

    With `scale_by_width` a layer of U units counts (64 / U)^2. A convolution is the
    matrix out x (kh kw in). Biases and the head are free. W W' costs fan_in out^2
    multiplications a step, as many as a forward pass of `out` examples.
    Raises ValueError for a network without hidden layers.
    """
    if not net.units:
        raise ValueError(
            "parseval regularises hidden layers and the network has none; "
            "give it widths, or take l2 or l2_init"
        )

    def penalty(params: PyTree, learner: Learner) -> Array:
        params = _penalties.in_use(net, learner, params)
        total = jnp.zeros(())
        for name in _penalties.hidden(net, params):
            total += _of_kernel(params[name]["kernel"], hyper)
        return hyper.strength * total

    return compose(net, spec, optimizers.make(hyper), penalty=penalty)


def _of_kernel(kernel: Array, hyper: Hyper) -> Array:
    w = _penalties.matrix(kernel)
    size = w.shape[1]
    share = (REFERENCE_WIDTH / size) ** 2 if hyper.scale_by_width else 1.0
    return share * jnp.sum(jnp.square(w.T @ w - hyper.s * jnp.eye(size)))
