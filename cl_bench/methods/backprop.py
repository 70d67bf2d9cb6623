"""Backpropagation: gradient descent on the loss and nothing else."""

from flax import struct

from cl_bench import optimizers
from cl_bench.methods._compose import compose
from cl_bench.types import Method, Network, StreamSpec

REFERENCE = "Rumelhart, Hinton and Williams, Nature 323 (1986) 533-536"
NEEDS: frozenset[str] = frozenset()
NEUTRAL: dict[str, float] = {}


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """Those of the optimiser; defaults of Dohare et al. 2024, online permuted MNIST."""


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """SGD, momentum, Adam or AdamW (`optimizers.make`) on the stream's loss."""
    return compose(net, spec, optimizers.make(hyper))
