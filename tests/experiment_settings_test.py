"""The settings of the experiments are those that their headers say they are.

Nothing is trained, and the data sets are stand-ins.
"""

import jax
import pytest

from cl_bench.fields import ConfigError
from tests import experiment_setting
from tests.experiment_setting import arms_of, parts_of, runs_of
from tests.stand_in_data import IMAGENET, SETS

stand_ins = experiment_setting.stand_ins  # for every test of this file


def settings_of(run):
    """All that makes two runs differ but the seed and the label."""
    return run.stream, run.network, run.method, run.hyper


# ---- the suite of Kumar et al.


KUMAR = [  # some cells of their tables 3 and 4, written out
    ("pm,adam", "l2_init", {"step_size": 1e-3, "strength": 1e-2}),
    ("pm,sgd", "shrink_perturb", {"shrink": 1e-4, "noise_std": 1e-2}),
    ("pm,adam", "redo", {"step_size": 1e-3, "period": 625, "threshold": 0.0}),
    ("rl_mnist,adam", "backprop", {"step_size": 1e-4}),
    ("rl_cifar,sgd", "crelu", {"step_size": 1e-3}),
    ("rl_cifar,adam", "continual_backprop", {"replacement_rate": 1e-4}),
    ("five_one,sgd", "l2_init", {"step_size": 1e-2, "strength": 1e-5}),
    ("five_one,sgd", "layer norm", {"step_size": 0.1}),
    ("ci,sgd", "l2", {"step_size": 0.1, "strength": 1e-3}),
]


@pytest.mark.parametrize(("study", "arm", "settings"), KUMAR)
def test_the_best_settings_are_the_published_ones(study, arm, settings):
    found = arms_of(f"kumar:{study}")[arm].hyper
    assert {name: found[name] for name in settings} == pytest.approx(settings)


def test_methods_of_kumar_s_code():
    arms = arms_of("kumar:pm")
    redo, replacing = arms["redo"].hyper, arms["continual_backprop"].hyper
    assert (redo["source"], redo["moment_reset"]) == ("initial", "none")
    assert not replacing["accumulate"] and replacing["count"] == "eligible"


@pytest.mark.parametrize("problem", ["pm", "rl_mnist", "rl_cifar", "five_one", "ci"])
def test_crelu_has_as_many_parameters_as_relu(problem):
    arms = arms_of(f"kumar:{problem}")

    def count(arm):
        params = jax.eval_shape(
            parts_of(arms[arm]).network.init, jax.random.key(0)
        ).params
        return sum(leaf.size for leaf in jax.tree.leaves(params))

    assert abs(count("crelu") / count("backprop") - 1.0) < 0.01


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize(
    ("problem", "steps", "tasks", "batch"),
    [
        ("pm", 625, 500, 16),
        ("rl_mnist", 30_000, 50, 16),
        ("rl_cifar", 30_000, 50, 16),
        ("five_one", 780, 30, 32),
        ("ci", 100, 500, 100),  # 120 in the paper; the header tells
    ],
)
def test_tasks_are_as_long_as_kumar_s(problem, steps, tasks, batch, optimizer):
    arms = arms_of(f"kumar:{problem},{optimizer}")
    spec = parts_of(arms["redo"]).stream.spec
    assert (spec.steps_per_task, spec.num_tasks, spec.batch_size) == (
        steps,
        tasks,
        batch,
    )
    period = arms["redo"].hyper["period"]
    assert period % steps == 0 and period // steps in (1, 2, 5)  # tasks, as theirs
    total = arms["continual_backprop"].hyper["count"] == "total"
    assert total == (arms["redo"].network["name"] == "cnn")


@pytest.mark.parametrize(("optimizer", "period"), [("adam", 120), ("sgd", 600)])
def test_with_600_images_continual_imagenet_is_the_paper_s(optimizer, period):
    images = {"stream__train_per_class": 600, "stream__test_per_class": 100}
    redo = arms_of(f"kumar:ci,{optimizer}", **images)["redo"]
    assert parts_of(redo).stream.spec.steps_per_task == 120
    assert redo.hyper["period"] == period


@pytest.mark.parametrize("problem", ["five_one", "ci"])
def test_records_name_the_set_that_is_not_the_paper_s(problem):
    assert {run.benchmark for run in runs_of(f"kumar:{problem}")} == {
        f"kumar-{problem}-{IMAGENET}"
    }


# ---- controls and presets


@pytest.mark.parametrize(
    "spec", ["online_permuted_mnist:small,methods", "kumar:pm", "upgd_streams:ipm"]
)
def test_the_input_standardisation_is_reported_beside_the_methods(spec):
    arms = arms_of(spec)
    plain, control = arms["backprop"], arms["backprop, ema input"]
    changed = {"input_norm": "ema", "input_decay": 0.99}
    assert control.network == {**plain.network, **changed}
    assert control.hyper == plain.hyper and control.method == plain.method


