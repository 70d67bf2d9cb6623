"""What the regularisers share: which weights count, and kernels as matrices."""

from jax import Array

from cl_bench import units
from cl_bench.types import Learner, NetState, Network, PyTree


def in_use(net: Network, learner: Learner, params: PyTree) -> PyTree:
    """`params` with the weights of dead units and forbidden edges held at 0.

    A penalty of these gives weights that are not in use no gradient, so that none of it
    reaches an optimiser's moments.
    """
    return constrained(net, learner.net._replace(params=params))


def constrained(net: Network, state: NetState) -> PyTree:
    """A network's parameters as the runner will have them: see `units.constrain_net`.

    For references taken of a new network, before the runner has seen it.
    """
    return units.constrain_net(state, net.units).params


def hidden(net: Network, params: PyTree) -> tuple[str, ...]:
    """The names of all modules but the head."""
    return tuple(name for name in params if name != net.head)


def matrix(kernel: Array) -> Array:
    """Kernel [..., in, out] as one matrix [fan in, out]: a layer's W, transposed."""
    return kernel.reshape(-1, kernel.shape[-1])


def fan_in(kernel: Array) -> int:
    """How many inputs a unit of this kernel [..., in, out] has."""
    return kernel.size // kernel.shape[-1]
