"""The contract of a network's masks: gates, dead units, forbidden edges, and taps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cl_bench.lane import run_key
from cl_bench.losses import weighted_mean
from cl_bench.testing._compare import require, require_equal
from cl_bench.types import NetState, Network, StreamSpec, Unit

BATCH = 3
TOLERANCE = 1e-5


class Case(NamedTuple):
    """A network on one random batch."""

    name: str
    net: Network
    state: NetState
    x: jax.Array
    y: jax.Array
    spec: StreamSpec

    def apply(self, state: NetState, **options: Any) -> Any:
        """Logits, activations and statistics; in evaluation mode unless said."""
        mode = {"train": False, "key": None, **options}
        return self.net.apply(state, self.x, **mode)


def check_gates(case: Case, unit: Unit) -> None:
    """A gate multiplies the activation, given per unit or per example and unit."""
    name = unit.name
    gate = jnp.linspace(0.0, 1.0, unit.size)
    plain = case.apply(case.state)[1][name]
    gated, acts, _ = case.apply(case.state, gates={name: gate})
    what = f"{case.name}: gates[{name!r}]"
    # A residual stream is read, gated, before its last activation is written.
    if len(unit.incoming) == 1:
        require_equal(plain * gate, acts[name], f"{what} against h * gate", TOLERANCE)
    each = jnp.tile(gate, (BATCH, 1))
    per_example = case.apply(case.state, gates={name: each})[0]
    require_equal(gated, per_example, f"{what} of [U] and of [B, U]", TOLERANCE)
    closed = case.apply(case.state, gates={name: jnp.zeros(unit.size)})[0]
    _, other = _other_rows(case, unit, np.ones(unit.size, bool))
    reopened = case.apply(other, gates={name: jnp.zeros(unit.size)})[0]
    require_equal(closed, reopened, f"{what} = 0: its readers still see it", TOLERANCE)


def check_dead_units(case: Case, unit: Unit) -> None:
    """A unit that is not alive is 0, is not read, and gets and gives no gradient."""
    mask = np.arange(unit.size) % 2 == 0
    alive = {
        **{u.name: jnp.ones(u.size, bool) for u in case.net.units},
        **case.state.alive,
        unit.name: jnp.asarray(mask),
    }
    state = case.state._replace(alive=alive)
    logits, acts, _ = case.apply(state)
    what = f"{case.name}: alive[{unit.name!r}] = False"
    require(
        not np.any(acts[unit.name][..., ~mask]), f"{what}: its activation is not 0."
    )
    modules, other = _other_rows(case._replace(state=state), unit, ~mask)
    require_equal(logits, case.apply(other)[0], f"{what}: it is still read", TOLERANCE)
    grads = _gradient(case, state)
    for module in modules:
        rows = grads[module]["kernel"]
        rows = rows.reshape(*rows.shape[:-2], unit.repeat, unit.size, -1)
        require(
            not np.any(rows[..., ~mask, :]), f"{what}: {module} still gets a gradient."
        )
    for module in unit.incoming:
        columns = grads[module]["kernel"][..., ~mask]
        require(not np.any(columns), f"{what}: {module} still gets a gradient.")


def check_edges(case: Case, unit: Unit) -> None:
    """A forbidden weight is multiplied away: no effect, no gradient."""
    for module in unit.incoming:
        kernel = case.state.params[module]["kernel"]
        allowed = (np.arange(kernel.size) % 3 > 0).reshape(kernel.shape)
        state = case.state._replace(edges={module: jnp.asarray(allowed)})
        moved = jnp.where(allowed, kernel, kernel + 1.0)
        what = f"{case.name}: edges[{module!r}] = False"
        require_equal(
            case.apply(state)[0],
            case.apply(_with_kernel(state, module, moved))[0],
            f"{what}: the weight is still used",
        )
        grad = np.asarray(_gradient(case, state)[module]["kernel"])
        require(not np.any(grad[~allowed]), f"{what}: it still gets a gradient.")


def check_taps(case: Case) -> None:
    """One gradient with respect to the taps is dL/dz: the kernels' gradient follows."""
    _, acts, _ = case.apply(case.state, train=True, key=run_key(3))
    taps = {u.name: jnp.zeros_like(_by_unit(acts[u.name])) for u in case.net.units}
    taps["logits"] = jnp.zeros((BATCH, case.spec.num_outputs))
    by_tap = jax.grad(lambda t: _loss(case, case.state, t, train=True))(taps)
    by_weight = _gradient(case, case.state, train=True)
    readers = {m: u for u in case.net.units for m in u.outgoing}
    written = {m: (u.name, u.incoming) for u in case.net.units for m in u.incoming}
    written[case.net.head] = ("logits", (case.net.head,))
    for module, (tap, writers) in written.items():
        kernel = by_weight[module]["kernel"]
        source = readers.get(module)
        h = acts["x" if source is None else source.name]
        if kernel.ndim != 2 or len(writers) > 1 or h.size != BATCH * len(kernel):
            continue  # a convolution, or pooled on the way: no outer product to compare
        outer = h.reshape(BATCH, -1).T @ by_tap[tap].reshape(BATCH, -1)
        require_equal(
            outer * (case.state.edges or {}).get(module, 1.0),
            kernel,
            f"{case.name}: taps[{tap!r}] must be added to the output of {module!r}, so "
            "that input^T (dL/dtap) is the gradient of its kernel; it",
            atol=TOLERANCE,
        )


def _by_unit(h: Any) -> Any:
    """Activations of one feature a unit: [B, 2, U] -> [B, U], with positions likewise."""
    return h[..., 0, :] if h.ndim % 2 else h


def _loss(case: Case, state: NetState, taps: Any = None, train: bool = False) -> Any:
    logits = case.apply(state, taps=taps, train=train, key=run_key(3))[0]
    return weighted_mean(case.spec.loss.per_example(logits, case.y), jnp.ones(BATCH))


def _gradient(case: Case, state: NetState, train: bool = False) -> Any:
    def of_params(params):
        return _loss(case, state._replace(params=params), train=train)

    return jax.grad(of_params)(state.params)


def _with_kernel(state: NetState, module: str, kernel: jax.Array) -> NetState:
    layer = {**state.params[module], "kernel": kernel}
    return state._replace(params={**state.params, module: layer})


def _other_rows(case: Case, unit: Unit, mask: np.ndarray) -> tuple[Any, NetState]:
    """The modules that read a layer, and a state whose masked rows in them are other."""
    state = case.state
    for module in unit.outgoing:
        kernel = state.params[module]["kernel"]
        rows = np.tile(mask, unit.repeat)[:, None]
        state = _with_kernel(state, module, jnp.where(rows, kernel + 1.0, kernel))
    return unit.outgoing, state
