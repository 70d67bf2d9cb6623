"""The contract of a network: names, masks, taps, gates and its own initialiser."""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cl_bench.lane import run_key
from cl_bench.testing._compare import (
    require,
    require_equal,
    require_same_structure,
)
from cl_bench.testing._masks import (
    BATCH,
    TOLERANCE,
    Case,
    check_dead_units,
    check_edges,
    check_gates,
    check_taps,
)
from cl_bench.testing._tiny import tiny_stream
from cl_bench.types import StreamSpec

DRAWS = 200


def check_network(
    module: ModuleType, spec: StreamSpec | None = None, **static: Any
) -> None:
    """Raise ConformanceError where a network module breaks the contract of networks.

    The unit table fits the parameters; apply names its activations and keeps its
    statistics' shapes; evaluation mode treats each example alone; taps give the
    gradient of the pre-activations; gates, dead units and forbidden edges are
    respected, their gradients too; `columns` draws what `init` draws; all of it vmaps.

    Args:
      module: the network's, with make(spec, **static).
      spec: what it is made for; None takes 6 inputs and 4 classes.
      static: settings of make.
    """
    spec = spec or tiny_stream().spec
    net = module.make(spec, **static)
    state = net.init(run_key(0))
    x = jax.random.normal(run_key(1), (BATCH, *spec.input_shape))
    shape = (BATCH, spec.num_outputs)
    logits = jax.random.normal(run_key(2), shape)
    y = jnp.arange(BATCH) % spec.num_outputs
    if not _takes_labels(spec, logits, y):
        y = logits
    case = Case(module.__name__, net, state, x, y, spec)
    check_table(case)
    check_apply(case)
    check_evaluation(case)
    for unit in net.units:
        check_gates(case, unit)
        check_dead_units(case, unit)
        check_edges(case, unit)
    check_taps(case)
    check_columns(case)


def _takes_labels(spec: StreamSpec, logits: jax.Array, y: jax.Array) -> bool:
    try:
        return jax.eval_shape(spec.loss.per_example, logits, y).shape == (BATCH,)
    except (TypeError, ValueError):
        return False


def check_table(case: Case) -> None:
    """Every unit is a column of what writes it and `repeat` rows of what reads it."""
    params, net = case.state.params, case.net
    require(net.head in params, f"{case.name}: there is no module {net.head!r} (head).")
    names = [unit.name for unit in net.units]
    require(
        len(set(names)) == len(names) and not {"x", "logits"} & set(names),
        f"{case.name}: unit names {names} must be distinct, none of them x or logits.",
    )
    for unit in net.units:
        for role, modules in (("incoming", unit.incoming), ("outgoing", unit.outgoing)):
            axis, size = (-1, unit.size) if role == "incoming" else (
                -2, unit.size * unit.repeat)  # fmt: skip
            for module in modules:
                require(
                    module in params and "kernel" in params[module],
                    f"{case.name}: {unit.name}.{role} names {module!r}, which has no "
                    f"kernel; modules: {sorted(params)}.",
                )
                shape = params[module]["kernel"].shape
                require(
                    shape[axis] == size,
                    f"{case.name}: {unit.name}.{role}: axis {axis} of the kernel of "
                    f"{module!r}, {list(shape)}, must be {size}.",
                )
    width = params[net.head]["kernel"].shape[-1]
    require(
        width == case.spec.num_outputs,
        f"{case.name}: the head writes {width} outputs, not {case.spec.num_outputs}.",
    )


def check_apply(case: Case) -> None:
    """Names and shapes of what apply returns, in both modes; one NetState a lane."""
    for train in (False, True):
        logits, acts, stats = case.apply(case.state, train=train, key=run_key(3))
        what = f"{case.name}: apply(train={train})"
        require(
            logits.shape == (BATCH, case.spec.num_outputs)
            and logits.dtype == jnp.float32,
            f"{what}: logits are {logits.dtype}{list(logits.shape)}.",
        )
        names = {"x", *(unit.name for unit in case.net.units)}
        require(names <= acts.keys(), f"{what}: no {sorted(names - acts.keys())}.")
        for unit in case.net.units:
            shape = acts[unit.name].shape
            require(
                shape[0] == BATCH and shape[-1] == unit.size,
                f"{what}: activation {unit.name} is {list(shape)}, not "
                f"[{BATCH}, ..., {unit.size}].",
            )
        require_same_structure(case.state.stats, stats, f"{what}: statistics")
        again = case.apply(case.state, train=train, key=run_key(3))
        require_equal((logits, acts, stats), again, f"{what} twice")
    keys = jax.random.split(run_key(0), 2)
    lanes = jax.eval_shape(jax.vmap(case.net.init), keys)
    out = jax.eval_shape(
        jax.vmap(lambda s: case.apply(s, train=True, key=run_key(3))[0]), lanes
    )
    require(out.shape[0] == 2, f"{case.name}: init and apply must vmap over lanes.")


def check_evaluation(case: Case) -> None:
    """In evaluation mode examples do not see each other and statistics stand still."""
    logits, _, stats = case.apply(case.state)
    require_equal(
        case.state.stats, stats, f"{case.name}: apply(train=False) moves the statistics"
    )
    alone = case.net.apply(case.state, case.x[:1], train=False, key=None)[0]
    require_equal(
        alone,
        logits[:1],
        f"{case.name}: apply(train=False) depends on the other examples of the batch",
        atol=TOLERANCE,
    )


def check_columns(case: Case) -> None:
    """Fresh columns have the shape, the spread and the bounds of the initialiser."""
    keys = jax.random.split(run_key(4), DRAWS)
    drawn = jax.vmap(lambda key: case.net.init(key).params)(keys)
    for unit in case.net.units:
        for module in unit.incoming:
            kernel = drawn[module]["kernel"]
            fresh = case.net.columns(run_key(5), module, DRAWS)
            what = f"{case.name}: columns(key, {module!r}, n)"
            shape = (*kernel.shape[1:-1], DRAWS)
            require(
                fresh.shape == shape and fresh.dtype == kernel.dtype,
                f"{what} gives {fresh.dtype}{list(fresh.shape)}, not "
                f"{kernel.dtype}{list(shape)}.",
            )
            other = case.net.columns(run_key(6), module, DRAWS)
            require(np.any(fresh != other), f"{what} ignores its key.")
            _same_distribution(np.asarray(kernel), np.asarray(fresh), what)


def _same_distribution(initial: np.ndarray, fresh: np.ndarray, what: str) -> None:
    """Spread to 10 %; the largest to 30 %, as it grows with the number of draws."""
    measures = {"deviation": (np.std, 0.1), "largest": (lambda w: abs(w).max(), 0.3)}
    for name, (measure, tolerance) in measures.items():
        a, b = float(measure(initial)), float(measure(fresh))
        require(
            abs(a - b) <= tolerance * a,
            f"{what}: {name} {b:.3g}, where init has {a:.3g}: draw both alike.",
        )
