"""Weight clipping (Elsayed, Lan, Lyle & Mahmood, RLC 2024).

After every optimiser step each weight and each bias of a layer is clamped to
[-b, b], b = zeta / sqrt(fan_in) (the paper's kappa; zeta times the bound of PyTorch's
default initialisation). Choices: the bias has the bound of its layer's kernel; fan_in
of a convolution [kh, kw, in, out] is kh kw in; `clip_last` decides about the head;
scale and shift of normalisation layers are not clamped.
"""

from collections.abc import Callable

import numpy as np

from tests.reference.mlp import Params, cast
from tests.reference.optimizers import OptState


def bound(kernel: np.ndarray, zeta: float) -> float:
    """zeta / sqrt(fan_in)."""
    return float(zeta / np.sqrt(np.prod(kernel.shape[:-1])))


def clip(params: Params, *, zeta: float, clip_last: bool = True) -> Params:
    """Parameters clamped to the bound of their layer."""
    params = cast(params)
    for name, layer in params.items():
        if name == "head" and not clip_last:
            continue
        b = bound(layer["kernel"], zeta)
        for leaf in ("kernel", "bias"):
            layer[leaf] = np.clip(layer[leaf], -b, b)
    return params


def step(
    params: Params,
    grads: Params,
    opt_state: OptState,
    *,
    optimizer: Callable[..., tuple[Params, OptState]],
    zeta: float,
    clip_last: bool = True,
) -> tuple[Params, OptState]:
    """`optimizer(params, grads, opt_state)`, then the clamp; the moments are kept."""
    params, opt_state = optimizer(cast(params), grads, opt_state)
    return clip(params, zeta=zeta, clip_last=clip_last), opt_state
