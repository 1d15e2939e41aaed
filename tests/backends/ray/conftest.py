"""A cluster of Ray for all tests of a process, on this machine: a head without CPUs, and two nodes."""

import os
import secrets
import threading
import time

import psutil
import pytest

GRACE = 20.0  # seconds in which what a test ended may be gone: Ray ends processes, and takes its time
STORE_BYTES = 160 * 10**6

# What Ray reads when it is imported, which is why it is not imported here.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(16))  # or Ray writes one to the user's home


def pytest_collection_modifyitems(items):
    ours = [item for item in items if "backends/ray" in item.path.as_posix()]
    if len(ours) < len(items):  # Ray has threads for as long as it runs here, and others of the tests fork
        reason = "in a process of its own: python -m pytest tests/backends/ray -n 0"
        for item in ours:
            item.add_marker(pytest.mark.skip(reason))


@pytest.fixture(scope="session")
def cluster():
    """Start it, and connect this process to it."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": STORE_BYTES, "include_dashboard": False},
    )
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=4, object_store_memory=STORE_BYTES)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(autouse=True)
def nothing_left_behind(cluster):
    """Look for what is ours; Ray starts and ends processes, threads and connections when it likes."""
    before = ours()
    yield
    give_up = time.monotonic() + GRACE
    while (left := ours() - before) and time.monotonic() < give_up:
        time.sleep(0.05)
    assert not left, f"left behind: {sorted(left)}"


def ours():
    """Return a set of texts: our threads, and all actors of ours."""
    found = {f"{thread}" for thread in threading.enumerate() if thread.name.startswith("pescador")}
    for process in psutil.Process().children(recursive=True):
        try:
            if "RayWorker" in " ".join(process.cmdline()):
                found.add(f"actor {process.pid}")
        except psutil.Error:
            continue
    return found
