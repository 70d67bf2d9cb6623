"""GraMa / ReGraMa, resets by gradient magnitude (NeurIPS 2025).

As ReDo, with the score of unit i taken from gradients: the mean of |dL / dw| over its
incoming weights, over the mean of these means in the layer; s_i <= tau, about .01.
It also finds units that are active but learn nothing, whatever the activation.

Choices: the bias is not part of the incoming weights; g is the gradient of the batch
loss at this step, without regularisers (not a mean of |g| per example); a layer
without any gradient is reset as a whole, as in ReDo; all else is as in `redo`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.reference.mlp import Params, cast
from tests.reference.optimizers import OptState
from tests.reference.redo import init, normalised
from tests.reference.resets import Masks, reset_moments, reset_units


def scores(kernel_grad: np.ndarray) -> np.ndarray:
    """s [U] of the gradient [..., in, U] of the incoming kernel."""
    g = np.asarray(kernel_grad, np.float64)
    return normalised(np.abs(g).mean(axis=tuple(range(g.ndim - 1))))


def step(
    params: Params,
    grads: Params,
    opt_state: OptState,
    state: dict[str, Any],
    fresh: Params,
    *,
    optimizer: Callable[..., tuple[Params, OptState]],
    period: int,
    tau: float = 0.01,
) -> tuple[Params, OptState, dict[str, Any], Masks]:
    """One step; also the masks [U] of what was reset (all False when not due)."""
    params, opt_state = optimizer(cast(params), grads, opt_state)
    count = state["count"] + 1
    due = count % period == 0
    hidden = [name for name in params if name != "head"]
    masks = {name: due & (scores(grads[name]["kernel"]) <= tau) for name in hidden}
    params = reset_units(params, masks, fresh)
    return params, reset_moments(opt_state, masks), {"count": count}, masks


__all__ = ["init", "scores", "step"]
