"""The numbers of a progress line, and when it is shown."""

import io
import math

import pytest

from cl_bench.progress import Progress, duration


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class _Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def _group(stream, clock, **options):
    progress = Progress(stream=stream, interval=5.0, clock=clock)
    return progress.group(
        "[red]cbp[/]", 10, lanes=4, steps_per_segment=1000, tasks=5, **options
    )


def test_plain_lines_are_few_first_and_last_included():
    stream, clock = io.StringIO(), _Clock()
    with _group(stream, clock) as line:
        for done in range(1, 11):
            clock.now += 2.0
            line.update(done, score=0.5 + done / 100)
    lines = stream.getvalue().splitlines()
    assert lines == [
        "[red]cbp[/]: 0/5 tasks",
        "[red]cbp[/]: 1/5 tasks  2k lane-steps/s  ETA 14s  score 0.530",
        "[red]cbp[/]: 3/5 tasks  2k lane-steps/s  ETA 8s  score 0.560",
        "[red]cbp[/]: 4/5 tasks  2k lane-steps/s  ETA 2s  score 0.590",
        "[red]cbp[/]: 5/5 tasks  2k lane-steps/s  took 20s  score 0.600",
    ]


def test_resumed_group_counts_only_its_own_work():
    stream, clock = io.StringIO(), _Clock()
    with _group(stream, clock, first_segment=8) as line:
        clock.now += 2.0
        line.update(9)
        assert line.lane_steps_per_second() == pytest.approx(2000.0)
        assert line.remaining() == pytest.approx(2.0)
    assert stream.getvalue().splitlines()[0].endswith("4/5 tasks")


def test_interrupted_group_ends_without_a_false_end():
    stream, clock = io.StringIO(), _Clock()
    with pytest.raises(KeyboardInterrupt), _group(stream, clock) as line:
        line.update(1)
        raise KeyboardInterrupt
    assert "5/5" not in stream.getvalue()


def test_score_of_diverged_lanes_is_nan_and_stays_when_not_given():
    stream, clock = io.StringIO(), _Clock()
    with _group(stream, clock) as line:
        clock.now += 9.0
        line.update(1, score=math.nan)
        line.update(10)
    assert stream.getvalue().count("score nan") == 2


def test_terminal_shows_one_live_line_and_no_markup():
    stream, clock = _Terminal(), _Clock()
    with _group(stream, clock) as line:
        clock.now += 2.0
        line.update(10, score=0.25)
    text = stream.getvalue()
    assert "[red]cbp[/]" in text and "5/5 tasks" in text and "score 0.250" in text
    assert "\x1b[" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (59.6, "1m00s"), (187, "3m07s"), (7500, "2h05m")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text
