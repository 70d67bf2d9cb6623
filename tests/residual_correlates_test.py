"""Dormant units of all ReLUs and ranks of pooled features, against numpy."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.metrics import dormant_units, residual_correlates
from cl_bench.networks import mlp, resnet18
from cl_bench.types import Batch, Learner, NetState, Probe
from tests import tiny
from tests.reference import metrics as oracle

EXAMPLES, IMAGE = 20, (6, 6, 2)
SPEC = tiny.SPEC._replace(
    input_shape=IMAGE, batch_size=5, examples_per_task=2 * EXAMPLES
)


def network():
    """A residual network of 4 to 32 channels, some of which are rarely active."""
    net = resnet18.make(SPEC, width=4)
    state = net.init(tiny.KEY)
    keys = iter(jax.random.split(jax.random.key(3), 200))
    low = lambda p: p - 1.5 * jax.random.uniform(next(keys), p.shape)
    params = {
        name: layer | ({"shift": low(layer["shift"])} if "shift" in layer else {})
        for name, layer in state.params.items()
    }
    return net, state._replace(params=params)


def probe_of(state, x):
    def train(i):
        rows = jax.lax.dynamic_slice_in_dim(jnp.asarray(x), 5 * i, 5)
        y = jnp.zeros(5, jnp.int32)
        return Batch(rows, y, jnp.ones(5), jnp.ones((5, tiny.OUTPUTS), bool), y)

    refuse = lambda *args: pytest.fail("it reads the trained network itself")
    return Probe(tiny.clock(0), Learner(state, (), {}), refuse, train, refuse)


def read(net, state, x, **static):
    made = residual_correlates.make(net, SPEC, examples=EXAMPLES, **static)
    rows = tiny.quick_jit(lambda s: made.read_start(probe_of(s, x)))(state)
    return {name: float(value) for name, value in rows.items()}


def activations(net, state, x):
    """All ReLU outputs [.., U] in training mode; the last one averaged over positions."""
    forward = tiny.quick_jit(lambda s: net.apply(s, x[:EXAMPLES], train=True, key=None))
    acts = {name: np.asarray(h) for name, h in forward(state)[1].items()}
    del acts["x"]
    assert len(acts) == 17  # the stem's, and two a block
    return acts | {"s4": acts["s4"].mean((1, 2))}


@pytest.mark.parametrize("spare", [{}, {"s1": 1, "s4b1": 2}], ids=["all", "spare"])
def test_residual_correlates_as_numpy(spare):
    net, state = network()
    alive = {u.name: u.size - spare[u.name] for u in net.units if u.name in spare}
    sizes = {u.name: u.size for u in net.units}
    masks = {name: jnp.arange(sizes[name]) < kept for name, kept in alive.items()}
    state = state._replace(alive=masks)
    x = np.random.default_rng(0).normal(size=(2 * EXAMPLES, *IMAGE)).astype(np.float32)
    acts = activations(net, state, x)
    dormant = units = 0
    for name, h in acts.items():
        kept = h.reshape(-1, h.shape[-1])[:, : alive.get(name.split("_")[0])]
        dormant += oracle.dormant_units_dohare(kept, 0.05)
        units += kept.shape[1]
    assert units == 5 * 4 + 4 * (8 + 16 + 32) - (3 + 2 if spare else 0)
    assert 0 < dormant < units / 2
    expected = {
        "dormant_relus": dormant / units,
        "pooled_effective_rank": oracle.effective_rank(acts["s4"]),
        "pooled_srank": oracle.abs_approximate_rank(acts["s4"]),
    }
    found = read(net, state, x, threshold=0.05)
    chex.assert_trees_all_close(found, expected, rtol=1e-4)
    assert all(np.isnan(v) for v in read(net, state, x * np.nan).values())


def test_of_a_dense_network_it_is_the_dormant_units():
    spec = SPEC._replace(input_shape=(tiny.INPUTS,))
    net = mlp.make(spec, widths=(9, 7))
    state = net.init(tiny.KEY)
    x = np.random.default_rng(2).normal(size=(2 * EXAMPLES, tiny.INPUTS))
    probe = probe_of(state, x.astype(np.float32))
    found = read(net, state, x.astype(np.float32), threshold=0.4)
    plain = dormant_units.make(net, spec, threshold=0.4, examples=EXAMPLES)
    predict = lambda learner, b: net.apply(learner.net, b.x, train=False, key=None)[:2]
    rows = plain.read_start(probe._replace(predict=predict))
    assert found["dormant_relus"] == pytest.approx(float(rows["dormant_units_dohare"]))
    assert 0 < found["dormant_relus"] < 1


def test_nothing_to_read_and_a_proportion_that_cannot_be():
    spec = SPEC._replace(input_shape=(tiny.INPUTS,))
    net = mlp.make(spec, widths=())
    probe = Probe(
        tiny.clock(0), Learner(NetState({}, {}, {}, None), (), {}), *3 * [None]
    )
    assert residual_correlates.make(net, spec).read_start(probe) == {}
    with pytest.raises(ValueError, match="proportion=1.5"):
        residual_correlates.make(net, spec, proportion=1.5)
