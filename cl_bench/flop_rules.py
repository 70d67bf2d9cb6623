"""Floating-point operations of one primitive operation, from the shapes of its arrays.

A multiplication and an addition are two. What is not listed here is elementwise: one
for each number of its largest result. Moving, converting and wrapping numbers is free.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Shape = tuple[int, ...]

FREE = frozenset({
    "bitcast_convert_type", "broadcast_in_dim", "concatenate", "convert_element_type",
    "copy", "copy_p", "dynamic_slice", "dynamic_update_slice", "expand_dims", "gather",
    "iota", "pad", "random_unwrap", "random_wrap", "reshape", "rev", "scatter", "slice",
    "split", "squeeze", "stop_gradient", "transpose",
})  # fmt: skip
CUMULATIVE = ("argmax", "argmin", "cumsum", "cumprod", "cummax", "cummin")
# Threefry-2x32: 20 rounds of an addition, a rotation (3) and an exclusive or, and 5 key
# injections, for two words. Integer operations, charged like any other.
PER_RANDOM_WORD = 60


def of(eqn: Any) -> float:
    """Operations of one equation of a jaxpr that holds no jaxpr of its own."""
    name = eqn.primitive.name
    inputs = [tuple(v.aval.shape) for v in eqn.invars]
    outputs = [tuple(v.aval.shape) for v in eqn.outvars]
    if name in FREE:
        return 0.0
    if name in RULES:
        return float(RULES[name](inputs, outputs, eqn.params))
    size = max((math.prod(shape) for shape in outputs), default=0)
    if name.startswith(("reduce_window", "select_and_")):
        window = math.prod(eqn.params["window_dimensions"])
        return float(min(math.prod(inputs[0]), size) * window)
    if name in CUMULATIVE or name.startswith("reduce") and name != "reduce_precision":
        return float(math.prod(inputs[0]))
    if name.startswith("scatter"):  # with an operation: one for each update
        return float(math.prod(inputs[2]))
    if name.startswith("random_"):
        return float(PER_RANDOM_WORD * size)
    return float(size)


def dot(inputs: list[Shape], outputs: list[Shape], params: dict[str, Any]) -> float:
    """2 M N K: every number of the result is a sum over the contracted axes."""
    contracted = params["dimension_numbers"][0][0]
    inner = math.prod(inputs[0][axis] for axis in contracted)
    return 2.0 * math.prod(outputs[0]) * inner


def convolution(
    inputs: list[Shape], outputs: list[Shape], params: dict[str, Any]
) -> float:
    """Products with numbers of the input only: none with padding or between strides."""
    numbers = params["dimension_numbers"]
    batch, features, *places = (outputs[0][axis] for axis in numbers.out_spec)
    pairs = 1
    for i, place in enumerate(places):
        length = inputs[0][numbers.lhs_spec[2 + i]]
        taps = np.arange(inputs[1][numbers.rhs_spec[2 + i]])
        at = np.arange(place)[:, None] * params["window_strides"][i]
        at = at + taps * params["rhs_dilation"][i] - params["padding"][i][0]
        apart = params["lhs_dilation"][i]
        inside = (at >= 0) & (at <= (length - 1) * apart) & (at % apart == 0)
        pairs *= int(inside.sum())
    return 2.0 * batch * features * inputs[1][numbers.rhs_spec[1]] * pairs


def _matrix(shape: Shape) -> tuple[int, int, int]:
    """Number of matrices, their longer and their shorter side."""
    return math.prod(shape[:-2]), max(shape[-2:]), min(shape[-2:])


def svd(inputs: list[Shape], outputs: list[Shape], params: dict[str, Any]) -> float:
    """Golub and Reinsch: 14 m n^2 + 8 n^3, without vectors 4 m n^2 - 4/3 n^3.

    Source: Golub and Van Loan, Matrix Computations (3rd edition), section 5.4.5.
    """
    del outputs
    count, m, n = _matrix(inputs[0])
    if params["compute_uv"]:
        return count * (14.0 * m * n**2 + 8.0 * n**3)
    return count * (4.0 * m * n**2 - 4.0 / 3.0 * n**3)


def _square(factor: float) -> Callable[..., float]:
    """`factor` n^3 for each square matrix; of others the shorter side counts twice."""

    def rule(
        inputs: list[Shape], outputs: list[Shape], params: dict[str, Any]
    ) -> float:
        del outputs, params
        count, m, n = _matrix(inputs[0])
        return count * factor * m * n**2

    return rule


def triangular_solve(
    inputs: list[Shape], outputs: list[Shape], params: dict[str, Any]
) -> float:
    """n^2 for each right-hand side."""
    del params
    return float(math.prod(outputs[0]) * inputs[0][-1])


def sort(inputs: list[Shape], outputs: list[Shape], params: dict[str, Any]) -> float:
    """n log2 n comparisons along one axis."""
    del outputs
    length = inputs[0][params["dimension"]]
    return float(math.prod(inputs[0]) * math.ceil(math.log2(max(length, 2))))


RULES: dict[str, Callable[..., float]] = {
    "dot_general": dot,
    "conv_general_dilated": convolution,
    "svd": svd,
    "triangular_solve": triangular_solve,
    "sort": sort,
    # Golub and Van Loan, sections 3.2, 4.2, 5.2 (R and Q of a square matrix) and 8.3.
    "lu": _square(2.0 / 3.0),
    "cholesky": _square(1.0 / 3.0),
    "qr": _square(8.0 / 3.0),
    "geqrf": _square(4.0 / 3.0),
    "householder_product": _square(4.0 / 3.0),
    "eigh": _square(9.0),
}
