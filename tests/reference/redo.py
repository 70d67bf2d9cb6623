"""ReDo, recycling dormant neurons (Sokar et al., ICML 2023, Eq. 1 and Algorithm 1).

Score of unit i of a layer of H: s_i = E|h_i| / (1/H sum_k E|h_k|), the mean over the
batch (and over space). Every F steps the hidden units with s_i <= tau are made new;
`fresh` is a newly drawn network. Kumar et al.'s variant: it is the initial one, which
gives the biases too (`initial`), and the moments stay (`keep_moments`). See `resets`.

Choices: the activations are those of the step's forward pass, before its update; step
t counts from 1 and is a reset step where F divides t; the reset follows the optimiser
step; in a layer of zeros every unit is dormant; the moments of what was reset go to 0,
the step count is kept.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.reference.mlp import Params, cast
from tests.reference.optimizers import OptState
from tests.reference.resets import Masks, reset_moments, reset_units


def normalised(values: np.ndarray) -> np.ndarray:
    """values [U] over their mean; zeros where all are 0."""
    mean = values.mean()
    return values / mean if mean > 0 else np.zeros_like(values)


def scores(h: np.ndarray) -> np.ndarray:
    """s [U] of activations [B, ..., U]."""
    h = np.asarray(h, np.float64)
    return normalised(np.abs(h).mean(axis=tuple(range(h.ndim - 1))))


def init() -> dict[str, Any]:
    """The step count."""
    return {"count": 0}


def step(
    params: Params,
    grads: Params,
    opt_state: OptState,
    state: dict[str, Any],
    activations: dict[str, np.ndarray],
    fresh: Params,
    *,
    optimizer: Callable[..., tuple[Params, OptState]],
    period: int,
    tau: float = 0.1,
    initial: bool = False,
    keep_moments: bool = False,
) -> tuple[Params, OptState, dict[str, Any], Masks]:
    """One step; also the masks [U] of what was reset (all False when not due)."""
    params, opt_state = optimizer(cast(params), grads, opt_state)
    count = state["count"] + 1
    due = count % period == 0
    hidden = [name for name in params if name != "head"]
    masks = {name: due & (scores(activations[name]) <= tau) for name in hidden}
    params = reset_units(params, masks, fresh, with_bias=initial)
    if not keep_moments:
        opt_state = reset_moments(opt_state, masks)
    return params, opt_state, {"count": count}, masks
