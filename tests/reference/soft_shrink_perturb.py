"""Soft shrink and perturb (Juliani & Ash, NeurIPS 2024, "shrink+perturb" per step).

After every optimiser step theta <- (1 - s) theta + s theta_fresh, theta_fresh a newly
drawn initialisation, s = 1e-6. Choices: every parameter, biases (fresh 0) and scales
(fresh 1) too; the mixing follows the optimiser step.
"""

from collections.abc import Callable

from tests.reference.mlp import Params, cast, map_params
from tests.reference.optimizers import OptState


def mix(params: Params, fresh: Params, shrink: float) -> Params:
    """(1 - s) theta + s theta_fresh."""
    return map_params(lambda p, new: (1 - shrink) * p + shrink * new, params, fresh)


def step(
    params: Params,
    grads: Params,
    opt_state: OptState,
    fresh: Params,
    *,
    optimizer: Callable[..., tuple[Params, OptState]],
    shrink: float = 1e-6,
) -> tuple[Params, OptState]:
    """`optimizer(params, grads, opt_state)`, then the mixing with `fresh`."""
    params, opt_state = optimizer(cast(params), grads, opt_state)
    return mix(params, cast(fresh), shrink), opt_state
