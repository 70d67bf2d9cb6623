"""Hare and Tortoise (Lee et al., ICML 2024).

After every optimiser step on the fast weights (hare) the slow ones (tortoise) follow,
theta_s <- m theta_s + (1 - m) theta, m = .999; every `period` steps the fast ones are
set back, theta <- theta_s. Choices: the slow copy starts at the initial parameters;
step t counts from 1, and where `period` divides t the average is taken first; the
optimiser state is kept at the reset. Statistics of normalisation layers follow the
same two rules: give `ema` and the copy the tree of statistics.
"""

from collections.abc import Callable
from typing import Any

from tests.reference.mlp import Params, cast, map_params
from tests.reference.optimizers import OptState

State = dict[str, Any]


def init(params: Params) -> State:
    """The slow copy and the step count."""
    return {"slow": cast(params), "count": 0}


def ema(slow: Params, fast: Params, decay: float) -> Params:
    """m theta_s + (1 - m) theta."""
    return map_params(lambda s, f: decay * s + (1 - decay) * f, slow, fast)


def step(
    params: Params,
    grads: Params,
    opt_state: OptState,
    state: State,
    *,
    optimizer: Callable[..., tuple[Params, OptState]],
    decay: float = 0.999,
    period: int,
) -> tuple[Params, OptState, State]:
    """`optimizer(params, grads, opt_state)`, the average, and the reset when due."""
    params, opt_state = optimizer(cast(params), grads, opt_state)
    count = state["count"] + 1
    slow = ema(state["slow"], params, decay)
    if count % period == 0:
        params = cast(slow)
    return params, opt_state, {"slow": slow, "count": count}
