"""Which stream of a mux is active when, and which gives a sample; what rate, n_active, weights and dist do.

Nothing here is painted by hand: the muxes run, and their streams say which they are.
"""

from collections import Counter
from itertools import count, islice

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from pescador import ChainMux, RoundRobinMux, ShuffledMux, StochasticMux, Streamer

NAMES = "ABCDEFGH"
COLORS = plt.get_cmap("tab10").colors
activations = count()
open_now = set()  # numbers of activations


def samples(stream, length):
    """Yield the number of this stream and that of this activation, `length` times or (None) forever."""
    activation = next(activations)
    open_now.add(activation)
    try:
        for _ in count() if length is None else range(length):
            yield stream, activation
    finally:
        open_now.remove(activation)


def streams(*lengths):
    """Return a stream of each length, which may be None."""
    return [Streamer(samples, i, length) for i, length in enumerate(lengths)]


def show(axes, mux, n_streams, n_samples, title=None):
    """Draw a bar for each activation, and a dot for each sample."""
    activations = {}
    samples = iter(mux)
    for position, (stream, activation) in enumerate(islice(samples, n_samples)):
        activations.setdefault((stream, activation), []).append(position)
    still_open = set(open_now)
    samples.close()
    for (stream, activation), drawn in activations.items():
        end = n_samples if activation in still_open else drawn[-1] + 0.45
        axes.barh(
            stream,
            end - drawn[0] + 0.45,
            left=drawn[0] - 0.45,
            height=0.62,
            color=COLORS[stream],
            alpha=0.25,
        )
        axes.plot(drawn, [stream] * len(drawn), "o", markersize=2.6, color=COLORS[stream])
    axes.set_yticks(range(n_streams), NAMES[:n_streams])
    axes.set_ylim(n_streams - 0.4, -0.6)
    axes.set_xlim(-1, n_samples)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        axes.set_title(title, loc="left")


def save(figure, folder, name):
    """Save a figure for the pages."""
    figure.savefig(folder / f"{name}.svg")
    plt.close(figure)


def one(folder, name, mux, n_streams, n_samples):
    """Draw a mux in a figure of its own."""
    figure, axes = plt.subplots(figsize=(5.6, 0.9 + 0.2 * n_streams), layout="constrained")
    show(axes, mux, n_streams, n_samples)
    axes.set_xlabel("number of the sample")
    save(figure, folder, name)


def several(folder, name, muxes, n_streams, n_samples):
    """Draw muxes, which differ in one parameter, below each other."""
    size = 5.6, (0.55 + 0.17 * n_streams) * len(muxes) + 0.3
    figure, all_axes = plt.subplots(len(muxes), figsize=size, sharex=True, layout="constrained")
    for axes, (title, mux) in zip(all_axes, muxes.items(), strict=True):
        show(axes, mux, n_streams, n_samples, title)
    all_axes[-1].set_xlabel("number of the sample")
    save(figure, folder, name)


def draw_modes(folder):
    """Draw each mux in each mode."""
    endless = streams(*[None] * 6)
    one(folder, "shuffled", ShuffledMux(endless, random_state=0), 6, 60)
    for mode in ("with_replacement", "single_active"):
        mux = StochasticMux(endless, n_active=3, rate=8, mode=mode, random_state=3)
        one(folder, f"stochastic_{mode}", mux, 6, 100)
    finite = streams(*[14] * 6)
    mux = StochasticMux(finite, n_active=3, rate=None, mode="exhaustive", random_state=0)
    one(folder, "stochastic_exhaustive", mux, 6, 90)
    short = streams(8, 3, 5)
    several(
        folder,
        "round_robin",
        {
            f"mode={mode!r}": RoundRobinMux(short, mode=mode, random_state=0)
            for mode in ("exhaustive", "cycle", "permuted_cycle")
        },
        3,
        36,
    )
    several(
        folder,
        "chain",
        {f"mode={mode!r}": ChainMux(short, mode=mode) for mode in ("exhaustive", "cycle")},
        3,
        36,
    )


def draw_parameters(folder):
    """Draw what the parameters of StochasticMux do."""
    endless = streams(*[None] * 6)
    rates = {f"rate={rate}": StochasticMux(endless, 3, rate, random_state=1) for rate in (4, 16, None)}
    several(folder, "rate", rates, 6, 100)
    actives = {f"n_active={n}": StochasticMux(endless, n, 8, random_state=1) for n in (1, 3, 6)}
    several(folder, "n_active", actives, 6, 100)

    weights = np.array([8, 4, 2, 1, 1]) / 16
    mux = StochasticMux(streams(*[None] * 5), n_active=3, rate=8, weights=weights, random_state=0)
    drawn = Counter(stream for stream, _ in islice(mux, 50_000))
    figure, axes = plt.subplots(figsize=(5.6, 2), layout="constrained")
    axes.bar(np.arange(5) - 0.2, weights, 0.38, label="weights", color="0.75")
    axes.bar(
        np.arange(5) + 0.2,
        [drawn[i] / 50_000 for i in range(5)],
        0.38,
        label="share of 50,000 samples",
        color=COLORS[0],
    )
    axes.set_xticks(range(5), NAMES[:5])
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    save(figure, folder, "weights")

    figure, all_axes = plt.subplots(1, 3, figsize=(5.6, 1.9), sharex=True, sharey=True, layout="constrained")
    for axes, dist in zip(all_axes, ("constant", "poisson", "binomial"), strict=True):
        mux = StochasticMux(streams(*[None] * 4), n_active=2, rate=16, dist=dist, random_state=0)
        budgets = Counter(activation for _, activation in islice(mux, 100_000)).values()
        axes.hist(list(budgets), bins=np.arange(0.5, 36.5), density=True, color=COLORS[0])
        axes.set_title(dist)
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
    all_axes[1].set_xlabel("samples that a stream gives before it is replaced")
    all_axes[0].set_ylim(0, 0.2)
    save(figure, folder, "dist")


def main(folder):
    """Draw all figures of muxes."""
    with plt.rc_context({"font.size": 9, "axes.titlesize": 9, "svg.fonttype": "path"}):
        draw_modes(folder)
        draw_parameters(folder)
