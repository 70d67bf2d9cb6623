"""Real handwritten digits, 1,797 images of 8 x 8, embedded: nothing to download.

The test part of "Optical Recognition of Handwritten Digits", E. Alpaydin and
C. Kaynak, UCI Machine Learning Repository, 1998, CC BY 4.0; the copy that
scikit-learn gives as `load_digits`, in its order.
"""

from pathlib import Path

import numpy as np

from cl_bench.types import Dataset

LEVELS = 16  # the largest value of a pixel: counts of dark dots in a 4 x 4 block


def load(test_fraction: float = 1 / 6) -> Dataset:
    """uint8 images [N, 8, 8, 1] and int32 labels of 10 classes.

    Pixels hold round(v * 255 / 16), so that pixel / 255 is the original v / 16
    within 0.002. `test_fraction` of each class, evenly spread over the file's
    order, is the test set (1/6: 1,501 train and 296 test); 0 leaves it empty.
    Raises ValueError for a fraction outside [0, 1).
    """
    if not 0 <= test_fraction < 1:
        raise ValueError(f"digits: test_fraction is {test_fraction}, not in [0, 1).")
    path = Path(__file__).with_name("digits.npz")
    with np.load(path, allow_pickle=False) as stored:
        raw, labels = stored["images"], stored["labels"].astype(np.int32)
    images = np.round(raw[..., None] * (255 / LEVELS)).astype(np.uint8)
    test = _is_test(labels, test_fraction)
    return Dataset(images[~test], labels[~test], images[test], labels[test])


def _is_test(labels: np.ndarray, fraction: float) -> np.ndarray:
    """Marks every (1 / fraction)-th example of each class."""
    rank = np.empty(len(labels), np.int64)  # position within its own class
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank[members] = np.arange(len(members))
    # 1e-9: n examples of fraction 1 / n give exactly one, whatever the rounding
    return np.floor((rank + 1) * fraction + 1e-9) > np.floor(rank * fraction + 1e-9)
