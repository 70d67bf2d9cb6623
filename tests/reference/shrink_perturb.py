"""Four rules that are all called "shrink and perturb".

Random arrays come in as arguments (`noise`: standard normal, shaped like the
parameters; `fresh`: the parameters of a newly initialised network), so that two
implementations can be given the same numbers.
"""

from collections.abc import Callable

import numpy as np

from tests.reference.mlp import Params, map_params
from tests.reference.optimizers import OptState, coupled_l2


def perturb(params: Params, noise: Params, noise_std: float) -> Params:
    """theta <- theta + sigma xi, for every weight and every bias."""
    return map_params(lambda p, xi: p + noise_std * xi, params, noise)


def dohare(
    params: Params,
    grads: Params,
    state: OptState,
    noise: Params,
    *,
    optimizer: Callable[..., tuple[Params, OptState]],
    l2: float,
    noise_std: float,
) -> tuple[Params, OptState]:
    """Dohare et al. (2024): every step, an L2-regularised step, then N(0, sigma^2).

    With SGD: theta <- theta - alpha (g + lambda theta) + sigma xi. The standard
    deviation is absolute: not multiplied by the step size, the same in every layer.
    `optimizer(params, grads, state)` is an update with its hyper-parameters bound.
    """
    params, state = optimizer(params, coupled_l2(params, grads, l2), state)
    return perturb(params, noise, noise_std), state


def ash_adams(
    params: Params, noise: Params, *, shrink: float = 0.6, noise_std: float = 0.01
) -> Params:
    """Ash & Adams (2020): once per task, theta <- lambda theta + N(0, sigma^2).

    `shrink` is the factor lambda that is kept, not the part removed.
    """
    return perturb(map_params(lambda p: shrink * p, params), noise, noise_std)


def kumar(params: Params, fresh: Params, *, shrink: float, noise_std: float) -> Params:
    """Kumar et al. (2023): after every step, theta <- (1 - s) theta + sigma theta_fresh.

    `shrink` is the part s that is removed; theta_fresh is a newly drawn initialisation.
    """
    return map_params(lambda p, new: (1 - shrink) * p + noise_std * new, params, fresh)


def upgd(
    params: Params,
    grads: Params,
    noise: Params,
    *,
    step_size: float,
    l2: float,
    noise_std: float,
) -> Params:
    """Elsayed & Mahmood (2024): the noise is inside the gradient.

    theta <- (1 - alpha lambda) theta - alpha (g + sigma xi).
    """

    def move(p: np.ndarray, g: np.ndarray, xi: np.ndarray) -> np.ndarray:
        return (1 - step_size * l2) * p - step_size * (g + noise_std * xi)

    return map_params(move, params, grads, noise)
