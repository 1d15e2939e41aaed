"""Calls of the public interface that only mypy reads, and accepts all of them with --strict."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import pescador


def numbers(n: int, start: int = 0) -> Generator[int, None, None]:
    yield from range(start, start + n)


@pescador.streamable
def texts(n: int) -> Iterator[str]:
    yield from map(str, range(n))


def samples(rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    yield {"x": rng.random()}


def streamers() -> None:
    stream: pescador.Streamer[int] = pescador.Streamer(numbers, 5, start=1)
    from_iterable: pescador.Streamer[str] = pescador.Streamer(["a", "b"])
    nested: pescador.Streamer[int] = pescador.Streamer(stream)
    limited: pescador.Streamer[int] = pescador.Streamer(stream, max_iter=3, cycle=True)
    factory: pescador.Streamer[str] = texts(5)
    item: int = next(stream.iterate(1e2))
    item = next(nested.cycle(max_iter=5))
    for item in stream(max_iter=3, cycle=True):
        print(item + 1)
    text: str = next(iter(factory))
    text = next(from_iterable())
    item = next(iter(limited))
    with stream as active:
        running: Iterator[int] | None = active.stream_
    print(text, running, stream.active, stream.active_count_, stream.is_activated_copy)
    pescador.Streamer(samples, rng=pescador.RNG)


def muxes() -> None:
    stream = pescador.Streamer(numbers, 5)
    shuffled: pescador.ShuffledMux[int] = pescador.ShuffledMux(
        [stream, range(3)], weights=[1, 2], random_state=0
    )
    shuffled.weights = np.ones(2)
    shuffled.weights = [1, 2]
    shuffled.weights = None
    weights: npt.NDArray[np.float64] | None = shuffled.weights
    item: int = next(iter(shuffled))
    stochastic: pescador.StochasticMux[int] = pescador.StochasticMux(
        [stream],
        1,
        rate=None,
        weights=np.array([1]),
        mode="exhaustive",
        prune_empty_streams=False,
        random_state=np.random.default_rng(0),
        dist="binomial",
    )
    robin: pescador.RoundRobinMux[int] = pescador.RoundRobinMux(
        [stochastic], "permuted_cycle", np.random.RandomState(0)
    )
    chain: pescador.ChainMux[int] = pescador.ChainMux((s for s in [stream]), mode="cycle")
    old: pescador.Mux[int] = pescador.Mux([robin], k=1, revive=True, with_replacement=False)
    mux: pescador.BaseMux[int] = chain
    members: list[pescador.Streamer[int]] = old.streamers
    item = next(pescador.RoundRobinMux([stream, old]).iterate())
    print(weights, item, mux.n_streams, members)


class FirstMux(pescador.BaseMux[int]):
    def samples(self) -> Iterator[int]:
        rng: np.random.Generator = self.generator()
        stream = self.open_stream(int(rng.integers(self.n_streams)), 0, max_iter=3)
        with self.closing([stream]):
            yield from stream


def maps() -> None:
    stream = pescador.Streamer(samples, pescador.RNG)
    batch: dict[str, npt.NDArray[Any]] = next(pescador.buffer_stream(stream, 16, partial=True, axis=-1))
    pair: tuple[Any, Any] = next(pescador.keras_tuples(stream, inputs=["x"], outputs="y"))
    weighted: tuple[Any, ...] = next(pescador.keras_tuples(stream, "x", "y", weights="w"))
    values: tuple[Any, ...] = next(pescador.tuples(stream, "x", "y"))
    sample: dict[str, Any] = next(pescador.cache(stream, 100, prob=0.3, random_state=0))
    batches = pescador.Streamer(pescador.buffer_stream, stream, 16)
    array: npt.NDArray[Any] = pescador.empty((2, 3), dtype=np.float32, order="F")
    print(batch, pair, weighted, values, sample, array, next(iter(batches))["x"].shape)


def sources() -> None:
    data = {"x": np.zeros((5, 2)), "y": np.zeros(5)}
    row: dict[str, Any] = next(pescador.rows(data, rng=np.random.default_rng(0)))
    batch: dict[str, Any] = next(pescador.rows("a.npz", 16, rng=0, keys=["x", "y"]))
    patch: dict[str, Any] = next(pescador.patches(Path("a.h5"), 8, -1, rng=None, keys="x", pad={"x": 0.5}))
    from_files = pescador.Streamer(
        pescador.patches, {"x": Path("a.npy")}, 8, rng=pescador.RNG, skip_short=True
    )
    safe = pescador.Streamer(pescador.skip_errors, from_files, OSError, pescador.DataError)
    item: int = next(pescador.skip_errors(pescador.Streamer(numbers, 5), ValueError))
    print(row, batch, patch, next(iter(safe)), item)


def epochs(stream: pescador.Streamer[int]) -> dict[str, Any]:
    with pescador.Epochs(stream, 10, advance=False) as of_length:
        item: int = next(iter(of_length))
    every: pescador.Epochs[str] = pescador.Epochs(["a", "b"])
    every.set_epoch(item)
    every.load_state_dict(every.state_dict())
    print(len(of_length), every.epoch, every.stream)
    return every.state_dict()


def ranks(stream: pescador.Streamer[int]) -> None:
    part: pescador.Streamer[int] = pescador.shard(stream, 0, 2)
    robin: pescador.Streamer[str] = pescador.shard(pescador.RoundRobinMux(["ab", "cd"]), 1, 2, by="stream")
    letters: pescador.Streamer[str] = pescador.shard("abcd", rank=1, world=2)
    print(part, robin, letters)


def checks() -> bool:
    report = pescador.check(pescador.Streamer(samples, pescador.RNG), n=10, seconds=5)
    causes: list[str] = [finding.cause for finding in report.findings if finding.level == "error"]
    print(report, causes)
    return report.ok


def origins(stream: pescador.Streamer[int]) -> str:
    items = stream.iterate()
    print(next(items), pescador.replay(items.origin()))
    steps = [(step.name, step.index, step.activation, step.epoch) for step in items.origin().way]
    return f"{steps} {items.origin()}"


def errors(error: pescador.PescadorError) -> str:
    if isinstance(error, pescador.DataError | pescador.WorkerError):
        return str(error)
    return repr(error)
