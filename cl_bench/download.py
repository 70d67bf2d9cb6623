"""Fetches data sets: `python -m cl_bench.download mnist fashion_mnist cifar10`.

Without TensorFlow: mnist, fashion_mnist, kmnist, cifar10, cifar100 and emnist/balanced,
byclass, bymerge, digits, letters, mnist. They go to the cache folder (CL_BENCH_CACHE,
else ~/.cache/cl_bench). Others are prepared by TFDS in --data_dir where TensorFlow is
installed. A set that is already there is left alone.
"""

import sys
from collections.abc import Sequence

from absl import app, flags, logging

from cl_bench.atomic import StoreError
from cl_bench.datasets import _download, _source
from cl_bench.datasets._tfds import DatasetFormatError

DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared TFDS sets; TFDS_DATA_DIR if not given."
)


def main(argv: Sequence[str]) -> None:
    """Fetches each set named; exits with 1 where one of them could not be had."""
    if len(argv) < 2:
        sys.exit(f"Which sets? Known: {', '.join(sorted(_download.READERS))}.")
    logging.set_verbosity(logging.INFO)
    outcomes = [fetch_and_report(name, DATA_DIR.value) for name in argv[1:]]
    sys.exit(0 if all(outcomes) else 1)


def fetch_and_report(name: str, data_dir: str | None = None) -> bool:
    """One line to the user: what is there now, or why it is not."""
    try:
        facts = _source.describe(name, data_dir, download=True)
    except (_download.DownloadError, DatasetFormatError, StoreError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return False
    print(
        f"{name}: {facts.num_train} train and {facts.num_test} test images of "
        f"{'x'.join(map(str, facts.image_shape))}, {facts.num_classes} classes."
    )
    return True


def run() -> None:
    """The command line."""
    app.run(main)


if __name__ == "__main__":
    run()
