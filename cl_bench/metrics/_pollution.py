"""Pollution: what the weights protected for one task add to another task's neurons.

A task protects some weights of each dense kernel [in, out]: a mask [in, out] of bools,
by a declared static rule. On examples x of task i, the weights W^k of task k add
s_k(x) = sum of w a(x) over w in W^k to a neuron's pre-activation, a(x) being the
weight's input. The pollution p^{i -> j} of task i by task j compares s_j with s_i.

The ratio as printed is ill-conditioned: s_i changes sign and may vanish. It is here
with a guard ('literal'), beside three repairs: 'variance_ratio', 'absolute_share', and
`causal`, the accuracy without W^j.

Source: the project's report (Reymond 2024), section 2.4, eqs. 2 to 4.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench import shapes
from cl_bench.types import PyTree, Unit
from cl_bench.units import layer_inputs

RULES = ("magnitude", "fisher", "change", "frozen")
KINDS = ("literal", "variance_ratio", "absolute_share")
GUARD = 1e-6  # of a neuron's root mean square own contribution


class Pollution(NamedTuple):
    """p of every neuron, its means, and how much of it is undefined."""

    neurons: dict[str, Array]  # module -> [out]; NaN = no term of it is defined
    layers: dict[str, Array]  # module -> (): mean over its defined neurons
    network: Array  # (): eq. 4, mean over the layers
    undefined: Array  # (): share of terms left out; of (example, neuron) in 'literal',
    # of neurons in the other kinds; layers weighted equally


def protected(
    rule: str,
    fraction: float,
    *,
    weights: Mapping[str, Array],
    fisher: Mapping[str, Array] | None = None,
    start: Mapping[str, Array] | None = None,
    frozen: Mapping[str, Array] | None = None,
) -> dict[str, Array]:
    """Masks [in, out] of the weights that a task protects, by a rule at its end.

    Args:
      rule: 'magnitude', largest |w|; 'fisher', largest diagonal of the Fisher
        information; 'change', largest |w - w at the task's start|; 'frozen', those
        that the method itself froze for the task.
      fraction: share of each kernel's weights that is protected, in (0, 1]; without a
        meaning in 'frozen'.
      weights: module -> kernel at the task's end.
      fisher: module -> diagonal Fisher, of the kernel's shape.
      start: module -> kernel at the task's start.
      frozen: module -> bools of the kernel's shape.

    Weights of score 0 (an edge that does not exist, an input that is always 0) are not
    protected; of equal scores the first ones are. Raises ValueError for a rule that
    does not exist, lacks what it needs, or a fraction outside (0, 1].
    """
    if rule not in RULES:
        raise ValueError(f"rule={rule!r} is none of {', '.join(RULES)}")
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"fraction={fraction}: above 0 and at most 1")
    if rule == "frozen":
        return dict(_given(rule, "frozen", frozen))
    if rule == "magnitude":
        scores = {name: jnp.abs(w) for name, w in weights.items()}
    elif rule == "fisher":
        diagonal = _given(rule, "fisher", fisher)
        scores = {name: diagonal[name] for name in weights}
    else:
        first = _given(rule, "start", start)
        scores = {name: jnp.abs(w - first[name]) for name, w in weights.items()}
    return {name: largest(score, fraction) for name, score in scores.items()}


def _given(
    rule: str, name: str, value: Mapping[str, Array] | None
) -> Mapping[str, Array]:
    if value is None:
        raise ValueError(f"rule={rule!r} needs `{name}`")
    return value


def largest(scores: Array, fraction: float) -> Array:
    """Mask of the round(fraction * size) largest scores, those of 0 left out."""
    flat = scores.reshape(-1)
    count = max(1, round(fraction * flat.size))
    picked = jnp.argsort(-flat, stable=True)[:count]
    mask = jnp.zeros(flat.shape, bool).at[picked].set(True)
    return (mask & (flat > 0.0)).reshape(scores.shape)


def dense_inputs(
    units: Sequence[Unit], kernels: Mapping[str, Array], acts: Mapping[str, Array]
) -> dict[str, Array]:
    """Module -> its inputs [n, in], from the activations that `Network.apply` returns.

    Raises ValueError for a kernel that is not [in, out].
    """
    shapes.require_dense(kernels, "pollution", ", or leave the module out")
    return layer_inputs(units, kernels, acts)


def contributions(
    kernels: Mapping[str, Array],
    masks: Mapping[str, Array],
    inputs: Mapping[str, Array],
) -> dict[str, Array]:
    """s_k: what the protected weights add to each pre-activation, module -> [n, out]."""
    return {
        name: inputs[name] @ jnp.where(mask, kernels[name], 0.0)
        for name, mask in masks.items()
    }


def pollution(
    kind: str,
    own: Mapping[str, Array],
    other: Mapping[str, Array],
    guard: float = GUARD,
) -> Pollution:
    """p^{i -> j} from the contributions of W^i (`own`) and W^j (`other`) on D_i.

      'literal': E_x[s_j / s_i], eq. 3; terms with |s_i| <= guard * rms_x(s_i) are
        undefined and left out.
      'variance_ratio': Var_x[s_j] / Var_x[s_i].
      'absolute_share': E|s_j| / (E|s_i| + E|s_j|), in [0, 1].

    Both are module -> [n, ..., out]; positions count as examples. Of a task with itself
    the values are 1, 1 and 1/2. Raises ValueError for another `kind`.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is none of {', '.join(KINDS)}")
    functions = {"variance_ratio": _variance_ratio, "absolute_share": _absolute_share}
    neurons, missing = {}, []
    for name, mine in own.items():
        s_i, s_j = (s.reshape(-1, s.shape[-1]) for s in (mine, other[name]))
        if kind == "literal":
            neurons[name], lost = _literal(s_i, s_j, guard)
        else:
            neurons[name] = functions[kind](s_i, s_j)
            lost = jnp.isnan(neurons[name])
        missing.append(jnp.mean(lost))
    layers = {name: _mean(p, ~jnp.isnan(p), 0) for name, p in neurons.items()}
    each = jnp.stack(list(layers.values()))
    network = _mean(each, ~jnp.isnan(each), 0)
    return Pollution(neurons, layers, network, jnp.mean(jnp.stack(missing)))


