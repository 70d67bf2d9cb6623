"""Unit utilities of continual backprop and the statistics they are made from."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.reference.mlp import Params, layer_names

Units = dict[str, np.ndarray]


@dataclass
class State:
    """Per hidden layer: u, f and a [U], and the scalar c of units due."""

    utility: Units
    mean_activation: Units
    age: Units
    accumulator: dict[str, Any]


def init_state(params: Params, dtype: Any = np.float64) -> State:
    """All zeros."""
    sizes = {n: len(params[n]["bias"]) for n in layer_names(params)[:-1]}

    def zeros() -> Units:
        return {name: np.zeros(size, dtype) for name, size in sizes.items()}

    return State(zeros(), zeros(), zeros(), {n: np.dtype(dtype).type(0) for n in sizes})


def instantaneous_utility(
    kind: str,
    h: np.ndarray,
    f_hat: np.ndarray,
    w_in: np.ndarray,
    w_out: np.ndarray,
    *,
    magnitude: str = "mean",
    example_weight: np.ndarray | None = None,
) -> np.ndarray:
    """y [U] of one layer from h [B, U], f_hat [U], w_in [D, U], w_out [U, K].

    |w| is averaged ('mean', the code) or added up ('sum', the papers); both rank the
    units of a layer alike. Biases are not part of w_in.
    """
    reduce = {"mean": np.mean, "sum": np.sum}[magnitude]
    out = reduce(np.abs(w_out), axis=1)
    into = reduce(np.abs(w_in), axis=0)
    centred = np.average(np.abs(h - f_hat), axis=0, weights=example_weight)
    if kind == "weight":
        return out
    if kind == "contribution":
        return out * np.average(np.abs(h), axis=0, weights=example_weight)
    if kind == "zero_contribution":
        return out * centred
    if kind == "adaptation":
        return 1 / into
    if kind == "adaptable_contribution":
        return out * centred / into
    if kind == "feature_by_input":
        return centred / into
    if kind == "random":
        return np.zeros_like(out)
    raise ValueError(f"unknown utility {kind!r}")


def update_utility(
    state: State,
    name: str,
    h: np.ndarray,
    w_in: np.ndarray,
    w_out: np.ndarray,
    *,
    utility: str = "adaptable_contribution",
    decay: float = 0.99,
    bias_correction: str = "current",
    magnitude: str = "mean",
    example_weight: np.ndarray | None = None,
    random_utility: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Ages, f and u of layer `name`, in place; the rank u_hat and f_hat, both [U].

    With a the age, this step counted, and kappa = 1 - eta^a:
    'current':  f_hat = f_t / kappa,     u_hat = u_t / kappa       (released code)
    'previous': f_hat = f_{t-1} / kappa, u_hat = u_{t-1} / kappa   (arXiv, slides)
    'none':     f_hat = f_t,             u_hat = u_t               (Nature)
    """
    if bias_correction not in ("current", "previous", "none"):
        raise ValueError(f"unknown bias_correction {bias_correction!r}")
    f_before, u_before = state.mean_activation[name], state.utility[name]
    age = state.age[name] + 1
    kappa = np.ones_like(age) if bias_correction == "none" else 1 - decay**age
    if example_weight is not None:
        example_weight = np.asarray(example_weight, h.dtype)
    mean_h = np.average(h, axis=0, weights=example_weight)
    f = decay * f_before + (1 - decay) * mean_h
    f_hat = (f_before if bias_correction == "previous" else f) / kappa
    y = instantaneous_utility(
        utility,
        h,
        f_hat,
        w_in,
        w_out,
        magnitude=magnitude,
        example_weight=example_weight,
    )
    u = decay * u_before + (1 - decay) * y
    u_hat = (u_before if bias_correction == "previous" else u) / kappa
    if utility == "random":
        if random_utility is None:
            raise ValueError("utility 'random' needs random_utility, [U] in [0, 1)")
        u_hat = np.asarray(random_utility)
    state.age[name], state.mean_activation[name], state.utility[name] = age, f, u
    return u_hat, f_hat
