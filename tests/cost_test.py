"""The cost record: operations with loops and hooks, and bytes by kind."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import components, cost, flops
from cl_bench.components import Parts
from cl_bench.execute import Lanes, Program
from cl_bench.launch import make_group_run
from cl_bench.networks import cnn
from cl_bench.runner import Run, make_run
from cl_bench.types import Learner, NetState
from tests import tiny

STREAM = {
    "name": "split_classes", "dataset": "synthetic", "num_tasks": 5, "batch_size": 8,
    "dataset_options": {"train": 320, "test": 100, "size": 4, "classes": 10},
}  # fmt: skip
A, B = (
    jax.ShapeDtypeStruct((6, 7), jnp.float32),
    jax.ShapeDtypeStruct((7, 5), "float32"),
)
SQUARE = jax.ShapeDtypeStruct((6, 6), jnp.float32)
PRODUCT = 2 * 6 * 6 * 6


def record(
    method: str, stream: dict[str, Any] | None = None, **hyper
) -> dict[str, Any]:
    """The cost record of one lane of a method on a split stream of five tasks."""
    made = parts(method, stream)
    return measured(made, make_group_run(made), **hyper)


def parts(method: str, stream: dict[str, Any] | None = None) -> Parts:
    section = components.resolve("stream", {**STREAM, **(stream or {})})
    net = components.resolve("network", {"name": "mlp", "widths": (20, 20)})
    metrics = components.resolve_metrics(["online_accuracy", "test_accuracy"])
    return components.make(section, net, metrics, method)


def measured(made: Parts, run: Run, **hyper) -> dict[str, Any]:
    values = jax.tree.map(lambda v: np.float32([v]), made.method.Hyper(**hyper))
    lanes = Lanes(np.zeros(1, np.uint32), values)
    data = made.stream.load()
    program = Program(None, None, data, lanes, 1, "map", 1, 0.0, None)
    return cost.measure(run, program)


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


def xla_flops(method: str) -> float:
    """XLA's own count of the step that `record` counts."""
    made = parts(method)
    run, data = make_group_run(made._replace(metrics=[])), made.stream.load()
    at = (data, np.uint32(0), made.method.Hyper())
    carry = jax.eval_shape(run.init, *at)
    return jax.jit(run.step).lower(*at, carry).cost_analysis()["flops"]


@pytest.mark.parametrize("method", ["backprop", "ewc", "lwf"])
def test_a_step_without_loops_is_what_xla_counts(method):
    assert record(method)["flops_per_step"] == pytest.approx(xla_flops(method), rel=0.1)


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


def test_metrics_are_not_the_cost_of_a_method():
    made = parts("backprop")
    bare = measured(made, make_group_run(made._replace(metrics=[])))
    assert bare["flops_per_step"] == record("backprop")["flops_per_step"]


def test_each_gradient_of_a_step_is_charged():
    one, ten = (record("bgd", monte_carlo=n)["flops_per_step"] for n in (1, 10))
    plain = record("backprop")["flops_per_step"]
    assert ten - one > 9 * 0.9 * plain


def test_gem_is_charged_for_every_past_task():
    few, many = (
        record("gem", stream={"num_tasks": n}, memory_per_task=40) for n in (2, 5)
    )
    gradients = 40 / 8 * record("backprop")["flops_per_step"]  # of one past task
    more = many["flops_per_step"] - few["flops_per_step"]
    assert more > 3 * 0.8 * gradients
    assert many["loops_counted_once"] == 1  # the quadratic programme's


def test_hooks_are_charged_once_a_task():
    plain, previous = record("backprop"), record("l2_previous")
    ewc, half = record("ewc"), record("ewc", fisher_examples=32)
    assert plain["flops_per_task"] == 0
    assert plain["charged_flops_per_step"] == plain["flops_per_step"]
    assert ewc["flops_per_step"] == previous["flops_per_step"]
    assert ewc["flops_per_task"] > 10 * previous["flops_per_task"] > 0
    assert half["flops_per_task"] == pytest.approx(ewc["flops_per_task"] / 2, rel=0.1)
    steps = 64 / 8  # one epoch of a task's share of 320 examples
    spread = ewc["flops_per_step"] + ewc["flops_per_task"] / steps
    assert ewc["charged_flops_per_step"] == pytest.approx(spread)


def test_segment_hooks_are_charged_once_a_segment():
    assert [segment_hook(n) for n in (8, 4, 2)] == [36.0, 2 * 36.0, 4 * 36.0]


def segment_hook(steps_per_segment: int) -> float:
    """Operations of the hooks of a method that multiplies 36 numbers a segment."""
    made = parts("backprop", {"steps_per_segment": steps_per_segment})

    def make(net, spec, hyper):
        def end_segment(key, clock, train, learner):
            return learner._replace(extra={"x": 2.0 * learner.extra["x"]})

        def init(key):
            return base.init(key)._replace(extra={"x": jnp.ones((6, 6))})

        base = made.method.make(net, spec, hyper)
        return base._replace(init=init, end_segment=end_segment)

    run = make_run(made.stream, made.network, make, (), frozenset())
    return measured(made, run)["flops_per_task"]


class Sums(NamedTuple):
    weight: Any
    centre: Any


class Memory(NamedTuple):
    x: Any
    seen: Any


def learner(extra: dict[str, Any]) -> Learner:
    params = {"h1": {"kernel": jnp.ones((2, 3))}}  # 24 bytes
    return Learner(NetState(params, {}, {}), jnp.ones(5), extra)


def test_bytes_have_the_names_of_what_they_are_for():
    params = learner({}).net.params
    memory = Memory(jnp.ones((4, 2), jnp.uint8), jnp.int32(0))
    found = cost.bytes_by_kind(
        learner({
            "grad_transform_0": Sums(params, params), "grad_transform_1": memory,
            "teacher": NetState(params, {}, {}), "transform_0": jnp.ones(2),
            "transform_1": (),
        })
    )  # fmt: skip
    assert found == {
        "network": 24, "optimizer": 20, "sums weight": 24, "sums centre": 24,
        "memory": 12, "teacher": 24, "network transform": 8,
    }  # fmt: skip


def test_one_entry_of_many_parts_is_split():
    parts = {"adapters": jnp.ones(3), "core": jnp.ones(4)}
    found = cost.bytes_by_kind(learner({"lora": parts}))
    assert found["adapters"] == 12 and found["core"] == 16 and "lora" not in found
    shaped = learner({}).net.params
    assert cost.bytes_by_kind(learner({"sigma": shaped}))["sigma"] == 24


def test_kinds_add_up():
    for method in ("ewc", "gem", "lora", "lwf"):
        found = record(method)
        kinds = found["learner_bytes_by_kind"]
        assert sum(kinds.values()) == found["learner_bytes"]
        assert (
            found["bytes_beyond_network"] == found["learner_bytes"] - kinds["network"]
        )
    assert kinds["teacher"] == kinds["network"]


def test_a_record_of_an_earlier_version_is_measured_anew():
    whole = record("backprop")
    assert cost.known(whole | {"lanes": 2}) == whole
    del whole["flops_per_task"]
    assert cost.known(whole) is None
