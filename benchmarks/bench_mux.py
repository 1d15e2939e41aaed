"""What a mux costs a sample, and how long its first sample takes.

    python benchmarks/bench_mux.py [--quick] [--csv FILE] [--no-peer]

Every mux, over 10 to 1,000,000 streams, against a bare generator loop and against the package
pescador==3.0.0, which is installed in an environment of its own. Each case runs in a fresh process, in
turn with the peer's; a figure is the median of the repetitions, with minimum and maximum where it
matters. The leaf is a generator that yields one object for ever.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time

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


def main() -> None:
    import harness

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few cases, one repetition")
    parser.add_argument("--csv", help="write the table to this file")
    parser.add_argument("--no-peer", action="store_true", help="do not install and measure pescador 3.0.0")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure_case(json.loads(arguments.case))))
        return

    sizes = [10, 1000] if arguments.quick else [10, 1000, 30_000, 1_000_000]
    seconds, repetitions = (0.05, 1) if arguments.quick else (0.4, 3)
    peer = None
    if not arguments.no_peer:
        peer = harness.environment("pescador3", "pescador==3.0.0", "psutil")

    def run(case: dict, python: object, ours: bool) -> dict:
        return harness.measure(str(python), __file__, "--case", json.dumps(case), ours=ours)

    cases = [
        {"mux": mux, "n": n, "weighted": weighted, "rate": rate, "seconds": seconds}
        for mux, (kind, _, takes_weights) in MUXES.items()
        for n in sizes
        if not (mux == "Stochastic exhaustive" and n < 1000)  # over in a moment
        for weighted in ((False, True) if takes_weights else (False,))
        for rate in ((8, 256) if kind == "StochasticMux" and not arguments.quick else (8,))
    ]
    bare = [
        run({"mux": "bare", "n": 1, "weighted": False, "rate": 8, "seconds": seconds}, sys.executable, True)
        for _ in range(3)
    ]
    columns = ["mux", "streams", "weights", "rate", "µs/sample", "min", "max", "first sample, ms",
               "bytes/stream", "peer µs/sample", "peer first, ms", "times faster"]  # fmt: skip
    rows = [
        ["bare generator", 1, "", "", f"{1e6 * harness.median(r['sample'] for r in bare):.3f}"] + [""] * 7
    ]
    for case in cases:
        ours, theirs = [], []
        for _ in range(repetitions):
            ours.append(run(case, sys.executable, True))
            # the peer copies and weighs every streamer: larger cases would take hours
            if peer is not None and case["n"] <= 30_000 and case["rate"] == 8:
                theirs.append(run(case, peer, False))
        sample = [1e6 * result["sample"] for result in ours]
        row = [
            case["mux"], case["n"], "random" if case["weighted"] else "equal",
            case["rate"] if "Stochastic" in case["mux"] else "", f"{harness.median(sample):.3f}",
            f"{min(sample):.3f}", f"{max(sample):.3f}",
            f"{1e3 * harness.median(result['first'] for result in ours):.2f}",
            f"{harness.median(result['memory'] for result in ours):.0f}",
        ]  # fmt: skip
        if theirs:
            their_sample = 1e6 * harness.median(result["sample"] for result in theirs)
            row += [
                f"{their_sample:.2f}",
                f"{1e3 * harness.median(result['first'] for result in theirs):.1f}",
                f"{their_sample / harness.median(sample):.1f}",
            ]
        else:
            row += ["", "", ""]
        rows.append(row)
        print(*row, sep="\t", file=sys.stderr, flush=True)
    harness.show("Cost of a mux", columns, rows)
    harness.write_csv(arguments.csv, columns, rows)


if __name__ == "__main__":
    main()
