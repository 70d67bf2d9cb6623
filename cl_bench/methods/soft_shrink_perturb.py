"""Soft shrink and perturb: every step a little of a fresh network."""

from flax import struct

from cl_bench import optimizers
from cl_bench.methods._compose import compose
from cl_bench.methods.shrink_perturb import towards_fresh
from cl_bench.types import Method, Network, StreamSpec

REFERENCE = (
    "Juliani and Ash, NeurIPS 2024 (arXiv 2405.19153); equation and settings from a "
    "secondary source"
)
NEEDS: frozenset[str] = frozenset()
NEUTRAL = {"shrink": 0.0}


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """s = 1e-6 at every step."""

    shrink: float = 1e-6


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """theta <- (1 - s) theta + s theta_fresh after each optimiser step, s = `shrink`.

    theta_fresh is drawn anew at every step from the network's own initialiser, which
    costs many times a step of batch 1.
    """

    transform = towards_fresh(net, hyper.shrink, hyper.shrink)
    return compose(net, spec, optimizers.make(hyper), transforms=(transform,))
