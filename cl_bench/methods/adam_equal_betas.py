"""Adam whose two moments forget at one rate."""

import dataclasses

from flax import struct

from cl_bench import optimizers
from cl_bench.methods._compose import compose
from cl_bench.types import Method, Network, StreamSpec

REFERENCE = (
    "Dohare et al., Nature 632 (2024) 768-774, reinforcement learning, released code; "
    "Lyle et al., ICML 2023 (arXiv 2303.01486), from a secondary source"
)
NEEDS: frozenset[str] = frozenset()
NEUTRAL = {"beta": 0.99, "beta1": 0.99, "beta2": 0.99}  # Adam with these betas
ADAMS = ("adam", "adamw", "aged_adam", "adam_gnt")


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """beta1 = beta2 = `beta`; the optimiser's own two betas are not read."""

    step_size: float = 0.001
    beta: float = 0.99
    optimizer: str = struct.field(pytree_node=False, default="adam")


def check(hyper: Hyper) -> None:
    """Raise ValueError for an optimiser without betas."""
    if hyper.optimizer not in ADAMS:
        raise ValueError(
            f"optimizer={hyper.optimizer!r} has no betas to be equal: one of "
            f"{', '.join(ADAMS)}"
        )


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """Adam with m and v averaged over the same 1 / (1 - beta) steps.

    |m| <= sqrt(v) then holds at every step (Cauchy-Schwarz), so that no update exceeds
    the step size when gradients grow at once, as they do when a task changes.
    """
    check(hyper)
    equal = dataclasses.replace(hyper, beta1=hyper.beta, beta2=hyper.beta)
    return compose(net, spec, optimizers.make(equal))
