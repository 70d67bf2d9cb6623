"""Bayesian gradient descent (Zeno et al. 2018), the closed form of each step.

q(theta) = N(mu, diag(sigma^2)), theta = mu + sigma eps. With L summed over the batch and
E over K draws of eps,

    mu    <- mu - eta sigma^2 E[dL/dtheta]
    sigma <- sigma sqrt(1 + (sigma E[dL/dtheta eps] / 2)^2) - sigma^2 E[dL/dtheta eps] / 2.
"""

from typing import Any

import numpy as np

from tests.reference.mlp import Params, loss_and_grads, map_params


def step(
    mu: Params,
    sigma: Params,
    draws: list[Params],
    x: Any,
    y: Any,
    weight: Any,
    *,
    eta: float,
    gradients: str,
) -> tuple[Params, Params]:
    """The new mu and sigma; `draws` are the eps."""
    total = map_params(np.zeros_like, mu)
    total_eps = map_params(np.zeros_like, mu)
    factor = weight.sum() if gradients == "sum" else 1.0
    for eps in draws:
        theta = map_params(lambda m, s, e: m + s * e, mu, sigma, eps)
        mean = loss_and_grads(theta, x, y, example_weight=weight)[2]
        total = map_params(lambda t, g: t + factor * g, total, mean)
        total_eps = map_params(lambda t, g, e: t + factor * g * e, total_eps, mean, eps)
    n = len(draws)
    new_mu = map_params(lambda m, s, t: m - eta * s**2 * t / n, mu, sigma, total)
    new_sigma = map_params(
        lambda s, t: s * np.sqrt(1 + (s * t / n / 2) ** 2) - s**2 * t / n / 2,
        sigma, total_eps,
    )  # fmt: skip
    return new_mu, new_sigma
