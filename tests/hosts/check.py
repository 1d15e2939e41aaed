"""What a consumer sees of workers on other hosts: the same items, and that a host has gone. See `run`."""

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import deque
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from pescador import RNG, ParallelStreamer, RoundRobinMux, StochasticMux, Streamer, WorkerError

HERE = Path(__file__).parent
HEAD = "198.51.100.1:6379"
STORE = ["--object-store-memory", "200000000", "--disable-usage-stats", "--block"]

os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(16),
}


def noise(size, rng):
    for _ in range(200):
        yield {"x": rng.random(size), "n": int(rng.integers(1000))}


def slow():
    while True:
        time.sleep(0.1)
        yield {"x": np.zeros(10)}


@contextmanager
def host(number, folder, *arguments):
    """Have Ray run on a host."""
    place = Path(folder, str(number))
    place.mkdir()
    command = [] if number == 1 else [HERE / "host", str(number)]
    command += [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments, *STORE]
    command += ["--node-ip-address", f"198.51.100.{number}", "--temp-dir", str(place)]
    with place.joinpath("log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate() if number == 1 else process.kill()
        process.wait()


def same_items():
    streams = [Streamer(noise, size, RNG) for size in (10, 10**4, 10**6)]
    tree = RoundRobinMux(
        [StochasticMux(streams, 2, 8, random_state=1), Streamer(noise, 100, rng=RNG)], random_state=0
    )
    with ParallelStreamer(tree, "ray", n_workers=6) as stream:
        n = 0
        for found, expected in zip(stream.iterate(400), tree.iterate(400), strict=True):
            np.testing.assert_array_equal(found["x"], expected["x"])
            assert found["n"] == expected["n"]
            n += 1
        hosts = {worker["host"] for worker in stream.stats()["workers"]}
    assert (n, hosts) == (400, {"host2", "host3", "host4"})
    print(f"{n} items of {sorted(hosts)} are equal to those that are made here", flush=True)


def goes(name, go, resource):
    with ParallelStreamer(Streamer(slow), "ray", resources={resource: 1}, timeout=1) as stream:
        items = iter(stream)
        next(items)
        go()
        started = time.monotonic()
        with pytest.raises(WorkerError, match=f"on host {resource}") as caught:
            deque(items, 0)
        print(f"{name}: heard after {time.monotonic() - started:.1f} s: {caught.value}", flush=True)


def main():
    import ray

    switch = ["ip", "-n", os.environ["HOSTS"], "link", "set"]
    with tempfile.TemporaryDirectory() as folder:
        try:
            with host(
                1, folder, "--head", "--port", "6379", "--num-cpus", "0", "--include-dashboard", "false"
            ):
                end = time.monotonic() + 60
                while subprocess.run(
                    [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", HEAD],
                    capture_output=True,
                ).returncode:
                    assert time.monotonic() < end, "the head does not start"
                options = "--address", HEAD, "--num-cpus", "2", "--resources"
                with (
                    host(2, folder, *options, '{"host2": 1}'),
                    host(3, folder, *options, '{"host3": 1}') as third,
                    host(4, folder, *options, '{"host4": 1}'),
                ):
                    ray.init(
                        HEAD, log_to_driver=False, logging_level="ERROR", _node_ip_address="198.51.100.1"
                    )
                    while ray.cluster_resources().get("CPU", 0) < 6:
                        assert time.monotonic() < end, "the other hosts do not start"
                        time.sleep(0.1)
                    same_items()
                    goes("a host that was switched off", third.kill, "host3")
                    goes(
                        "a host that was cut off",
                        lambda: subprocess.run([*switch, "port2", "down"], check=True),
                        "host2",
                    )
                    ray.shutdown()
        except BaseException:
            for log in Path(folder).glob("*/log"):
                print(log.read_text(), file=sys.stderr)
            raise


if __name__ == "__main__":
    main()
