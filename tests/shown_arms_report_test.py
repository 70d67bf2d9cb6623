"""Which of many arms the figures draw, what is swept, and what others face."""

from cl_bench.report import palette, panels, scores, studies, sweeps
from tests.report_setting import make_study

ENDS = {  # score of every arm: those of one method do not all stand for one
    "backprop": 0.5, "adam": 0.4, "dropout": 0.3, "linear": 0.6,
    "l2 strength=0.1": 0.7, "l2 strength=0.01": 0.8, "l2 with norm": 0.9,
}  # fmt: skip


def panel_of(tmp_path, ends):
    """A study of arms; the method is the first word, or backprop."""
    known = ("l2", "continual_backprop")
    arms = {}
    for label, end in ends.items():
        method = label.split(" ")[0]
        method = method if method in known else "backprop"
        arms[label] = (method, {}, lambda task, end=end: end)
    (panel,) = panels.join([studies.load(make_study(tmp_path, arms=arms, tasks=2))])
    return panel


def drawn(panel, **limits):
    arms, reduced = sweeps.shown(panel, **limits)
    return [arm.label for arm in arms], reduced


def test_each_line_of_the_sweep_is_drawn_and_the_best_of_its_values(tmp_path):
    panel = panel_of(tmp_path, ENDS)
    assert drawn(panel, most=7) == (list(ENDS), False)
    assert drawn(panel, most=6) == ([a for a in ENDS if a != "l2 strength=0.1"], True)


def test_of_very_many_lines_the_best_of_each_method_and_the_baseline(tmp_path):
    panel = panel_of(tmp_path, ENDS)
    found = drawn(panel, most=6, most_lines=5)
    assert found == (["backprop", "linear", "l2 with norm"], True)


def test_without_a_lack_of_room_nothing_is_called_left_out(tmp_path):
    panel = panel_of(tmp_path, {"backprop": 0.5, "adam": 0.4, "l2": 0.3})
    assert drawn(panel, most=2) == (["backprop", "adam", "l2"], False)


def test_activations_face_the_linear_network(tmp_path):
    ends = {"elu a=1": 0.9, "relu a=1": 0.7, "linear a=1": 0.6, "linear a=2": 0.8}
    panel = panel_of(tmp_path, ends)
    found = scores.baseline(panel, panel.arms[0].study)
    assert found is not None and found.label == "linear a=2"
    shown, _ = sweeps.shown(panel, most=3)
    dark = [
        k for k, s in palette.strokes(shown).items() if s.colour == palette.BACKPROP
    ]
    assert dark == ["linear a=2"]


def test_a_linear_network_is_no_value_of_the_activation(tmp_path):
    panel = panel_of(tmp_path, {"relu": 0.7, "elu": 0.8, "linear": 0.9})
    own = ([5], "relu"), ([5], "elu"), ([], "relu")
    arms = [
        arm._replace(
            settings={"network.widths": widths, "network.activation": activation}
        )
        for arm, (widths, activation) in zip(panel.arms, own, strict=True)
    ]
    found = {s.setting: s for s in sweeps.sweeps(panel._replace(arms=arms))}
    compared = {
        name: [point.arm.label for point in sweep.points]
        for name, sweep in found.items()
    }
    assert compared == {
        "network.activation": ["elu", "relu"],
        "network.widths": ["linear", "relu"],
    }
    assert {p.others for sweep in found.values() for p in sweep.points} == {""}