def _literal(s_i: Array, s_j: Array, guard: float) -> tuple[Array, Array]:
    """[n, out] twice -> p [out], undefined terms [n, out]."""
    scale = jnp.sqrt(jnp.mean(jnp.square(s_i), axis=0))
    lost = jnp.abs(s_i) <= guard * scale  # also where all are 0
    ratio = s_j / jnp.where(lost, 1.0, s_i)
    return _mean(ratio, ~lost, 0), lost


def _variance_ratio(s_i: Array, s_j: Array) -> Array:
    own = jnp.var(s_i, axis=0)
    safe = jnp.where(own > 0.0, own, 1.0)
    return jnp.where(own > 0.0, jnp.var(s_j, axis=0) / safe, jnp.nan)


def _absolute_share(s_i: Array, s_j: Array) -> Array:
    own, other = (jnp.mean(jnp.abs(s), axis=0) for s in (s_i, s_j))
    total = own + other
    safe = jnp.where(total > 0.0, total, 1.0)
    return jnp.where(total > 0.0, other / safe, jnp.nan)


def row(
    kind: str,
    kernels: Mapping[str, Array],
    inputs: Mapping[str, Array],
    masks: Mapping[str, Array],
    task: Array | int,
    guard: float = GUARD,
) -> Pollution:
    """p^{i -> j} of one task i on its examples' inputs, for all tasks j at once.

    `masks` are module -> [T, in, out] of all tasks, `task` is i. Every leaf of the
    result has a leading axis [T] of j.
    """
    mine = {name: jnp.asarray(mask)[task] for name, mask in masks.items()}
    own = contributions(kernels, mine, inputs)

    def by(of_task: Mapping[str, Array]) -> Pollution:
        return pollution(kind, own, contributions(kernels, of_task, inputs), guard)

    return jax.vmap(by)(dict(masks))


def without(params: PyTree, masks: Mapping[str, Array]) -> PyTree:
    """The parameters with every protected weight set to 0; biases stay."""
    removed = dict(params)
    for name, mask in masks.items():
        kernel = jnp.where(mask, 0.0, params[name]["kernel"])
        removed[name] = {**params[name], "kernel": kernel}
    return removed


def causal(
    accuracy: Callable[[PyTree], Array], params: PyTree, masks: Mapping[str, Array]
) -> Array:
    """Accuracy on task i minus that with W^j set to 0: ().

    Above 0: task i relies on W^j. Below 0: W^j spoils it. `accuracy` is that of
    parameters on task i, `masks` are those of W^j.
    """
    return accuracy(params) - accuracy(without(params, masks))


def _mean(values: Array, counted: Array, axis: int) -> Array:
    """Mean of the counted entries; NaN where none counts."""
    n = jnp.sum(counted, axis=axis)
    total = jnp.sum(jnp.where(counted, values, 0.0), axis=axis)
    return jnp.where(n > 0, total / jnp.maximum(n, 1), jnp.nan)
