"""A method as the executor runs it: several lanes in one compiled program."""

from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cl_bench import execute, registry, runner, units
from cl_bench.methods import backprop
from cl_bench.testing import _hyper
from cl_bench.testing._compare import (
    differ,
    host,
    net_states,
    require,
    require_equal,
    require_no_callback,
)
from cl_bench.types import Dataset, Metric, Network, Stream

SEEDS = np.array([0, 0, 1], np.uint32)  # lanes 0 and 1 differ in the settings only
# Code that runs for milliseconds need not be fast: this halves its compilation.
QUICK: Any = {"xla_backend_optimization_level": 0}


class Program(NamedTuple):
    """Three lanes of one method, compiled."""

    start: Any  # (data, seeds, hyper) -> carry
    chunk: Any  # (data, seeds, hyper, carry, first, count) -> carry, rows
    data: Dataset
    segments: int

    def run(self, hyper: Any, *counts: int) -> tuple[Any, dict[str, Any]]:
        """Chunks of so many segments; the last carry and all rows [L, segments]."""
        carry, rows, first = self.begin(hyper), [], 0
        for count in counts:
            carry, found = self.go_on(hyper, carry, first, count)
            rows.append({n: np.asarray(v)[:, :count] for n, v in found.items()})
            first += count
        joined = {n: np.concatenate([r[n] for r in rows], axis=1) for n in rows[0]}
        return carry, joined

    def begin(self, hyper: Any) -> Any:
        """The carry before the first step."""
        return self.start(self.data, *jax.device_put((SEEDS, hyper)))

    def go_on(self, hyper: Any, carry: Any, first: int, count: int) -> Any:
        """One chunk; all is on the device before it starts, and nothing moves then."""
        lanes = jax.device_put((SEEDS, hyper))
        numbers = jax.device_put((np.int32(first), np.int32(count)))
        with jax.transfer_guard("disallow"):
            return self.chunk(self.data, *lanes, carry, *numbers)


def compile_lanes(
    name: str,
    module: ModuleType,
    net: Network,
    stream: Stream,
    hyper: Any,
    metrics: tuple[Metric, ...] = (),
) -> Program:
    """The program of three lanes; `hyper` has its traced fields stacked."""
    run = runner.make_run(stream, net, module.make, metrics, module.NEEDS)
    segments = run.schedule.num_segments

    def chunk(data, seed, hyper, carry, first, count):
        return run.chunk(data, seed, hyper, carry, first, count, segments)

    data = jax.tree.map(jnp.asarray, stream.load())
    start = jax.jit(execute.spread("vmap", run.init, (None, 0, 0)))
    step = jax.jit(execute.spread("vmap", chunk, (None, 0, 0, 0, None, None)))
    number = jax.ShapeDtypeStruct((), jnp.int32)
    carry = jax.eval_shape(start, data, SEEDS, hyper)
    traced = step.trace(data, SEEDS, hyper, carry, number, number)
    require_no_callback(traced.jaxpr.jaxpr, name)
    compiled = traced.lower().compile(compiler_options=QUICK)
    return Program(
        start.lower(data, SEEDS, hyper).compile(compiler_options=QUICK),
        compiled,
        data,
        segments,
    )


def check_lanes(
    name: str, module: ModuleType, net: Network, stream: Stream, hyper: Any
) -> None:
    """All that needs the compiled program; two compilations at most."""
    values = _hyper.traced_values(hyper)
    lanes = _hyper.stacked(hyper, [values, _hyper.other_values(values), values])
    accuracy = registry.load("metrics", "online_accuracy").make(net, stream.spec)
    program = compile_lanes(name, module, net, stream, lanes, (accuracy,))
    whole = program.run(lanes, program.segments)
    check_repeatable(name, program, lanes, whole)
    check_constrained(name, program, net, lanes, whole[0])
    check_alone(name, program, hyper, values, whole)
    check_neutral(name, module, net, stream, program, hyper)


