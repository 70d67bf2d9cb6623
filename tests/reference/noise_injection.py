"""Noise injection, perturbed gradient descent (PGD).

The optimiser is given g + sigma xi, xi standard normal for every parameter: the PGD
baseline of Elsayed & Mahmood (ICLR 2024). With SGD the parameters move by
-alpha (g + sigma xi); the noise is scaled by the step size, unlike that of shrink and
perturb. Choice: with momentum or Adam the noise goes through the moments.
"""

from collections.abc import Callable

from tests.reference.mlp import Params, cast, map_params
from tests.reference.optimizers import OptState


def step(
    params: Params,
    grads: Params,
    opt_state: OptState,
    noise: Params,
    *,
    optimizer: Callable[..., tuple[Params, OptState]],
    noise_std: float,
) -> tuple[Params, OptState]:
    """`optimizer(params, g + sigma xi, opt_state)`; `noise` is xi."""
    noisy = map_params(lambda g, xi: g + noise_std * xi, cast(grads), noise)
    return optimizer(cast(params), noisy, opt_state)
