"""What it costs to bring items from one worker to the consumer.

    python benchmarks/bench_transport.py [--quick] [--csv FILE] [--no-peers] [--repetitions 3]

One worker yields the same item for ever: a dict of one float32 array of 100 B to 16 MiB, or of eight
mixed ones (250 kB). The consumer receives it, or receives it and reads it (NumPy's sum of each array).
Shown are items and bytes a second, and the CPU seconds of all processes together for each GB.

The yardstick is the *bare copy*: a loop of numpy.copyto from one source array into consecutive places of a
block of shared memory as large as the ring of the shm backend, in one process; no transport with
one copy can cost less. The thread backend copies as well, for its generator still holds the item, and may
write to it; what a generator no longer holds, it hands over as it is. *Portable* is what a backend does where
the system has nothing better: on a simulated macOS (tests/macos). Peers are each given
what suits them: PyTorch gets a fresh tensor over the array for each item (its loader makes tensors of
arrays anyway, and one that it has moved to shared memory before stays there), Grain reads without threads and
sends small arrays without shared memory, SPDL runs with its arena and without, and what they prefetch was
tried out.

Then, a batch of 128 arrays of 100 kB that buffer_stream builds in the worker, against buffer_stream in the
consumer alone, with the share of bytes that the worker copied to send them; and how long the first item of
the first and second epoch take. The last table holds these and the other figures against their bounds.
"""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections.abc import Callable, Iterator
from functools import partial

import harness
import numpy as np

SIZES = {
    "100 B": 100,
    "1 kB": 1000,
    "64 kB": 1 << 16,
    "1 MB": 1 << 20,
    "4 MB": 1 << 22,
    "16 MB": 1 << 24,
}
MIXED, BATCH, EPOCHS = "8 arrays", "batch of 128 arrays of 100 kB", "epochs"

Item = dict[str, np.ndarray]


