"""Methods against forgetting on plasticity streams, and the other way round."""

from typing import Any

import numpy as np
import pytest

from cl_bench import config, registry, study
from cl_bench.fields import ConfigError
from tests import small_study

OPTIONS = {"train": 60, "test": 12, "size": 4, "classes": 4}
IMAGES = {"dataset": "synthetic", "dataset_options": OPTIONS, "batch_size": 5}
STREAMS: dict[str, dict[str, Any]] = {
    "label_permuted": {
        **IMAGES,
        "num_tasks": 2,
        "steps_per_task": 10,
        "fit_examples": 4,
        "offers": ("boundaries",),
    },
    "split_classes": {**IMAGES, "classes_per_task": 2, "scenario": "domain"},
}
# Those that have to know the number of the task, which neither of these tells.
TASK_ID = {"hat", "packnet", "independent", "lora_per_task", "progressive"}


def cfg(stream: str, method: str, **settings: Any) -> Any:
    """Two small tasks."""
    norm = "layer" if method == "nap" else "none"
    return config.study(
        name="any",
        stream={"name": stream, **STREAMS[stream]},
        network={"name": "mlp", "widths": (5, 4), "norm": norm},
        method={"name": method, **settings},
        seeds=1,
        execution={"lanes": "map", "devices": 1},
    )


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("method", registry.names("methods"))
def test_a_method_runs_on_streams_of_both_suites(stream, method):
    small = {"rank": 2} if "lora" in method else {}
    if method in TASK_ID:
        with pytest.raises(ConfigError, match="needs.*task_id"):
            study.expand(cfg(stream, method, **small))
    else:
        (run,) = study.expand(cfg(stream, method, **small))
        assert not run.oracle


@pytest.mark.parametrize(
    ("stream", "method", "settings"),
    [
        ("label_permuted", "ewc", {}),
        ("split_classes", "continual_backprop", {"replacement_rate": 0.1}),
    ],
)
def test_and_learns_there(stream, method, settings, tmp_path):
    made = cfg(stream, method, **settings)
    small_study.launch_all(made, tmp_path)
    rows = small_study.rows(tmp_path)
    assert np.isfinite(np.asarray(rows["online_accuracy"])).all()
    assert not np.asarray(rows["diverged"]).any()
