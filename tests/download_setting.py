"""What the tests of downloads share: a server on this machine, and files to serve."""

import gzip
import hashlib
import http.server
import threading

import numpy as np
import pytest

from cl_bench.datasets import _download, _raw, _source

CUT = "cut"  # a path that starts with this breaks off half-way


class Server(http.server.ThreadingHTTPServer):
    """Gives `files` by name, and breaks off the first `cuts` answers under `CUT`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.cuts = 10**9


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server  # pyrefly: ignore

    def do_GET(self):
        self.server.asked.append(self.path)
        name = self.path.lstrip("/")
        content = self.server.files.get(name.removeprefix(f"{CUT}/"))
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        cut = name.startswith(CUT) and len(self.server.asked) <= self.server.cuts
        self.wfile.write(content[: len(content) // 2] if cut else content)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("CL_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(_download, "PAUSE", 0.0)
    monkeypatch.setattr(_download, "TIMEOUT", 5.0)
    web = Server()
    thread = threading.Thread(target=web.serve_forever, args=(0.01,))
    thread.start()
    yield web
    web.shutdown()
    thread.join()
    web.server_close()


def serve(web, files, under=""):
    """Puts files on the server and gives the table that TFDS would."""
    web.files.update(files)
    root = f"http://127.0.0.1:{web.server_address[1]}/{under}"
    return [
        _download.File(f"{root}{name}", len(c), hashlib.sha256(c).hexdigest())
        for name, c in files.items()
    ]


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return gzip.compress(header + array.tobytes(), mtime=0)


def mnist_like(train=6, test=3):
    random = np.random.RandomState(0)
    arrays = []
    for count in (train, test):
        arrays.append(random.randint(0, 256, (count, 5, 4)).astype(np.uint8))
        arrays.append((np.arange(count) % 3).astype(np.uint8))
    return arrays, dict(zip(_raw.MNIST_PARTS, map(idx, arrays), strict=True))


def nothing_cached():
    with pytest.raises(_source.MissingDatasetError):
        _source.load("mnist")