def make_item(name: str) -> Item:
    if name != MIXED:
        return {"x": np.ones(SIZES[name] // 4, np.float32)}
    return {
        "image": np.ones((224, 224, 3), np.uint8),
        "spectrum": np.ones((128, 128), np.float32),
        "features": np.ones((40, 50), np.float64),
        "half": np.ones((64, 64), np.float16),
        "mask": np.ones(1000, np.bool_),
        "boxes": np.ones((50, 4), np.int32),
        "phase": np.ones((16, 16), np.complex64),
        "label": np.array(1, np.int64),
    }


def items(name: str) -> Iterator[Item]:
    item = make_item(name)
    while True:
        yield item


class Items:
    """The same as `items`, as an iterable and as a function, for peers that want such."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.item: Item | None = None  # made in the worker

    def __iter__(self) -> Iterator[Item]:
        return items(self.name)

    def __call__(self, _: object) -> Item:
        self.item = self.item or make_item(self.name)
        return self.item


def ring_bytes(item: Item) -> int:
    """Return the size of the shm backend's ring for such items."""
    from pescador.backends.shm.sender import MAX_RING_BYTES, MIN_RING_BYTES, RING_ITEMS
    from pescador.backends.system.shared_memory import ALIGNMENT

    size = sum(places(item)) + ALIGNMENT
    return max(MIN_RING_BYTES, min(RING_ITEMS * size, MAX_RING_BYTES)) // 4096 * 4096


def prefetch(name: str) -> int:
    """Return how many items a peer may be ahead; more large ones than these make it slower."""
    return 16 if SIZES.get(name, 1 << 20) <= 1 << 16 else 2


def places(item: Item) -> list[int]:
    """Return the bytes of each array, rounded up to whole cache lines."""
    return [-(-array.nbytes // 64) * 64 for array in item.values()]


# -- what is measured: each function gives an endless iterator of items --


def bare_copy(name: str) -> Iterator[Item]:
    from multiprocessing.shared_memory import SharedMemory

    source = make_item(name)
    size = ring_bytes(source)
    memory = SharedMemory(create=True, size=size)
    memory.unlink()
    copies = []
    for start in range(0, size - sum(places(source)), sum(places(source))):
        offsets = itertools.accumulate(places(source), initial=start)
        copies.append(
            {
                key: np.ndarray(array.shape, array.dtype, memory.buf, offset)
                for (key, array), offset in zip(source.items(), offsets, strict=False)
            }
        )
    try:
        for copy in itertools.cycle(copies):
            for key, array in source.items():
                np.copyto(copy[key], array)
            yield copy
    finally:
        # it cannot be unmapped while there are arrays in it, and complains of that at exit
        memory.close = lambda: None  # type: ignore[method-assign]


def ours(backend: str, name: str) -> Iterator[Item]:
    import pescador

    yield from pescador.ParallelStreamer(pescador.Streamer(items, name), backend)


def pescador_3(name: str) -> Iterator[Item]:
    import pescador

    yield from pescador.ZMQStreamer(pescador.Streamer(items, name))


def _put(name: str, queue: object) -> None:
    for item in items(name):
        queue.put(item)  # type: ignore[attr-defined]


def multiprocessing_queue(name: str) -> Iterator[Item]:
    queue = multiprocessing.Queue(prefetch(name))
    process = multiprocessing.Process(target=_put, args=(name, queue), daemon=True)
    process.start()
    try:
        while True:
            yield queue.get()
    finally:
        process.terminate()


def torch_loader(name: str) -> Iterator[Item]:
    import torch

    class Tensors(torch.utils.data.IterableDataset):
        def __iter__(self) -> Iterator[dict]:
            item = make_item(name)
            while True:
                yield {key: torch.from_numpy(array) for key, array in item.items()}

    loader = torch.utils.data.DataLoader(
        Tensors(), batch_size=None, num_workers=1, prefetch_factor=prefetch(name)
    )
    return iter(loader)


def faster_fifo(name: str) -> Iterator[Item]:
    from faster_fifo import Queue

    n_bytes = sum(places(make_item(name)))
    queue = Queue(max_size_bytes=max(1 << 24, min(8 * n_bytes, 1 << 28)))
    process = multiprocessing.Process(target=_put, args=(name, queue), daemon=True)
    process.start()
    try:
        while True:
            yield from queue.get_many()
    finally:
        process.terminate()


def grain(name: str) -> Iterator[Item]:
    import grain

    data = grain.MapDataset.range(1 << 40).map(Items(name))
    data = data.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    small = grain.experimental.DatasetOptions(min_shm_size=1 << 16)
    data = grain.experimental.WithOptionsIterDataset(data, small)
    return iter(data.mp_prefetch(grain.MultiprocessingOptions(1, prefetch(name))))


def spdl(with_arena: bool, name: str) -> Iterator[Item]:
    from spdl.pipeline import SharedMemorySegmentPool, iterate_in_subprocess

    n_bytes = sum(places(make_item(name)))
    arena = SharedMemorySegmentPool(n_bytes + 4096, 8) if with_arena else None
    return iter(iterate_in_subprocess(partial(Items, name), buffer_size=3, arena=arena))


TOOLS: dict[str, tuple[Callable[[str], Iterator[Item]], str | None]] = {
    # name: (items, environment)
    "bare copy": (bare_copy, None),
    "shm": (partial(ours, "shm"), None),
    "zmq": (partial(ours, "zmq"), None),
    "thread": (partial(ours, "thread"), None),
    "shm, portable": (partial(ours, "shm"), None),
    "zmq, portable": (partial(ours, "zmq"), None),
    "multiprocessing.Queue": (multiprocessing_queue, None),
    "pescador 3.0.0": (pescador_3, "pescador 3.0.0"),
    "DataLoader": (torch_loader, "torch"),
    "faster-fifo": (faster_fifo, "faster-fifo"),
    "Grain": (grain, "grain"),
    "SPDL": (partial(spdl, False), "spdl"),
    "SPDL, arena": (partial(spdl, True), "spdl"),
}
OURS = ("shm", "zmq", "thread")
PORTABLE = {"shm, portable": "shm", "zmq, portable": "zmq"}
PEERS = tuple(name for name in TOOLS if name not in (*OURS, *PORTABLE, "bare copy"))


# -- measuring, in a process of its own for each case --


def receive(_: Item) -> None:
    """Do nothing: an item that arrived was received."""


def read(item: Item) -> None:
    for array in item.values():
        np.asarray(array).sum()


def timed(stream: Iterator[Item], use: Callable[[Item], None], seconds: float) -> dict:
    """Take items for some seconds; the clock is looked at once in a few milliseconds."""
    n, chunk, now = 0, 1, 0.0
    cpu, started = harness.cpu_seconds(), time.perf_counter()
    while now < seconds:
        if use is receive:
            for _ in itertools.islice(stream, chunk):
                pass
        else:
            for item in itertools.islice(stream, chunk):
                use(item)
        n += chunk
        before, now = now, time.perf_counter() - started
        if now - before < 0.005:
            chunk *= 2
    return {"rate": n / now, "cpu": (harness.cpu_seconds() - cpu) / n}


def warm_up(stream: Iterator[Item], case: harness.Case) -> None:
    """Wait for the start of the worker, and then for the first use of each page."""
    next(stream)
    timed(stream, receive, case["seconds"] / 2)


def measure_case(case: harness.Case) -> dict:
    if case["item"] == BATCH:
        return measure_batches(case)
    if case["item"] == EPOCHS:
        return measure_epochs(case)
    stream = TOOLS[case["tool"]][0](case["item"])
    warm_up(stream, case)
    results = {use.__name__: timed(stream, use, case["seconds"]) for use in (receive, read)}
    getattr(stream, "close", lambda: None)()
    return results


def samples() -> Iterator[Item]:
    sample = {"x": np.ones(25_000, np.float32)}
    while True:
        yield sample


def measure_batches(case: harness.Case) -> dict:
    import pescador

    batches = pescador.Streamer(pescador.buffer_stream, pescador.Streamer(samples), 128)
    parallel = pescador.ParallelStreamer(batches, case["tool"])
    stream = iter(parallel)
    warm_up(stream, case)
    result = {"receive": timed(stream, receive, case["seconds"])}
    stats = parallel.stats()
    result["copied"] = stats["copied"] / max(stats["bytes"], 1)
    parallel.close()
    return result


def few_items() -> Iterator[Item]:
    yield from itertools.islice(items("1 kB"), 100)


def measure_epochs(case: harness.Case) -> dict:
    import pescador

    source = pescador.Streamer(few_items)
    if "environment" in case:
        stream = pescador.ZMQStreamer(source)
    else:
        stream = pescador.ParallelStreamer(source, case["tool"])
    first = []
    for _ in range(6):
        started = time.perf_counter()
        iterator = iter(stream)
        next(iterator)
        first.append(time.perf_counter() - started)
        for _ in iterator:
            pass
    return {"first": first[0], "second": harness.median(first[1:])}


# -- the tables --


def cases(arguments) -> list[harness.Case]:
    names = ["1 MB", MIXED] if arguments.quick else [*SIZES, MIXED]
    seconds = 0.05 if arguments.quick else 0.4
    found = [(tool, item) for item in names for tool in TOOLS]
    found += [(tool, BATCH) for tool in ("serial", "shm", "zmq")]
    found += [(tool, EPOCHS) for tool in (*OURS, "pescador 3.0.0")]
    if arguments.quick:
        found = [(tool, item) for tool, item in found if tool in ("bare copy", "serial", "shm")]
    wanted = []
    for tool, item in found:
        case = {"tool": tool, "item": item, "seconds": seconds}
        if (where := TOOLS.get(tool, (None, None))[1]) is not None:
            case["environment"] = where
        if tool in PORTABLE:
            case["path"] = str(harness.ROOT / "tests" / "macos")  # where the system has nothing else
        if arguments.peers or "environment" not in case:
            wanted.append(case)
    return wanted


COLUMNS = ["item", "tool", "use", "items/s", "min", "max", "MB/s", "CPU s/GB", "note"]


def rows_of(case: harness.Case, results: list[dict] | str) -> list[list]:
    if case["item"] == EPOCHS:
        return []
    n_bytes = 12_800_000 if case["item"] == BATCH else sum(a.nbytes for a in make_item(case["item"]).values())
    rows = []
    for use in ("receive",) if case["item"] == BATCH else ("receive", "read"):
        head = [case["item"], case["tool"], use]
        if isinstance(results, str):
            rows.append([*head, "", "", "", "", "", results])
            continue
        rates = [result[use]["rate"] for result in results]
        cpu = harness.median(result[use]["cpu"] for result in results)
        rows.append(
            [*head, *harness.three(rates, ".4g"), f"{harness.median(rates) * n_bytes / 1e6:.4g}",
             f"{cpu / n_bytes * 1e9:.3g}", ""]
        )  # fmt: skip
    return rows


def bounds(cases: list[harness.Case], results: list[list[dict] | str]) -> list[list]:
    """Return the figures that have a bound, beside it."""
    found = {
        (case["item"], case["tool"]): values
        for case, values in zip(cases, results, strict=True)
        if not isinstance(values, str)
    }

    def rate(item: str, tool: str, use: str = "receive") -> float:
        return harness.median(result[use]["rate"] for result in found[item, tool])

    def cpu(tool: str) -> float:
        return harness.median(result["receive"]["cpu"] for result in found[BATCH, tool])

    rows: list[list] = []

    def add(what: str, value: float, bound: float, at_least: bool, form: str = ".2f") -> None:
        rows.append(harness.against(what, value, bound, at_least, form))

    for item, bound in (("1 MB", 0.8), ("4 MB", 0.9), ("16 MB", 0.9)):
        if (item, "shm") in found:
            add(f"shm over the bare copy, {item}", rate(item, "shm") / rate(item, "bare copy"), bound, True)
    if ("1 kB", "shm") in found:
        add("shm, µs/item, 1 kB", 1e6 / rate("1 kB", "shm"), 2, False)
    if ("64 kB", "pescador 3.0.0") in found:
        value = rate("64 kB", "shm") / rate("64 kB", "pescador 3.0.0")
        add("shm over pescador 3.0.0, 64 kB", value, 10, True, ".1f")
    for item, use in itertools.product((*SIZES, MIXED), ("receive", "read")):
        if (item, "pescador 3.0.0") in found:
            value = rate(item, "zmq", use) / rate(item, "pescador 3.0.0", use)
            add(f"zmq over pescador 3.0.0, {item}, {use}", value, 1, True)
    for tool, item in itertools.product(PORTABLE, (*SIZES, MIXED)):
        if (item, tool) in found:
            value = rate(item, tool) / rate(item, PORTABLE[tool])
            add(f"{tool}, over {PORTABLE[tool]}, {item}", value, 0.5, True)
    for item, use in itertools.product((*SIZES, MIXED), ("receive", "read")):
        peers = [tool for tool in PEERS if (item, tool) in found]
        if peers:
            best = max(peers, key=lambda tool: rate(item, tool, use))
            value = rate(item, "shm", use) / rate(item, best, use)
            add(f"shm over the best peer ({best}), {item}, {use}", value, 1, True)
    if (BATCH, "shm") in found:
        value = rate(BATCH, "serial") / rate(BATCH, "shm")
        add("batch built in a worker over the consumer alone, wall time", value, 1.15, False)
        add("the same, CPU of both processes", cpu("shm") / cpu("serial"), 1.15, False)
        copied = harness.median(result["copied"] for result in found[BATCH, "shm"])
        add("the same, share of bytes copied to send them", copied, 0, False)
    for tool in (*OURS, "pescador 3.0.0"):
        if (EPOCHS, tool) in found:
            for epoch in ("first", "second"):
                value = 1e3 * harness.median(result[epoch] for result in found[EPOCHS, tool])
                add(f"first item of the {epoch} epoch, {tool}, ms", value, 5, False)
                if epoch == "first" or tool not in OURS:
                    rows[-1][2:] = ["", ""]  # for comparison
    return rows


def main() -> None:
    arguments = harness.options(__doc__, measure_case)
    wanted = cases(arguments)
    results = harness.measure(__file__, wanted, arguments.repetitions or (1 if arguments.quick else 3))
    rows = [row for case, found in zip(wanted, results, strict=True) for row in rows_of(case, found)]
    harness.show("From one worker to the consumer", COLUMNS, rows)
    harness.write_csv(arguments.csv, COLUMNS, rows)
    harness.show_bounds(bounds(wanted, results), arguments.csv)


if __name__ == "__main__":
    main()
