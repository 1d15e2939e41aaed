"""What the tests of the adaptors share."""

import os
import subprocess
from importlib.util import find_spec

import numpy as np
import psutil
import pytest

from pescador import RNG, ParallelStreamer, StochasticMux, Streamer

from ..kinds import ROOT


def needs(*packages):
    """Skip a module of tests where a package is not installed; under CI, fail."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        reason = f"needs {', '.join(missing)}"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}, which CI should have installed")
        pytest.skip(reason, allow_module_level=True)


def batches(n, size, rng):
    """Yield batches, the number of each of which is unlike that of any other."""
    for i in range(n):
        x = np.full((size, 4), rng.integers(1 << 20), np.float32)
        yield {"x": x, "y": x[:, :1] / (1 << 20), "w": np.ones(size, np.float32), "i": i, "name": "a"}


def stream_of(n=8, size=3, backend=None, random_state=0, source=batches):
    """Return a stream of n batches, serial (None) or in the background."""
    streams = [Streamer(source, n // 2, size, RNG) for _ in range(2)]
    mux = StochasticMux(streams, 2, None, mode="exhaustive", random_state=random_state)
    return mux if backend is None else ParallelStreamer(mux, backend)


def run(*command, **environment):
    """Run a command in the root of the checkout."""
    return subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def memory():
    return psutil.Process().memory_info().rss


@pytest.fixture(params=[None, "shm"], ids=["serial", "shm"])
def backend(request):
    return request.param
