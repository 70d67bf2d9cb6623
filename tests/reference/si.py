"""Synaptic intelligence (Zenke, Poole & Ganguli 2017).

During a task omega <- omega - g dtheta, g the gradient of the loss without the penalty,
dtheta the whole change of the step. At its end Omega <- Omega + omega / (D^2 + xi), D the
change over the task, and omega <- 0. Loss: L + c sum Omega (theta - theta_last)^2.

Choices: Omega may become negative unless `clamp`, which takes max(0, Omega) of the sum
over tasks (released code); the task's start is where the task before ended.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.reference.mlp import Params, cast, map_params
from tests.reference.optimizers import OptState

State = dict[str, Params]


def init(params: Params) -> State:
    """omega = Omega = 0, and the first task starts at the initial parameters."""
    zeros = map_params(np.zeros_like, cast(params))
    return {"path": zeros, "omega": zeros, "start": cast(params)}


def gradient(params: Params, state: State, *, strength: float) -> Params:
    """2 c Omega (theta - theta_last)."""
    return map_params(
        lambda w, p, q: 2 * strength * w * (p - q),
        state["omega"], params, state["start"],
    )  # fmt: skip


def step(
    params: Params,
    grads: Params,
    opt_state: OptState,
    state: State,
    *,
    optimizer: Callable[..., tuple[Params, OptState]],
    strength: float,
) -> tuple[Params, OptState, State]:
    """One step of `optimizer` on the penalised loss; the path integral one step on."""
    params = cast(params)
    extra = gradient(params, state, strength=strength)
    new, opt_state = optimizer(params, map_params(np.add, grads, extra), opt_state)
    path = map_params(
        lambda w, g, after, before: w - g * (after - before),
        state["path"], grads, new, params,
    )  # fmt: skip
    return new, opt_state, {**state, "path": path}


def end_task(params: Params, state: State, *, xi: float, clamp: bool) -> State:
    """Omega with this task's importances, and a new path from here."""

    def total(old: np.ndarray, path: Any, now: Any, start: Any) -> np.ndarray:
        new = old + path / ((now - start) ** 2 + xi)
        return np.maximum(new, 0) if clamp else new

    omega = map_params(total, state["omega"], state["path"], params, state["start"])
    zeros = map_params(np.zeros_like, omega)
    return {"path": zeros, "omega": omega, "start": cast(params)}
