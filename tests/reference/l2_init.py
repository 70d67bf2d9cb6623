"""L2 init, regenerative regularisation (Kumar, Marklund & Van Roy 2023).

Loss + lambda ||theta - theta_0||^2, theta_0 the initial parameters; the released code
has lambda / 2. Choices: every parameter counts, biases and the head too, but not the
affine parameters of normalisation layers (the code skips them; the paper's networks
have none). The gradient of the penalty is added to that of the loss, so that with Adam
it goes through the moments. `reference` is theta_0; the variant that draws it anew at
every step passes a new one each time.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.reference.mlp import Params, cast, map_params
from tests.reference.optimizers import OptState

FACTOR = {"paper": 1.0, "code": 0.5}
NORM_LEAVES = ("scale", "shift")


def _difference(params: Params, reference: Params, skip: tuple[str, ...]) -> Params:
    """theta - theta_0; 0 for the leaves of the names `skip`."""
    return {
        module: {
            name: np.subtract(leaf, reference[module][name], dtype=np.float64)
            * (name not in skip)
            for name, leaf in leaves.items()
        }
        for module, leaves in params.items()
    }


def penalty(
    params: Params,
    reference: Params,
    *,
    strength: float,
    convention: str = "paper",
    norm: str = "l2",
    delta: float = 1.0,
    skip: tuple[str, ...] = NORM_LEAVES,
) -> float:
    """c lambda sum (theta - theta_0)^2, c = 1 ('paper') or 1/2 ('code').

    `norm` 'l1' is the paper's variant lambda sum |theta - theta_0|; 'huber' has, for
    d = theta - theta_0, d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2). No
    convention for either.
    """
    leaves = [
        d for m in _difference(params, reference, skip).values() for d in m.values()
    ]
    if norm == "l1":
        return strength * float(sum(np.abs(d).sum() for d in leaves))
    if norm == "huber":
        total = 0.0
        for d in np.concatenate([d.ravel() for d in leaves]):
            inside = abs(d) <= delta
            total += d**2 / 2 if inside else delta * (abs(d) - delta / 2)
        return strength * total
    return FACTOR[convention] * strength * float(sum((d**2).sum() for d in leaves))


def gradient(
    params: Params,
    reference: Params,
    *,
    strength: float,
    convention: str = "paper",
    norm: str = "l2",
    delta: float = 1.0,
    skip: tuple[str, ...] = NORM_LEAVES,
) -> Params:
    """2 c lambda (theta - theta_0); 'l1': lambda sign(theta - theta_0), sign(0) = 0;
    'huber': lambda (theta - theta_0), its size at most lambda delta.
    """
    difference = _difference(params, reference, skip)
    if norm == "l1":
        return map_params(lambda d: strength * np.sign(d), difference)
    if norm == "huber":
        return map_params(lambda d: strength * np.clip(d, -delta, delta), difference)
    return map_params(lambda d: 2 * FACTOR[convention] * strength * d, difference)


def init(params: Params) -> Params:
    """theta_0: a copy of the parameters before the first step."""
    return cast(params)


def step(
    params: Params,
    grads: Params,
    opt_state: OptState,
    reference: Params,
    *,
    optimizer: Callable[..., tuple[Params, OptState]],
    **penalty_options: Any,
) -> tuple[Params, OptState, Params]:
    """One step of `optimizer(params, grads, opt_state)` on the penalised loss."""
    params = cast(params)
    extra = gradient(params, reference, **penalty_options)
    params, opt_state = optimizer(params, map_params(np.add, grads, extra), opt_state)
    return params, opt_state, reference
