"""O-LoRA and InfLoRA: the steps of LoRA with something more."""

from functools import partial

import chex
import jax
import numpy as np
import pytest

from cl_bench.methods import inflora, o_lora
from cl_bench.networks import mlp
from tests import task_run, tiny
from tests.reference import gpm as oracle_gpm
from tests.reference import lora as oracle
from tests.reference import mlp as oracle_mlp
from tests.reference import optimizers as oracle_optimizers
from tests.task_run import STEPS, TASKS

SPEC = task_run.spec()
NET = mlp.make(SPEC, widths=(8, 6))
DATA = task_run.data()
close = partial(chex.assert_trees_all_close, rtol=1e-5, atol=5e-6)


def adapter_run(method, hyper, start, penalty_grads, *, train_a=True):
    """The oracle beside a run: `start(task, drawn, core)`, `penalty_grads(a, past)`."""
    tasks = task_run.run(method, DATA)
    core = oracle_mlp.cast(method.init(tiny.KEY).net.params)
    step, past = partial(oracle_optimizers.sgd, step_size=hyper.step_size), []
    for task, done in enumerate(tasks):
        drawn = done.start.extra["lora"]["adapters"]
        adapters = start(task, oracle.start_adapters(drawn), core)
        for i in range(STEPS):
            now = oracle.acting(core, adapters, 1.0) if task else core
            grads = oracle_mlp.loss_and_grads(now, DATA.x[task, i], DATA.y[task, i])[2]
            if task == 0:
                core, _ = step(core, grads, {})
                now = core
            else:
                core, adapters, _ = oracle.adapter_step(
                    core, adapters, grads, ({}, {}), s=1.0,
                    trained=lambda module, leaf: module == "head" and hyper.train_head,
                    optimizer=step, own_optimizer=step,
                    penalty_grads=penalty_grads(adapters, past), train_a=train_a,
                )  # fmt: skip
                now = oracle.acting(core, adapters, 1.0)
            close(done.steps[i].net.params, jax.tree.map(np.float32, now))
        core = now
        if task > 0:
            past.append(adapters)
    return tasks


@pytest.mark.parametrize("overlap", o_lora.OVERLAPS)
def test_o_lora_steps_beside_the_oracle(overlap):
    hyper = o_lora.Hyper(
        step_size=0.05, rank=2, init_std=0.5, orthogonality=0.3, adapter_decay=0.1,
        overlap=overlap,
    )  # fmt: skip

    def penalty_grads(adapters, past):
        """lambda_1 sum |A_s A_t^T| (or squares) + lambda_2 (||A_t|| + ||B_t||)."""
        grads = {}
        for name, adapter in adapters.items():
            g = np.zeros_like(adapter["a"])
            for old in past:
                product = old[name]["a"] @ adapter["a"].T  # [r, r]
                slope = np.sign(product) if overlap == "absolute" else 2 * product
                g += 0.3 * slope.T @ old[name]["a"]
            sizes = {k: np.linalg.norm(v) for k, v in adapter.items()}
            grads[name] = {"a": g + 0.1 * adapter["a"] / sizes["a"]}
            grads[name]["b"] = 0.1 * adapter["b"] / (sizes["b"] or 1.0)
        return grads

    method = o_lora.make(NET, SPEC, hyper)
    adapter_run(method, hyper, lambda task, drawn, core: drawn, penalty_grads)


def test_o_lora_turns_away_from_earlier_adapters():
    def overlap(strength):
        hyper = o_lora.Hyper(
            step_size=0.02, rank=2, init_std=0.5, orthogonality=strength,
            first_task="adapters",
        )  # fmt: skip
        made = task_run.run(o_lora.make(NET, SPEC, hyper), DATA)
        past = made[0].end.extra["lora"]["memory"]["h1"][0]
        now = made[1].end.extra["lora"]["adapters"]["h1"]["a"]
        assert np.any(past)  # the first task had an adapter, and it is remembered
        return np.abs(past @ now.T).sum()

    assert overlap(2.0) < 0.3 * overlap(0.0)


def test_inflora_steps_beside_the_oracle():
    """A of each task from the numpy projection, and three tasks of B beside it."""
    hyper = inflora.Hyper(
        step_size=0.05, rank=3, first_threshold=0.3, last_threshold=0.9, examples=30
    )
    method = inflora.make(NET, SPEC, hyper)
    bases = {"h1": np.zeros((12, 0)), "h2": np.zeros((8, 0))}

    def start(task, drawn, core):
        if task > 0:
            x = DATA.x[task - 1].reshape(-1, 12)[:30]
            epsilon = 0.3 + 0.6 * (task - 1) / TASKS
            bases.update(
                oracle_gpm.update(bases, core, x, dict.fromkeys(bases, epsilon))
            )
        read = oracle_gpm.inputs(core, DATA.x[task].reshape(-1, 12)[:30])
        for name, basis in bases.items():
            left = read[name].T - basis @ basis.T @ read[name].T
            u = np.linalg.svd(left)[0][:, :3] / np.sqrt(3)
            a = drawn[name]["a"]
            chex.assert_trees_all_close(a.T @ a, u @ u.T, rtol=1e-3, atol=1e-4)
        return drawn

    adapter_run(method, hyper, start, lambda adapters, past: None, train_a=False)
    assert all(0 < basis.shape[1] < len(basis) for basis in bases.values())


def test_inflora_keeps_old_answers_where_all_energy_is_held():
    """One layer below the head, and the head frozen: no old input reaches B A."""
    net = mlp.make(SPEC, widths=(8,))
    data = task_run.data()
    rng = np.random.default_rng(3)
    for task in range(TASKS):  # tasks of 3 directions each
        data.x[task] = data.x[task][..., :3] @ rng.normal(size=(3, 12))
    hyper = inflora.Hyper(step_size=0.05, rank=3, first_threshold=1.0, train_head=False)
    tasks = task_run.run(inflora.make(net, SPEC, hyper), data)
    answers = [
        net.apply(t.end.net, data.x[0, 0], train=False, key=None)[0] for t in tasks
    ]
    chex.assert_trees_all_close(answers[0], answers[2], rtol=1e-4, atol=1e-4)
    kernels = [t.end.net.params["h1"]["kernel"] for t in tasks]
    assert np.max(np.abs(kernels[2] - kernels[0])) > 1e-3


@pytest.mark.parametrize(
    ("module", "settings", "message"),
    [
        (o_lora, {"overlap": "abs"}, "absolute, square"),
        (o_lora, {"first_task": "full"}, "core, adapters"),
        (o_lora, {"rank": 5}, "rank=4 is the largest"),
        (inflora, {"rank": 7}, "rank=6 is the largest"),
        (inflora, {"rank": 3, "examples": 2}, "examples=3 or more"),
    ],
)
def test_bad_settings_of_the_variants_are_refused(module, settings, message):
    with pytest.raises(ValueError, match=message):
        module.make(NET, SPEC, module.Hyper(**settings))
