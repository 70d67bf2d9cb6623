"""The contract of a metric: sums in a fixed tree, names of its own, lanes apart."""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cl_bench import runner
from cl_bench.losses import squared_error
from cl_bench.methods import backprop
from cl_bench.networks import mlp
from cl_bench.testing import _hyper
from cl_bench.testing._compare import require, require_equal, require_same_structure
from cl_bench.testing._lanes import compile_lanes
from cl_bench.testing._tiny import tiny_network, tiny_stream
from cl_bench.types import Metric, Network, Stream


def check_metric(
    module: ModuleType,
    net: Network | None = None,
    stream: Stream | None = None,
    **static: Any,
) -> None:
    """Raise ConformanceError where a metric module breaks the contract of metrics.

    A state whose tree, shapes and dtypes no update changes; one number under each name,
    no name twice; finite values on a healthy run, at some segment each; numbers that do
    not depend on chunks; a lane of NaNs that stays alone; a network without hidden
    layers and a regression are no error; no callback.

    Args:
      module: the metric's, with make(net, spec, **static).
      net: None takes an mlp of 7 and 5 units.
      stream: None takes 4 tasks of 50 steps.
      static: settings of make.
    """
    name = module.__name__
    stream = stream or tiny_stream()
    net = net or tiny_network(stream.spec)
    metric = module.make(net, stream.spec, **static)
    check_trees(name, metric, net, stream)
    linear = mlp.make(stream.spec, widths=())
    check_trees(name, module.make(linear, stream.spec, **static), linear, stream)
    regression = _regression(stream)
    made = module.make(net, regression.spec, **static)
    check_trees(name, made, net, regression)
    check_values(name, metric, net, stream)


def check_trees(name: str, metric: Metric, net: Network, stream: Stream) -> None:
    """One segment, by shapes alone."""

    def make(net, spec, hyper):
        made = backprop.make(net, spec, hyper)

        def step(key, clock, batch, learner):
            after, signals = made.step(key, clock, batch, learner)
            state = metric.init()
            moved = metric.update(state, clock, batch, after, signals)
            require_same_structure(state, moved, f"{name}: update changed the state")
            return after, signals

        return made._replace(step=step)

    run = runner.make_run(stream, net, make, [metric], frozenset())
    data, hyper = stream.load(), backprop.Hyper()

    def one_segment(data):
        carry = run.init(data, jnp.uint32(0), hyper)
        return run.chunk(data, jnp.uint32(0), hyper, carry, 0, 1, 1)[1]

    rows = jax.eval_shape(one_segment, data)
    bad = sorted(row for row in rows if not row or "," in row)
    require(not bad, f"{name}: names of numbers cannot be {bad}.")


def check_values(name: str, metric: Metric, net: Network, stream: Stream) -> None:
    """Finite, repeatable in chunks, and apart from a neighbour that diverged."""
    values = _hyper.traced_values(backprop.Hyper())
    lanes = _hyper.stacked(backprop.Hyper(), [values] * 3)
    program = compile_lanes(name, backprop, net, stream, lanes, (metric,))
    rows = program.run(lanes, program.segments)[1]
    del rows["diverged"]
    require(rows, f"{name} records no number.")
    for row, found in rows.items():
        measured = np.isfinite(found[0])
        require(measured.any(), f"{name}: {row} is never finite on a healthy run.")
    parts = program.run(lanes, 1, program.segments - 1)[1]
    for row, found in rows.items():
        require_equal(found, parts[row], f"{name}: {row} in two chunks and in one")
    bad = {**values, "step_size": np.float32(np.nan)}
    poisoned = _hyper.stacked(backprop.Hyper(), [values, bad, values])
    near = program.run(poisoned, program.segments)[1]
    for row, found in rows.items():
        what = f"{name}: a diverged lane changed {row} of its neighbours"
        require_equal(found[::2], near[row][::2], what)


def _regression(stream: Stream) -> Stream:
    """The same inputs with real targets [B, K]."""

    def real(batch):
        return batch._replace(y=jax.nn.one_hot(batch.y, batch.classes.shape[-1]))

    return stream._replace(
        spec=stream.spec._replace(loss=squared_error),
        batch=lambda data, state, i: real(stream.batch(data, state, i)),
        held_out=lambda data, state, split, now, i: real(
            stream.held_out(data, state, split, now, i)
        ),
    )
