"""LoRA with an adapter a task: what is kept, and what an unmet task is answered by."""

import chex
import numpy as np
import pytest

from cl_bench.methods import lora, lora_per_task, o_lora, si
from tests import task_run, tiny
from tests.task_run import DATA, NET, SPEC, TASKS, close


@pytest.fixture(scope="module")
def per_task_run():
    hyper = lora_per_task.Hyper(step_size=0.05, init_std=0.5, rank=2)
    method = lora_per_task.make(NET, SPEC, hyper)
    return method, task_run.run(method, DATA)


def test_no_task_is_forgotten(per_task_run):
    method, tasks = per_task_run
    for t in range(TASKS):
        batch = tiny.at(tiny.at(DATA, t), 0)
        own = method.predict(tasks[t].end, batch)[0]
        plain = NET.apply(tasks[t].end.net, batch.x, train=False, key=None)[0]
        chex.assert_trees_all_equal(own, plain)  # the current network is the one
        close(method.predict(tasks[-1].end, batch)[0], own)
    first, last = (tasks[i].end.net.params["h1"]["kernel"] for i in (0, 2))
    assert np.max(np.abs(first - last)) > 1e-3  # and the tasks did move it


def test_a_task_not_met_yet_is_answered_by_the_core(per_task_run):
    method, tasks = per_task_run
    batch = tiny.at(tiny.at(DATA, 2), 0)
    core = method.predict(tasks[0].end, batch)[0]
    close(method.predict(tasks[1].end, batch)[0], core)
    learned = method.predict(tasks[2].end, batch)[0]
    assert np.max(np.abs(learned - core)) > 1e-3


def test_each_adapter_starts_from_the_core_of_the_first_task(per_task_run):
    _, tasks = per_task_run
    for task in tasks[1:]:
        close(task.start.net.params, tasks[0].end.net.params)


def test_the_second_task_is_lora_s(per_task_run):
    """Until something is merged the two are one method."""
    _, tasks = per_task_run
    method = lora.make(NET, SPEC, lora.Hyper(step_size=0.05, init_std=0.5, rank=2))
    for t, task in enumerate(task_run.run(method, DATA)[:2]):
        close(task.end.net.params, tasks[t].end.net.params)


def test_a_benchmark_that_restores_networks_is_refused():
    with pytest.raises(ValueError, match="puts back the best network"):
        lora_per_task.make(NET, task_run.spec(restore_best=1), lora_per_task.Hyper())


def test_a_head_that_the_benchmark_resets_is_refused_where_nothing_trains_it():
    spec = task_run.spec(reset_head=True)
    with pytest.raises(ValueError, match="reset_head=False, or take lora"):
        lora_per_task.make(NET, spec, lora_per_task.Hyper())
    hyper = lora.Hyper(layers="hidden", train_head=False)
    with pytest.raises(ValueError, match="train_head=True, layers='all'"):
        lora.make(NET, spec, hyper)
    lora.make(NET, spec, lora.Hyper(layers="hidden", train_head=True))
    lora.make(NET, spec, lora.Hyper(layers="all", train_head=False))


@pytest.mark.parametrize("module", [si, o_lora])
def test_what_follows_the_weights_to_a_tasks_end_needs_the_last_network(module):
    with pytest.raises(ValueError, match="set best_validation=False"):
        module.make(NET, task_run.spec(restore_best=1), module.Hyper())
