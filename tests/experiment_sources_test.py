"""Settings that the sources of a benchmark give for one of its streams alone."""

import pytest

from tests import experiment_setting
from tests.experiment_setting import arms_of
from tests.stand_in_data import SETS

stand_ins = experiment_setting.stand_ins  # for every test of this file


def test_warm_starts_have_the_optimisers_of_their_papers():
    for preset, optimizer in (("noisy_chunks", "adamw"), ("dash", "momentum")):
        arms = arms_of(f"warm_start:{preset},full")
        assert {arm.hyper["optimizer"] for arm in arms.values()} == {optimizer}
        assert {arm.hyper["step_size"] for arm in arms.values()} == {1e-3}
        keep = arms["boundary_shrink_perturb"].hyper["keep"]
        assert keep == (0.3 if preset == "dash" else 0.6)
        slow = arms["hare_tortoise, slow copy"].hyper
        assert slow["evaluate"] == "tortoise"


@pytest.mark.parametrize(
    ("problem", "scale"),
    [("pm", "minus_one_one"), ("rl_cifar", "channel"), ("five_one", "channel")],
)
def test_pixels_are_scaled_as_in_the_released_code(problem, scale):
    (found,) = {arm.stream["scale"] for arm in arms_of(f"kumar:{problem},sgd").values()}
    assert found == scale


@pytest.mark.parametrize("preset", ["ash_adams", "dash"])
def test_all_test_images_are_scored(preset):
    for mode in ("smoke", "full"):
        run = arms_of(f"warm_start:{preset},{mode}")["backprop"]
        (scored,) = [m for m in run.metrics if m["name"] == "test_accuracy"]
        size = run.stream.get("held_out_batch")
        assert scored["minibatches"] * size == SETS["cifar10"][3]
