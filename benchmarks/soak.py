"""Whether anything is left behind, or grows, over thousands of pools and an hour of faults.

    python benchmarks/soak.py [--cycles 10000] [--seconds 3600] [--seed 0] [--csv FILE] [--quick]

Four parts, each of which fails (exit code 1) where a bound is not kept:

cycles
    Pools of all backends are opened, read from and closed, one after the other.
faults
    Processes with nested pools stream until something random happens to them: SIGKILL, SIGSEGV, or
    SIGSTOP and SIGCONT of a worker or a forkserver, an exception, a close or a garbage collection at some
    moment, and in the end SIGKILL of the consumer. What is delivered is checked item by item, and
    after the SIGKILL everything that the consumer had started must be gone.
deaths
    How long the consumer of a killed worker waits until it hears of that: under 1 s at the 99th percentile.
idle
    Processor time of an open pool of 8 workers that nobody reads: under 0.1 % of a core, consumer included.

Processes, threads, descriptors and segments of shared memory are counted twenty times in each of the
first two parts; they must be exactly as many as at the start. The resident memory of this process may
grow by 16 MiB between the first tenth of a part and its end, that of a consumer by 64 MiB.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
from harness import show, write_csv

from pescador import ParallelStreamer, PescadorError, RoundRobinMux, Streamer, WorkerError

BACKENDS = ("serial", "thread", "zmq", "shm")
GROWTH = 16 << 20  # bytes of resident memory
PATIENCE = 30  # seconds until something hangs
GONE = 2  # seconds in which processes end with their consumer, and nested ones with that
COLUMNS = ("part", "second", "n", "kills", "processes", "threads", "descriptors", "segments", "resident, MB")


def numbers(start, n_bytes):
    """Items that tell whether one is missing, double or changed."""
    i = start
    while True:
        yield {"i": i, "x": np.full(n_bytes, i % 251, np.uint8)}
        i += 1


def failing(n):
    for i in range(n):
        yield {"i": i, "x": np.full(10, i % 251, np.uint8)}
    raise ZeroDivisionError(n)


def check(item, i):
    if item["i"] != i or not (item["x"] == i % 251).all():
        raise AssertionError(f"item {i} is {item['i']}, or is not as it was made")


def n_segments(processes):
    """Return how much shared memory of ours these processes have mapped, what they share counted once."""
    found = set()
    for process in processes:
        with contextlib.suppress(OSError), open(f"/proc/{process.pid}/maps") as file:
            found |= {line.split()[4] for line in file if "/memfd:pescador" in line}
    return len(found)


class Table:
    """Samples of what this process has, and what may not grow."""

    def __init__(self):
        self.rows = []
        self.kills = 0
        self._started = time.monotonic()
        self._resident = {}  # by part
        self._first = None

    def sample(self, part, n):
        process = psutil.Process()
        deadline = time.monotonic() + GONE
        while True:
            gc.collect()
            processes = [process, *process.children(recursive=True)]
            counts = (len(processes), process.num_threads(), process.num_fds(), n_segments(processes))
            self._first = self._first or counts
            if counts == self._first or time.monotonic() > deadline:
                break
            time.sleep(0.01)
        resident = process.memory_info().rss
        self._resident.setdefault(part, []).append(resident)
        row = (
            part,
            round(time.monotonic() - self._started),
            n,
            self.kills,
            *counts,
            round(resident / 1e6, 1),
        )
        self.rows.append(row)
        print("  ".join(str(cell).rjust(9) for cell in row), flush=True)
        if counts != self._first:
            raise AssertionError(f"processes, threads, descriptors, segments: {counts}, were {self._first}")

    def check_memory(self):
        for part, resident in self._resident.items():
            growth = resident[-1] - resident[len(resident) // 10]
            if growth > GROWTH:
                raise AssertionError(f"{part}: resident memory has grown by {growth:,} bytes")


# Cycles


def cycles(table, n_cycles, generator):
    def cycle():
        backend = generator.choice(BACKENDS)
        source = Streamer(numbers, 0, generator.choice([10, 1000, 30_000, 1 << 20]))
        n_workers = generator.choice([1, 1, 2])
        if n_workers == 2:
            source = RoundRobinMux([source] * 2)
        with ParallelStreamer(source, backend, n_workers) as stream:
            for i, item in enumerate(stream.iterate(generator.randrange(1, 20))):
                check(item, i // n_workers)

    for backend in BACKENDS:  # what is loaded once, is
        with ParallelStreamer(Streamer(failing, 3), backend) as stream:
            list(stream.iterate(1))
    for n in range(n_cycles):
        if n % max(1, n_cycles // 20) == 0:
            table.sample("cycles", n)
        cycle()
    table.sample("cycles", n_cycles)


# Faults


def consumer(seed):
    """Stream until killed; what goes wrong on the way is expected, a wrong item or a hang is not."""
    generator = random.Random(seed)
    print("ready", flush=True)
    while True:
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        inner, outer = (generator.choice(BACKENDS[1:]) for _ in range(2))
        source = Streamer(numbers, 0, generator.choice([10, 1000, 30_000, 1 << 20]))
        if generator.random() < 0.2:
            source = Streamer(failing, generator.randrange(100))
        nested = ParallelStreamer(ParallelStreamer(source, inner, timeout=1), outer, timeout=1)
        length = generator.randrange(1, 2000)
        way = generator.choice(["close", "forget", "thread"])
        try:
            items = iter(nested)
            if way == "thread":
                timer = threading.Timer(generator.random() / 10, nested.close)
                timer.start()
            for i in range(length):
                check(next(items), i)
        except (ZeroDivisionError, PescadorError):
            pass
        finally:
            if way == "thread":
                timer.join()
            with contextlib.suppress(PescadorError):
                if way != "forget":
                    nested.close()
            items = nested = None
            gc.collect()
        sys.stdout.write(f"end {psutil.Process().memory_info().rss}\n")  # at once, or not at all
        sys.stdout.flush()


def faults(table, seconds, generator):
    deadline = time.monotonic() + seconds
    last_sample = 0.0
    n = 0
    while time.monotonic() < deadline:
        if time.monotonic() - last_sample > seconds / 20:
            last_sample = time.monotonic()
            table.sample("faults", n)
        n += one_consumer(table, generator)
    table.sample("faults", n)


def one_consumer(table, generator):
    """Run a consumer, do random things to its workers, and then kill it; return how many were done."""
    command = [sys.executable, __file__, "--consumer", str(generator.randrange(2**32))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(process.stdout))
    n_faults = 0
    try:
        assert process.stdout.readline() == "ready\n"
        reader.start()
        for _ in range(generator.randrange(2, 20)):
            time.sleep(generator.random() / 5)  # some moment
            if process.poll() is not None:
                break
            victims = psutil.Process(process.pid).children(recursive=True)
            if victims:
                n_faults += 1
                hurt(generator.choice(victims), table, generator)
        offspring = psutil.Process(process.pid).children(recursive=True)
    finally:
        ended = process.poll()
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()
    table.kills += 1
    if ended is not None:
        raise AssertionError(f"a consumer ended by itself, with code {ended}")
    left = psutil.wait_procs(offspring, timeout=GONE)[1]
    if left:
        raise AssertionError(f"{GONE} s after their consumer was killed, these run: {left}")
    resident = [int(line.split()[1]) for line in lines if line.startswith("end")]
    if resident and resident[-1] - resident[len(resident) // 10] > 4 * GROWTH:
        raise AssertionError(f"a consumer's resident memory: {resident}")
    return n_faults


def hurt(victim, table, generator):
    with contextlib.suppress(psutil.NoSuchProcess):
        way = generator.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
        victim.send_signal(way)
        table.kills += way == signal.SIGKILL
        if way == signal.SIGSTOP:
            time.sleep(generator.random() / 5)
            victim.resume()


# Deaths


def blocking():
    yield 0
    threading.Event().wait()


def deaths(n):
    """Return rows: backend, deaths, and percentiles of the seconds until the consumer heard."""
    rows = []
    for backend in ("zmq", "shm"):
        heard = []
        with (
            ParallelStreamer(Streamer(blocking), backend) as other,  # keeps what workers are forked from
            ParallelStreamer(Streamer(blocking), backend, prefetch=2) as stream,
        ):
            next(iter(other))
            for _ in range(n):
                items = iter(stream)
                next(items)
                pid = stream.stats()["workers"][0]["pid"]
                told = []
                waits = threading.Event()

                def kill(pid=pid, told=told, waits=waits):
                    waits.wait()
                    time.sleep(0.01)  # so that the consumer waits in the kernel
                    told.append(time.perf_counter())
                    os.kill(pid, signal.SIGKILL)

                killer = threading.Thread(target=kill)
                killer.start()
                waits.set()
                with contextlib.suppress(WorkerError):
                    next(items)
                    raise AssertionError("a death was not told")
                heard.append(time.perf_counter() - told[0])
                killer.join()
        p50, p99 = np.percentile(heard, [50, 99])
        rows.append((backend, n, f"{1000 * p50:.1f}", f"{1000 * p99:.1f}", f"{1000 * max(heard):.1f}"))
        if p99 >= 1:
            raise AssertionError(f"{backend}: the 99th percentile is {p99:.2f} s")
    return rows


# Idle


def idle(seconds):
    """Return rows: backend, seconds, processor time of all processes, share of a core."""
    rows = []
    for backend in ("thread", "zmq", "shm"):
        mux = RoundRobinMux([Streamer(numbers, 0, 1000)] * 8)
        with ParallelStreamer(mux, backend, 8) as stream:
            items = iter(stream)
            for _ in range(1000):
                next(items)
            settled()
            processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
            before = used(processes)
            time.sleep(seconds)
            spent = used(processes) - before
        rows.append((backend, seconds, f"{1000 * spent:.1f}", f"{100 * spent / seconds:.3f}"))
        if spent > 0.001 * seconds:
            raise AssertionError(f"{backend}: an idle pool used {spent:.3f} s in {seconds} s")
    return rows


def used(processes):
    """Return the seconds of processor time that processes have used, to the nanosecond where Linux tells."""
    total = 0
    for process in processes:
        folder = f"/proc/{process.pid}/task"
        for thread in os.listdir(folder):
            with open(f"{folder}/{thread}/schedstat") as file:
                total += int(file.read().split()[0])
    return total / 1e9


def settled():
    """Wait until the workers have produced what they may."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    while True:
        before = used(processes)
        time.sleep(0.2)
        if used(processes) - before < 0.002:
            return


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cycles", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--csv")
    parser.add_argument("--quick", action="store_true", help="half a minute")
    parser.add_argument("--consumer", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.consumer is not None:
        consumer(arguments.consumer)
    if arguments.quick:
        arguments.cycles, arguments.seconds = 40, 5
    n_deaths, idle_seconds = (5, 2) if arguments.quick else (200, 20)

    generator = random.Random(arguments.seed)
    table = Table()
    print("  ".join(column.rjust(9) for column in COLUMNS))
    try:
        cycles(table, arguments.cycles, generator)
        faults(table, arguments.seconds, generator)
        heard = deaths(n_deaths)
        table.kills += 2 * n_deaths
        rested = idle(idle_seconds)
        table.sample("end", 0)
        table.check_memory()
    finally:
        show(f"Soak, seed {arguments.seed}", COLUMNS, table.rows)
        write_csv(arguments.csv, COLUMNS, table.rows)
    show("Until a death is heard, ms", ("backend", "deaths", "p50", "p99", "max"), heard)
    show("An idle pool of 8 workers", ("backend", "seconds", "processor time, ms", "% of a core"), rested)
    print(f"\n{table.kills} SIGKILLs of workers and consumers; nothing is left behind")


if __name__ == "__main__":
    main()
