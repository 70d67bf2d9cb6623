"""LoRA for continual learning (Reymond 2024, Algorithm 1; Hu et al. 2022).

1. Train the core phi on task 1. For each later task: 2. freeze phi; A ~ N(0, sigma^2)
[r, in], B = 0 [out, r]; 3. train A and B of W = phi + s B A, s = alpha or alpha / r;
4. phi <- phi + m s B A, m the merge scale (1 in the report).
Kernels of this package are W^T, [in, out]. Beside A and B a task may train the head
and the biases, with the same optimiser.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.reference.mlp import Params, cast, map_params
from tests.reference.optimizers import OptState


def scale(alpha: float, rank: int, scaling: str) -> float:
    """s."""
    return {"absolute": alpha, "by_rank": alpha / rank}[scaling]


def acting(core: Params, adapters: Params, s: float) -> Params:
    """The network with W = phi + s B A."""
    params = cast(core)
    for name, adapter in adapters.items():
        weights = params[name]["kernel"].T + s * adapter["b"] @ adapter["a"]
        params[name]["kernel"] = weights.T
    return params


def adapter_gradients(grads: Params, adapters: Params, s: float) -> Params:
    """dL/dB = s G A^T and dL/dA = s B^T G, G = dL/dW [out, in]."""
    found = {}
    for name, adapter in adapters.items():
        g = grads[name]["kernel"].T
        found[name] = {"a": s * adapter["b"].T @ g, "b": s * g @ adapter["a"].T}
    return found


def adapter_step(
    core: Params,
    adapters: Params,
    grads: Params,
    states: tuple[OptState, OptState],
    *,
    s: float,
    trained: Callable[[str, str], bool],
    optimizer: Callable[..., tuple[Params, OptState]],
    own_optimizer: Callable[..., tuple[Params, OptState]],
    penalty_grads: Params | None = None,
    train_a: bool = True,
) -> tuple[Params, Params, tuple[OptState, OptState]]:
    """One step of a later task: the core (biases, head) and the adapters.

    `grads` are those of the acting network; `trained(module, leaf)` says what of the
    core still trains.
    """
    core_state, own_state = states
    used = {
        module: {
            leaf: g if trained(module, leaf) else np.zeros_like(g)
            for leaf, g in leaves.items()
        }
        for module, leaves in grads.items()
    }
    moved, core_state = optimizer(core, used, core_state)
    new_core = {
        module: {
            leaf: moved[module][leaf] if trained(module, leaf) else value
            for leaf, value in leaves.items()
        }
        for module, leaves in core.items()
    }
    own = adapter_gradients(grads, adapters, s)
    if penalty_grads is not None:
        own = map_params(np.add, own, penalty_grads)
    new, own_state = own_optimizer(adapters, own, own_state)
    if not train_a:
        new = {name: {**new[name], "a": adapters[name]["a"]} for name in new}
    return new_core, new, (core_state, own_state)


def merge(core: Params, adapters: Params, s: float, merge_scale: float) -> Params:
    """phi + m s B A."""
    return acting(core, adapters, merge_scale * s)


def start_adapters(drawn: Any) -> Params:
    """A as drawn, B = 0."""
    return {
        name: {
            "a": np.asarray(adapter["a"], np.float64),
            "b": np.zeros_like(np.asarray(adapter["b"], np.float64)),
        }
        for name, adapter in drawn.items()
    }
