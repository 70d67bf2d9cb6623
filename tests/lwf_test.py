"""Learning without forgetting: the oracle in each scenario, its limits, bad input."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.losses import squared_error
from cl_bench.methods import backprop, lwf
from cl_bench.networks import mlp
from tests import task_run, tiny
from tests.reference import logits as by_logits
from tests.reference import lwf as oracle
from tests.reference import mlp as oracle_mlp
from tests.task_run import STEPS, TASKS

close = partial(chex.assert_trees_all_close, rtol=1e-5, atol=2e-6)
OWN = task_run.data(per_task=2)  # outputs 0 1, 2 3, 4 5


def in_play(data, scenario):
    """The same examples with the outputs of a scenario in play."""
    task = np.arange(TASKS)[:, None, None, None]
    owner = np.arange(6) // 2
    if scenario == "task":
        return data
    if scenario == "class":
        seen = np.broadcast_to(owner <= task, data.classes.shape)
        return data._replace(classes=np.array(seen))
    if scenario == "all classes":
        return data._replace(classes=np.ones_like(data.classes))
    return data._replace(y=data.y % 6, classes=np.ones_like(data.classes))


def old_sets(scenario, task):
    """Sets of old outputs at a task after the first, from the equations."""
    owner = np.arange(6) // 2
    if scenario == "task":
        return [owner == s for s in range(task)]
    if scenario in ("class", "all classes"):
        return [owner < task]
    return [np.ones(6, bool)]


def spec_of(scenario):
    names = {"all classes": "class", "single head": "task"}
    own = scenario in ("task", "class", "all classes")
    name = names.get(scenario, scenario)
    return task_run.spec(scenario=name, num_outputs=6, own_outputs=own)


def expected_run(data, first, scenario, hyper):
    """The oracle's parameters after each step."""
    params, found = oracle_mlp.cast(first), []
    teacher = params
    for task in range(TASKS):
        for i in range(STEPS):
            x, y = data.x[task, i], data.y[task, i]
            classes = data.classes[task, i]
            grads = by_logits.masked_cross_entropy(params, x, y, classes)
            if task > 0:
                domain = scenario in ("domain", "single head")
                factor = task if hyper.weighting == "van_de_ven" and domain else 1
                added = oracle.added_gradient(
                    params, teacher, x, old_sets(scenario, task), classes,
                    data.weight[task, i],
                    strength=hyper.strength, temperature=hyper.temperature,
                    factor=factor, student=hyper.student,
                )  # fmt: skip
                grads = oracle_mlp.map_params(np.add, grads, added)
            params = oracle_mlp.map_params(
                lambda p, g: p - hyper.step_size * g, params, grads
            )
            found.append(params)
        teacher = params
    return found


CASES = [
    ("task", {}),
    ("task", {"weighting": "van_de_ven", "temperature": 1.0}),
    ("domain", {"strength": 0.5}),
    ("domain", {"weighting": "van_de_ven"}),
    ("single head", {}),
    ("single head", {"weighting": "van_de_ven"}),
    ("class", {"temperature": 3.0}),
    ("class", {"weighting": "van_de_ven", "student": "in_play"}),
    ("all classes", {"student": "in_play"}),
]


@pytest.mark.parametrize(("scenario", "settings"), CASES)
def test_three_tasks_step_beside_the_oracle(scenario, settings):
    spec, data = spec_of(scenario), in_play(OWN, scenario)
    net = mlp.make(spec, widths=(8, 6))
    hyper = lwf.Hyper(step_size=0.1, **settings)
    method = lwf.make(net, spec, hyper)
    tasks = task_run.run(method, data)
    first = method.init(tiny.KEY).net.params
    learners = [learner for task in tasks for learner in task.steps]
    expected = expected_run(data, first, scenario, hyper)
    for learner, params in zip(learners, expected, strict=True):
        close(learner.net.params, jax.tree.map(np.float32, params))


def test_distillation_by_hand():
    """Logits 0 and 2 ln 3 at temperature 2: q = (1/4, 3/4), and p = (1/2, 1/2)."""
    teacher = jnp.array([[0.0, 2 * np.log(3.0), 7.0]])
    student = jnp.array([[1.0, 1.0, 1.0]])
    old = jnp.array([True, True, False])
    found = lwf.distillation(student, teacher, old, old, 2.0)
    close(found, np.array([np.log(2.0)], np.float32))
    shown = jnp.ones(3, bool)  # p = 1/3 each
    close(
        lwf.distillation(student, teacher, old, shown, 2.0),
        np.array([np.log(3.0)], np.float32),
    )
    none = jnp.zeros(3, bool)
    assert lwf.distillation(student, teacher, none, none, 2.0) == 0.0


def drift(strength):
    """How far the answers to task 1's inputs move during task 2, and backprop's."""
    spec = task_run.spec()
    net = mlp.make(spec, widths=(8, 6))
    data = task_run.data()
    data = data._replace(x=np.broadcast_to(data.x[:1], data.x.shape).copy())
    hyper = lwf.Hyper(step_size=0.05, strength=strength)
    tasks = task_run.run(lwf.make(net, spec, hyper), data)
    x = data.x[0].reshape(-1, tiny.INPUTS)
    answers = [
        jax.nn.softmax(net.apply(t.end.net, x, train=False, key=None)[0])
        for t in tasks[:2]
    ]
    return float(np.mean(np.abs(answers[1] - answers[0])))


def test_a_stronger_teacher_keeps_the_old_answers():
    assert drift(20.0) < 0.5 * drift(0.0)


def test_strength_0_is_backprop():
    spec, data = spec_of("class"), in_play(OWN, "class")
    net = mlp.make(spec, widths=(8, 6))
    plain = backprop.make(net, spec, backprop.Hyper(step_size=0.1))
    made = lwf.make(net, spec, lwf.Hyper(step_size=0.1, strength=0.0))
    chex.assert_trees_all_close(
        task_run.run(made, data)[-1].end.net.params,
        task_run.run(plain, data)[-1].end.net.params,
        rtol=1e-6, atol=1e-7,
    )  # fmt: skip


def test_examples_of_padding_teach_nothing():
    """An old class is one that a counted example had."""
    spec, data = spec_of("class"), in_play(OWN, "class")
    net = mlp.make(spec, widths=(8, 6))
    data.weight[0, :, 1] = 0.0
    data.y[0, :, 1] = 5
    data.y[0, :, 0] = 0
    tasks = task_run.run(lwf.make(net, spec, lwf.Hyper()), data)
    np.testing.assert_array_equal(
        tasks[0].end.extra["outputs"][0], [True, True, False, False, False, False]
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weighting": "mean"}, "paper, van_de_ven"),
        ({"student": "all"}, "old, in_play"),
    ],
)
def test_options_that_do_not_exist_are_refused(settings, message):
    spec = task_run.spec()
    with pytest.raises(ValueError, match=message):
        lwf.make(mlp.make(spec), spec, lwf.Hyper(**settings))


def test_a_regression_is_refused():
    spec = task_run.spec(loss=squared_error)
    with pytest.raises(ValueError, match="is a regression"):
        lwf.make(mlp.make(spec), spec, lwf.Hyper())
