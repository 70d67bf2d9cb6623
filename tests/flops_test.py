"""Operations counted: products, loops and conditions, against hand and XLA."""

import jax
import jax.numpy as jnp
import pytest

from cl_bench import flops
from cl_bench.networks import cnn
from tests import tiny

A, B = (
    jax.ShapeDtypeStruct((6, 7), jnp.float32),
    jax.ShapeDtypeStruct((7, 5), "float32"),
)
SQUARE = jax.ShapeDtypeStruct((6, 6), jnp.float32)
PRODUCT = 2 * 6 * 6 * 6


def of(function, *shapes) -> float:
    return flops.count(function, *shapes).flops


def test_products_against_hand_and_xla():
    assert of(jnp.matmul, A, B) == 2 * 6 * 7 * 5
    batched = jax.ShapeDtypeStruct((3, 6, 7), jnp.float32)
    assert of(lambda a, b: jnp.einsum("bij,jk->bik", a, b), batched, B) == 3 * 420
    assert of(lambda a: jnp.sum(a * a), A) == 2 * 42
    assert of(lambda a: a.T.reshape(2, 21), A) == 0


@pytest.mark.parametrize("stride, padding", [(1, "SAME"), (2, "VALID"), (2, "SAME")])
def test_convolutions_and_their_gradients_are_those_of_xla(stride, padding):
    """No products with padding, nor with the zeros between strides."""

    def loss(kernel, x):
        strides = (stride, stride)
        numbers = ("NHWC", "HWIO", "NHWC")
        return jnp.sum(
            jax.lax.conv_general_dilated(
                x, kernel, strides, padding, dimension_numbers=numbers
            )
        )

    kernel = jax.ShapeDtypeStruct((3, 3, 2, 4), jnp.float32)
    x = jax.ShapeDtypeStruct((5, 8, 8, 2), jnp.float32)
    both = jax.grad(loss, (0, 1))
    xla = jax.jit(both).lower(kernel, x).cost_analysis()["flops"]
    assert of(both, kernel, x) == pytest.approx(xla, rel=0.02)


def test_a_loop_counts_as_often_as_it_turns():
    def scanned(x):
        return jax.lax.scan(lambda c, _: (c @ c, None), x, None, length=4)[0]

    def both(x, y):
        return scanned(x) + jax.lax.map(jnp.sum, y)[0]

    assert of(scanned, SQUARE) == 4 * PRODUCT
    assert of(both, SQUARE, A) == 4 * PRODUCT + 42 + 36
    static = flops.count(
        lambda x: jax.lax.fori_loop(0, 3, lambda i, c: c @ c, x), SQUARE
    )
    assert static.flops == pytest.approx(3 * PRODUCT, rel=0.02)
    assert static.loops_once == 0


def test_turns_that_follow_from_a_constant():
    """As in GEM: the number of past tasks, and of blocks of each, comes from a clock."""

    def nested(x):
        task = jnp.int32(3)

        def outer(i, c):
            number = (7 + task - 1) // task  # 3
            return jax.lax.fori_loop(0, number, lambda j, c: c @ c, c)

        return jax.lax.fori_loop(0, task, outer, x)

    found = flops.count(nested, SQUARE)
    assert found.flops == pytest.approx(9 * PRODUCT, rel=0.05)
    assert found.loops_once == 0


def test_turns_that_follow_the_data_are_counted_once_and_told():
    def by_value(x):
        def once(c):
            return c @ c

        return jax.lax.while_loop(lambda c: jnp.sum(c) < 1.0, once, x)

    def by_argument(n, x):
        return jax.lax.fori_loop(0, n, lambda i, c: c @ c, x)

    def by_twos(x):  # a counter that fori_loop does not make
        def step(c):
            return c[0] + 2, c[1] @ c[1]

        return jax.lax.while_loop(lambda c: c[0] < 10, step, (0, x))[1]

    number = jax.ShapeDtypeStruct((), jnp.int32)
    for found in (
        flops.count(by_value, SQUARE),
        flops.count(by_argument, number, SQUARE),
        flops.count(by_twos, SQUARE),
    ):
        assert PRODUCT <= found.flops < 1.2 * PRODUCT
        assert found.loops_once == 1


def test_of_a_condition_the_dearest_branch():
    def either(x):
        return jax.lax.cond(x[0, 0] > 0, lambda: x @ x @ x, lambda: x @ x)

    assert of(either, SQUARE) == 2 * PRODUCT + 1


def test_dead_code_costs_nothing():
    assert of(lambda x: (x @ x, x + x)[1], SQUARE) == 36


def test_decompositions_have_their_formula():
    full = of(lambda x: jnp.linalg.svd(x, full_matrices=False)[0], A)
    assert full == pytest.approx(14 * 7 * 36 + 8 * 216, rel=0.1)
    solved = of(jnp.linalg.solve, SQUARE, SQUARE)
    assert solved == pytest.approx(2 / 3 * 216 + 2 * 36 * 6, rel=0.1)


def test_a_network_of_convolutions_and_pooling_is_what_xla_counts():
    spec = tiny.SPEC._replace(input_shape=(32, 32, 3))
    net = cnn.make(spec)

    def loss(params, state, x):
        state = state._replace(params=params)
        return jnp.sum(net.apply(state, x, train=True, key=tiny.KEY)[0] ** 2)

    state = jax.eval_shape(net.init, tiny.KEY)
    x = jax.ShapeDtypeStruct((4, 32, 32, 3), jnp.float32)
    at = state.params, state, x
    xla = jax.jit(jax.grad(loss)).lower(*at).cost_analysis()["flops"]
    assert of(jax.grad(loss), *at) == pytest.approx(xla, rel=0.03)