@pytest.mark.parametrize("problem", ["pm", "rl_cifar"])
def test_l2_with_layer_norm_is_l2_behind_layer_norm(problem):
    arms = arms_of(f"kumar:{problem}")
    norm = arms["layer norm"]
    both = [run for arm, run in arms.items() if arm.startswith("L2 + layer norm")]
    assert sorted(run.hyper["strength"] for run in both) == [1e-5, 1e-4, 1e-3]
    for run in both:
        assert run.method == "l2" and run.network == norm.network
        rest = {k: v for k, v in run.hyper.items() if k != "strength"}
        assert rest == {k: norm.hyper[k] for k in rest}


# ---- Continual ImageNet and online permuted MNIST


def test_the_small_continual_imagenet_is_kumar_s():
    small, theirs = arms_of("continual_imagenet:small"), arms_of("kumar:ci,sgd")
    for arm in ("backprop", "l2", "shrink_perturb", "continual_backprop"):
        assert settings_of(small[arm]) == settings_of(theirs[arm])


@pytest.mark.parametrize("mode", ["small", "full"])
def test_the_grids_contain_the_settings_of_the_main_study(mode):
    main = arms_of(f"continual_imagenet:{mode},main")
    grids = {"backprop": "steps", "l2": "l2", "shrink_perturb": "shrink"}
    for arm, grid in (grids | {"continual_backprop": "cbp"}).items():
        tried = runs_of(f"continual_imagenet:{mode},{grid}")
        assert settings_of(main[arm]) in [settings_of(run) for run in tried]
        assert len({run.arm for run in tried}) > 2
    assert parts_of(main["linear"]).network.units == ()


def test_the_full_continual_imagenet_has_the_paper_s_images(monkeypatch):
    stream = arms_of("continual_imagenet:full")["backprop"].stream
    assert (stream["train_per_class"], stream["test_per_class"]) == (600, 100)
    monkeypatch.setitem(SETS, IMAGENET, ((32, 32, 3), 100, 50_000, 5_000))
    with pytest.raises(ConfigError, match="train_per_class=500,test_per_class=50"):
        runs_of("continual_imagenet:full")
    few = {"stream__train_per_class": 500, "stream__test_per_class": 50}
    assert runs_of("continual_imagenet:full", **few)


def test_the_widths_of_online_permuted_mnist_are_the_paper_s():
    runs = runs_of("online_permuted_mnist:full,widths")
    widths = dict.fromkeys(run.network["widths"] for run in runs)
    assert list(widths) == [(n, n, n) for n in (100, 1_000, 2_000, 10_000)]


@pytest.mark.parametrize(
    ("grid", "setting", "values"),
    [
        ("steps", "step_size", {0.01, 0.003, 0.001}),
        ("adam", "step_size", {1e-4, 5e-5, 3e-5}),
        ("l2", "strength", {1e-3, 1e-4, 1e-5}),
        ("shrink", "noise_std", {1e-4, 1e-5, 1e-6}),
        ("cbp", "replacement_rate", {1e-4, 1e-5, 1e-6}),
    ],
)
def test_the_grids_of_online_permuted_mnist_are_the_paper_s(grid, setting, values):
    runs = runs_of(f"online_permuted_mnist:full,{grid}")
    assert {run.hyper[setting] for run in runs} == values


def test_shrink_and_perturb_on_label_streams_has_the_published_noise():
    for stream in ("lp_emnist", "lp_cifar"):
        hyper = arms_of(f"upgd_streams:{stream}")["shrink_perturb"].hyper
        found = [hyper[key] for key in ("step_size", "noise_std", "shrink")]
        assert found == [0.01, 0.01, 0.001]


# ---- UPGD's streams, warm starts


def test_upgd_s_best_settings():
    arms = arms_of("upgd_streams:ipm")
    upgd = {"step_size": 0.01, "beta_utility": 0.9999, "noise_std": 0.1, "shrink": 0.01}
    adamw = {"step_size": 1e-4, "beta1": 0.0, "beta2": 0.99}
    shrink = {"step_size": 1e-3, "noise_std": 0.1, "shrink": 0.01}
    for arm, wanted in (("upgd", upgd), ("adamw", adamw), ("shrink_perturb", shrink)):
        found = {name: arms[arm].hyper[name] for name in wanted}
        assert found == pytest.approx(wanted)


def test_the_control_has_the_re_implementation_s_settings_too():
    arms = arms_of("upgd_streams:ipm,control")
    for decay in (0.99, 0.999):
        run = arms[f"l2, ema input {decay}"]
        assert run.method == "l2"
        assert [run.hyper[key] for key in ("step_size", "strength")] == [0.01, 0.01]
        assert run.network["input_norm"] == "ema"
        assert run.network["input_decay"] == decay


@pytest.mark.parametrize(
    ("spec", "period", "works"),
    [
        ("upgd_streams:ipm", 2_000_000, 500_000),
        ("upgd_streams:lp_cifar", 600_000, 500_000),
        ("slowly_changing_regression:full", 5_000_000, 1_500_000),
    ],
)
def test_a_change_period_longer_than_the_stream_is_refused(spec, period, works):
    message = f"steps_per_task={period}, the change period.*steps_per_task={works} or"
    with pytest.raises(ConfigError, match=message):
        runs_of(spec, stream__steps_per_task=period)
    runs_of(spec, stream__steps_per_task=works, stream__num_tasks=2)
