"""Ctrl-C and SIGTERM: the first asks to stop and save, the second stops at once."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = b"\x1b[?25h\n"  # a live progress line hides it


@contextmanager
def caught() -> Iterator[Callable[[], int]]:
    """Yields a function: the number of the first signal received so far, or 0.

    While the main thread compiles or runs a chunk Python cannot call a signal handler,
    so a thread of its own answers the user: at once, and at the second signal by ending
    the process with 128 + its number. That is as safe as kill -9: what is saved, stays.
    """
    received: list[int] = []
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    old = {n: signal.signal(n, lambda n, _: received.append(n)) for n in SIGNALS}
    old_writer = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(reader,), daemon=True)
    watcher.start()
    try:
        yield lambda: received[0] if received else 0
    finally:
        signal.set_wakeup_fd(old_writer)
        for number, handler in old.items():
            signal.signal(number, handler)
        os.close(writer)  # ends the watcher
        watcher.join()
        os.close(reader)


def _watch(reader: int) -> None:
    """The numbers of the signals arrive as bytes, whatever the main thread does."""
    seen = 0
    while number := os.read(reader, 1):
        if number[0] not in SIGNALS:
            continue
        seen += 1
        if seen == 1:
            text = "Stopping after the running chunk; once more to stop at once."
            print(text, file=sys.stderr, flush=True)
            continue
        if sys.stderr.isatty():
            os.write(2, _SHOW_CURSOR)
        os._exit(128 + number[0])


class Stopped(Exception):
    """The user asked to stop, by this signal; everything up to now is saved."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


def stop_if_asked(stopping: Callable[[], int]) -> None:
    """Raises Stopped where there was a signal."""
    if number := stopping():
        raise Stopped(number)
