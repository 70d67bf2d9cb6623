"""One live line a group on a terminal; plain lines, few and complete, elsewhere."""

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as RichProgress


def duration(seconds: float) -> str:
    """Seconds as people write them: 42s, 3m07s, 2h05m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def _rate(per_second: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if per_second >= size:
            return f"{per_second / size:.3g}{unit}"
    return f"{per_second:.3g}"


@dataclass
class Line:
    """The state of one group: `update` it after every chunk."""

    label: str
    total_segments: int
    lanes: int
    steps_per_segment: int
    tasks: int
    first_segment: int  # done by an earlier process
    show: Callable[["Line"], None]
    clock: Callable[[], float]
    segments_done: int = 0
    score: float | None = None
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.segments_done = self.first_segment
        self.started = self.clock()

    def update(self, segments_done: int, score: float | None = None) -> None:
        """`segments_done` of the whole run; `score`, e.g. mean online accuracy."""
        self.segments_done = segments_done
        self.score = self.score if score is None else float(score)
        self.show(self)

    def elapsed(self) -> float:
        """Seconds since this process began the group."""
        return self.clock() - self.started

    def lane_steps_per_second(self) -> float:
        """Of this process: what an earlier one did before a resume is not counted."""
        segments = self.segments_done - self.first_segment
        steps = segments * self.steps_per_segment * self.lanes
        return steps / max(self.elapsed(), 1e-9)

    def remaining(self) -> float | None:
        """Seconds to the end at the present rate; None before the first chunk."""
        done = self.segments_done - self.first_segment
        left = self.total_segments - self.segments_done
        return self.elapsed() * left / done if done > 0 else None

    def numbers(self) -> str:
        """Tasks done, lane-steps/s, time, score: the text beside the label."""
        tasks = self.tasks * self.segments_done // max(self.total_segments, 1)
        remaining = self.remaining()
        finished = self.segments_done >= self.total_segments
        texts = [f"{tasks}/{self.tasks} tasks"]
        if remaining is not None:
            texts.append(f"{_rate(self.lane_steps_per_second())} lane-steps/s")
        if finished:
            texts.append(f"took {duration(self.elapsed())}")
        elif remaining is not None:
            texts.append(f"ETA {duration(remaining)}")
        if self.score is not None:
            texts.append(f"score {self.score:.3f}")
        return "  ".join(texts)


@dataclass
class Progress:
    """Shows groups on `stream`: live if it is a terminal, else a line every `interval`.

    The first and the last line of a group are always printed. A NaN score (every lane
    diverged) is shown as nan.
    """

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    interval: float = 5.0  # seconds between plain lines
    clock: Callable[[], float] = time.monotonic

    @contextmanager
    def group(
        self,
        label: str,
        total_segments: int,
        lanes: int,
        steps_per_segment: int,
        tasks: int,
        first_segment: int = 0,
    ) -> Generator[Line, None, None]:
        """The line of one group; `first_segment` > 0 where the group is resumed."""
        console = Console(file=self.stream)
        display = _live if console.is_terminal else self._plain
        with display(console, label, total_segments) as show:
            line = Line(
                label,
                total_segments,
                lanes,
                steps_per_segment,
                tasks,
                first_segment,
                show,
                self.clock,
            )
            show(line)
            yield line
            show(line)

    @contextmanager
    def _plain(
        self, console: Console, label: str, total: int
    ) -> Generator[Callable[[Line], None], None, None]:
        last_time, last_done = float("-inf"), -1

        def show(line: Line) -> None:
            nonlocal last_time, last_done
            finished = line.segments_done >= total
            due = line.clock() - last_time >= self.interval
            if (due or finished) and line.segments_done != last_done:
                print(f"{label}: {line.numbers()}", file=self.stream, flush=True)
                last_time, last_done = line.clock(), line.segments_done

        yield show


@contextmanager
def _live(
    console: Console, label: str, total: int
) -> Generator[Callable[[Line], None], None, None]:
    columns = (  # markup off: a label is a name, whatever brackets it has
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[numbers]}", markup=False),
    )
    with RichProgress(*columns, console=console, refresh_per_second=2) as bar:
        task: TaskID = bar.add_task(label, total=total, numbers="")

        def show(line: Line) -> None:
            bar.update(task, completed=line.segments_done, numbers=line.numbers())

        yield show
