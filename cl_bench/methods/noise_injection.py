"""Noise injection: perturbed gradient descent, g + sigma xi."""

from flax import struct

from cl_bench import noise, optimizers
from cl_bench.methods._compose import compose
from cl_bench.methods.shrink_perturb import add_noise_to_grads
from cl_bench.types import Method, Network, StreamSpec

REFERENCE = (
    "PGD of Elsayed and Mahmood, ICLR 2024 (arXiv 2404.00781), released code "
    "(mohmdelsayed/upgd); after Zhou et al., ICML 2019, from a secondary source"
)
NEEDS: frozenset[str] = frozenset()
NEUTRAL = {"noise_std": 0.0}


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """Best setting of PGD in Elsayed and Mahmood on input-permuted MNIST."""

    step_size: float = 0.001
    noise_std: float = 0.1
    noise: str = struct.field(pytree_node=False, default="exact")


def check(hyper: Hyper) -> None:
    """Raise ValueError for a kind of noise that does not exist."""
    if hyper.noise not in noise.KINDS:
        raise ValueError(f"noise={hyper.noise!r} is none of {', '.join(noise.KINDS)}")


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """theta <- optimiser(g + noise_std xi), xi ~ N(0, 1) for every parameter in use."""
    check(hyper)
    perturb = add_noise_to_grads(net, hyper.noise_std, hyper.noise)
    return compose(net, spec, optimizers.make(hyper), grad_transforms=(perturb,))
