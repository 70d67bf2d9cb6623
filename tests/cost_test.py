"""The cost record: operations of steps and hooks, and bytes by kind."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import components, cost
from cl_bench.components import Parts
from cl_bench.execute import Lanes, Program
from cl_bench.launch import make_group_run
from cl_bench.runner import Run, make_run
from cl_bench.types import Learner, NetState

STREAM = {
    "name": "split_classes", "dataset": "synthetic", "num_tasks": 5, "batch_size": 8,
    "dataset_options": {"train": 320, "test": 100, "size": 4, "classes": 10},
}  # fmt: skip


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
