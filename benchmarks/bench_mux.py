"""What a mux costs a sample, and how long its first sample takes.

    python benchmarks/bench_mux.py [--quick] [--csv FILE] [--no-peers] [--repetitions 3]

Every mux, over 10 to 1,000,000 streams, against a bare generator loop and against the package
pescador==3.0.0, which is installed in an environment of its own. Each case runs in a fresh process, in
turn with the peer's; a figure is the median of the repetitions, with minimum and maximum where it
matters. The leaf is a generator that yields one object for ever.
"""

from __future__ import annotations

import gc
import time

import harness

MUXES = {
    # name: (class, keyword arguments, takes weights)
    "ShuffledMux": ("ShuffledMux", {}, True),
    "RoundRobinMux": ("RoundRobinMux", {"mode": "exhaustive"}, False),
    "ChainMux": ("ChainMux", {"mode": "exhaustive"}, False),
    "Stochastic with_replacement": ("StochasticMux", {"mode": "with_replacement"}, True),
    "Stochastic single_active": ("StochasticMux", {"mode": "single_active"}, True),
    "Stochastic exhaustive": ("StochasticMux", {"mode": "exhaustive"}, True),
}


def letter(c):
    while True:
        yield c


def measure_case(case: dict) -> dict:
    """Time one case, in whatever environment this runs."""
    import numpy as np
    import psutil

    import pescador

    name, n, weighted, rate, seconds = (case[key] for key in ("mux", "n", "weighted", "rate", "seconds"))
    if name == "bare":
        stream = letter(0)
        first = 0.0
        memory = 0.0
    else:
        kind, options, _ = MUXES[name]
        streamers = [pescador.Streamer(letter, i) for i in range(n)]
        options = dict(options)
        if weighted:
            options["weights"] = np.random.default_rng(0).random(n)
        if kind == "StochasticMux":
            options.update(n_active=min(100, max(n // 2, 1)), rate=rate)
        before = psutil.Process().memory_info().rss
        mux = getattr(pescador, kind)(streamers, random_state=0, **options)
        # an epoch of an exhaustive mux ends, so the next ones follow
        stream = mux.cycle() if options.get("mode") == "exhaustive" else iter(mux)
        gc.collect()  # a pass over a million new streamers is due at any moment, and is not the mux's
        started = time.perf_counter()
        next(stream)
        first = time.perf_counter() - started
        memory = (psutil.Process().memory_info().rss - before) / n
    count, best = 200, []
    deadline = time.perf_counter() + seconds
    steps = range(count)
    for _ in zip(steps, stream, strict=False):  # warm-up
        pass
    while time.perf_counter() < deadline or len(best) < 3:
        started = time.perf_counter()
        for _ in zip(steps, stream, strict=False):
            pass
        elapsed = time.perf_counter() - started
        best.append(elapsed / count)
        if elapsed < seconds / 10:
            count *= 2
            steps = range(count)
            best.clear()
        elif len(best) >= 12:
            break
    best.sort()
    return {"sample": best[len(best) // 2], "first": first, "memory": memory}


def cases(arguments) -> list[harness.Case]:
    sizes = [10, 1000] if arguments.quick else [10, 1000, 30_000, 1_000_000]
    seconds = 0.02 if arguments.quick else 0.3
    wanted = [{"mux": "bare", "n": 1, "weighted": False, "rate": 8, "seconds": seconds}]
    for mux, (_, _, takes_weights) in MUXES.items():
        for n in sizes:
            if mux == "Stochastic exhaustive" and n < 1000:  # over in a moment
                continue
            for weighted in (False, True) if takes_weights and not arguments.quick else (False,):
                for rate in (
                    (8, 256) if mux == "Stochastic with_replacement" and not arguments.quick else (8,)
                ):
                    case = {"mux": mux, "n": n, "weighted": weighted, "rate": rate, "seconds": seconds}
                    wanted.append(case)
                    # the peer copies and weighs every streamer: larger cases would take hours
                    if arguments.peers and n <= 30_000 and rate == 8:
                        wanted.append({**case, "environment": "pescador 3.0.0"})
    return wanted


COLUMNS = ["mux", "streams", "weights", "rate", "µs/sample", "min", "max", "first sample, ms",
           "bytes/stream", "peer µs/sample", "peer first, ms", "times faster"]  # fmt: skip


def rows_of(cases: list[harness.Case], results: list[list[dict] | str]) -> list[list]:
    rows: list[list] = []
    for case, found in zip(cases, results, strict=True):
        if "environment" in case:  # the row of ours was made just before
            if not isinstance(found, str):
                sample = 1e6 * harness.median(result["sample"] for result in found)
                first = 1e3 * harness.median(result["first"] for result in found)
                rows[-1][-3:] = [f"{sample:.2f}", f"{first:.1f}", f"{sample / float(rows[-1][4]):.1f}"]
            continue
        sample = harness.three((1e6 * result["sample"] for result in found), ".3f")
        if case["mux"] == "bare":
            rows.append(["bare generator", 1, "", "", *sample, *[""] * 5])
            continue
        rows.append([
            case["mux"], case["n"], "random" if case["weighted"] else "equal",
            case["rate"] if "Stochastic" in case["mux"] else "", *sample,
            f"{1e3 * harness.median(result['first'] for result in found):.2f}",
            f"{harness.median(result['memory'] for result in found):.0f}", "", "", "",
        ])  # fmt: skip
    return rows


def main() -> None:
    arguments = harness.options(__doc__, measure_case)
    wanted = cases(arguments)
    results = harness.measure(__file__, wanted, arguments.repetitions or (1 if arguments.quick else 3))
    rows = rows_of(wanted, results)
    harness.show("Cost of a mux", COLUMNS, rows)
    harness.write_csv(arguments.csv, COLUMNS, rows)


if __name__ == "__main__":
    main()
