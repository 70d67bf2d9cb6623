"""What a setting's name says of its numbers: counts, rates, shares, averages' memory."""

import math
import re
from collections.abc import Callable
from typing import Any

_COUNT = re.compile(r"^num_|_per_|^batch_size$|^held_out_batch$|^period$|^widths$")
# A threshold may be negative or infinite: 'never'.
_REAL: tuple[tuple[str, Callable[[float], bool], str], ...] = (
    # What an average keeps of itself at each step: at 1 it would never move.
    (
        r"^(input_)?decay$|^beta[12]$|^beta_utility$|momentum$",
        lambda v: 0 <= v < 1,
        "from 0 to below 1",
    ),
    (r"^(percentile|mix|keep|floor)$", lambda v: 0 <= v <= 1, "from 0 to 1"),
    (
        (
            r"step_(size|scale)$|_(rate|std|decay|weight)$|"
            r"^(strength|shrink|damping|alpha|zeta)$"
        ),
        lambda v: 0 <= v < math.inf,
        "a finite number, 0 or more",
    ),
    (
        r"^data_size$|^sigma_init$",
        lambda v: 0 < v < math.inf,
        "a finite number above 0",
    ),
)


def expected(name: str, default: Any, value: Any) -> str | None:
    """What the name asks for, in words, where the value is not that; else None.

    `value` has the setting's type; of a tuple every element is looked at. A count whose
    default is 0 may be 0, which stands for 'off'.
    """
    if _COUNT.search(name) and _below_one(value) and not _below_one(default):
        return "at least 1"
    for names, holds, words in _REAL:
        if re.search(names, name) and not all(map(holds, _numbers(float, value))):
            return words
    return None


def _below_one(value: Any) -> bool:
    return any(v < 1 for v in _numbers(int, value))


def _numbers(kind: type, value: Any) -> list[Any]:
    values = value if isinstance(value, tuple) else (value,)
    return [v for v in values if isinstance(v, kind) and not isinstance(v, bool)]