def check_repeatable(name: str, program: Program, lanes: Any, whole: Any) -> None:
    """Equal seeds give equal numbers in chunks of any length; other seeds others."""
    again = program.run(lanes, program.segments)
    require_equal(whole, again, f"{name}: the same run twice is not the same run")
    parts = program.run(lanes, 1, program.segments - 1)
    require_equal(
        whole, parts, f"{name}: a run in two chunks is not the run in one: something "
        "depends on where a chunk starts",
    )  # fmt: skip
    params = program.begin(lanes).learner.net.params
    require(
        differ(_lane(params, 0), _lane(params, 2)),
        f"{name}: seeds 0 and 1 start from the same parameters: init must use its key.",
    )
    require(
        not whole[1]["diverged"].any(),
        f"{name}: lanes diverged on the small problem of the check; with its default "
        "settings a method should learn it (or give check_method other settings).",
    )


def check_alone(
    name: str, program: Program, hyper: Any, values: _hyper.Values, whole: Any
) -> None:
    """A NaN in lane 1 leaves lanes 0 and 2 as they were, in this same program."""
    field = _hyper.poisoned_field(values)
    if field is None:
        return
    poisoned = {**values, field: np.full_like(values[field], np.nan)}
    lanes = _hyper.stacked(hyper, [values, poisoned, values])
    carry, rows = program.run(lanes, program.segments)
    what = f"{name}: a lane of {field}=nan changed its neighbours"
    for lane in (0, 2):
        require_equal(
            (_lane(whole[0], lane), {n: r[lane] for n, r in whole[1].items()}),
            (_lane(carry, lane), {n: r[lane] for n, r in rows.items()}),
            what,
        )
    if field == "step_size":
        require(
            rows["diverged"][1].all(),
            f"{name}: with step_size=nan the parameters stay finite: a diverged lane "
            "must stay NaN, so that it is recorded as diverged.",
        )


def check_constrained(
    name: str, program: Program, net: Network, lanes: Any, last: Any
) -> None:
    """Dead units and forbidden edges hold zeros in every NetState, at any time."""
    first = program.begin(lanes)
    carries = {"after init": first, "at the end": last}
    carries["after a segment"] = program.go_on(lanes, first, 0, 1)[0]
    constrain = jax.vmap(lambda state: units.constrain_net(state, net.units))
    edges = first.learner.net.edges
    for when, carry in carries.items():
        for path, state in net_states(carry.learner).items():
            require_equal(
                constrain(state).params,
                state.params,
                f"{name}: {when}, {path} has weights on dead units or forbidden edges",
            )
        require_equal(
            edges, carry.learner.net.edges, f"{name}: {when}, the allowed edges are "
            "others; only hardware code may change them",
        )  # fmt: skip


def check_neutral(
    name: str,
    module: ModuleType,
    net: Network,
    stream: Stream,
    program: Program,
    hyper: Any,
) -> None:
    """The neutral setting is backprop to 1e-6 after all steps, compiled."""
    setting = _hyper.neutral(module, hyper)
    if setting is None or module is backprop:
        return
    values = _hyper.traced_values(setting)
    lanes = _hyper.stacked(setting, [values] * 3)
    if jax.tree.structure(lanes) != jax.tree.structure(
        _hyper.stacked(hyper, [_hyper.traced_values(hyper)] * 3)
    ):
        program = compile_lanes(name, module, net, stream, lanes)
    found = program.run(lanes, program.segments)[0].learner.net.params
    optimizer = getattr(hyper, "optimizer", backprop.Hyper().optimizer)
    plain = _backprop(net, stream, optimizer)
    shared = plain.hyper.replace(
        **{n: v for n, v in vars(lanes).items() if n in plain.traced}
    )
    expected = plain.program.run(shared, plain.program.segments)[0].learner.net.params
    require_equal(
        expected, found, f"{name} at NEUTRAL = {module.NEUTRAL} is not backprop after "
        "200 compiled steps", atol=1e-6,
    )  # fmt: skip


class _Backprop(NamedTuple):
    program: Program
    hyper: Any
    traced: frozenset[str]


@cache
def _backprop(net: Network, stream: Stream, optimizer: str) -> _Backprop:
    """Backprop's program, compiled once for all methods that share its optimiser."""
    hyper = backprop.Hyper(optimizer=optimizer)
    values = _hyper.traced_values(hyper)
    lanes = _hyper.stacked(hyper, [values] * 3)
    program = compile_lanes("backprop", backprop, net, stream, lanes)
    return _Backprop(program, lanes, frozenset(values))


def _lane(tree: Any, lane: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[lane], host(tree))
