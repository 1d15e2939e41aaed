"""What a state costs: its size, the time to save and to load it, and the items that are made again.

    python benchmarks/bench_states.py [--quick] [--csv FILE] [--no-peers] [--repetitions 3]

A stream gives 20,000 items, and is then asked where it stands again and again, some items apart. Another one
is given the last state, and goes on. "Load" is the call of load_state_dict(), which compares the trees. "Made
again" is how many items the leaves made, without those that came out after that; where the stream runs in
worker processes it is not counted, for a worker also makes items ahead. Each case runs in a fresh process; a
figure is the median of the repetitions, each of which is the median of 100 states. There are no peers: none
of those in the other benchmarks saves where a generator stands.
"""

from __future__ import annotations

import json
import statistics
import time
from itertools import islice

import harness

N_ITEMS = 20_000
N_STATES = 100

STREAMS = {
    # name: (class, keyword arguments, takes weights, what is around the mux)
    "Stochastic with_replacement": ("StochasticMux", {"mode": "with_replacement"}, False, ""),
    "the same, weights": ("StochasticMux", {"mode": "with_replacement"}, True, ""),
    "the same, START": ("StochasticMux", {"mode": "with_replacement"}, False, "START"),
    "the same, batches of 128": ("StochasticMux", {"mode": "with_replacement"}, False, "batches"),
    "Stochastic single_active": ("StochasticMux", {"mode": "single_active"}, True, ""),
    "Stochastic exhaustive": ("StochasticMux", {"mode": "exhaustive"}, True, ""),
    "ShuffledMux": ("ShuffledMux", {}, True, ""),
    "RoundRobinMux": ("RoundRobinMux", {"mode": "cycle"}, False, ""),
    "ChainMux": ("ChainMux", {"mode": "cycle"}, False, ""),
}
LARGE = {"ShuffledMux": 100, "RoundRobinMux": 100}  # all their streams are open, so there are fewer

n_made = 0


def sample(i, rng, start=0):  # noqa: ARG001  # as a source has it
    global n_made
    while True:
        n_made += 1
        yield {"i": i}


def make(name: str, n: int):
    import numpy as np

    import pescador

    kind, options, weighted, around = STREAMS[name]
    extra = (pescador.START,) if around == "START" else ()
    streams = [pescador.Streamer(sample, i, pescador.RNG, *extra) for i in range(n)]
    if kind == "ChainMux":
        streams = [pescador.Streamer(stream, 100) for stream in streams]
    options = dict(options)
    if weighted:
        options["weights"] = np.random.default_rng(0).random(n)
    if kind == "StochasticMux":
        options.update(n_active=min(100, n), rate=8)
    mux = getattr(pescador, kind)(streams, random_state=0, **options)
    return pescador.Streamer(pescador.buffer_stream, mux, 128) if around == "batches" else mux


def measure_case(case: dict) -> dict:
    """Measure one case."""
    import pescador

    stream = make(case["stream"], case["n"])
    if case["workers"]:
        stream = pescador.ParallelStreamer(stream, "shm", case["workers"])
    items_an_item = 128 if "batches" in case["stream"] else 1
    items = stream.cycle()
    next(islice(items, case["items"] // items_an_item, None))
    seconds = []
    for _ in range(N_STATES):
        next(islice(items, 7, None))
        started = time.perf_counter()
        state = items.state_dict()
        seconds.append(time.perf_counter() - started)
    items.close()
    text = json.dumps(state)

    before = n_made
    started = time.perf_counter()
    stream.load_state_dict(json.loads(text))
    loaded = time.perf_counter()
    items = stream.cycle()
    next(items)
    first = time.perf_counter() - loaded
    next(islice(items, 100, None))
    again = n_made - before - 102 * items_an_item
    items.close()
    if case["workers"]:
        stream.close()
    return {
        "bytes": len(text),
        "save": statistics.median(seconds),
        "load": loaded - started,
        "first": first,
        "again": "" if case["workers"] else max(0, again),
    }


COLUMNS = ["stream", "streams", "workers", "bytes", "save, ms", "min", "max", "load, ms", "next item, ms",
           "made again"]  # fmt: skip


def cases(quick: bool) -> list[harness.Case]:
    n, n_items = (300, 1000) if quick else (30_000, N_ITEMS)
    found = [
        {"stream": name, "n": LARGE.get(name, n), "workers": 0, "items": n_items}
        for name in list(STREAMS)[:: 4 if quick else 1]
    ]
    workers = (1,) if quick else (1, 2)
    found += [
        {"stream": "Stochastic with_replacement", "n": n, "workers": m, "items": n_items} for m in workers
    ]
    return found


def main() -> None:
    arguments = harness.options(__doc__, measure_case)
    wanted = cases(arguments.quick)
    results = harness.measure(__file__, wanted, arguments.repetitions or (1 if arguments.quick else 3))
    rows = []
    for case, found in zip(wanted, results, strict=True):
        of = {key: [result[key] for result in found] for key in found[0]}
        save = harness.three((1e3 * seconds for seconds in of["save"]), ".2f")
        load, first = (f"{1e3 * harness.median(of[key]):.2f}" for key in ("load", "first"))
        row = [case["stream"], case["n"], case["workers"] or "none", max(of["bytes"]), *save, load, first]
        rows.append([*row, of["again"][0]])
    harness.show("What a state costs", COLUMNS, rows)
    harness.write_csv(arguments.csv, COLUMNS, rows)


if __name__ == "__main__":
    main()
