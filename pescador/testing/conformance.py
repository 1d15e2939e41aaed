"""The conformance suite of backends.

Every test states one sentence of the contract in :mod:`pescador.backends.base`. None of them depends on
time: what a worker did is learned from its items, and from files to which it writes.
"""

from __future__ import annotations

import os
import threading
import traceback
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
import psutil

from ..core import Streamer
from ..exceptions import PescadorError, WorkerError
from ..mux import BaseMux, ChainMux, RoundRobinMux, ShuffledMux
from ..parallel import ParallelStreamer
from ..seeding import RNG
from . import sources
from .items import LARGE_BYTES, assert_same, sample_items

__all__ = ["BackendConformance"]


class BackendConformance:
    """Tests that every backend passes.

    Subclass it in a test module, with a name that begins with ``Test``, and set `backend`.

    Attributes
    ----------
    backend : str
        Name of the backend, as it was registered.
    options : dict
        Options for :class:`~pescador.ParallelStreamer`, besides those of a test.
    shares_files : bool
        Whether the workers see the files of this machine. What cannot be observed otherwise is skipped
        if they don't.

    Examples
    --------
    >>> from pescador.testing import BackendConformance
    >>> class TestThread(BackendConformance):
    ...     backend = 'thread'
    >>> TestThread().test_items_arrive_in_order()
    """

    backend: ClassVar[str]
    options: ClassVar[dict[str, Any]] = {}
    shares_files: ClassVar[bool] = True

    def parallel(self, stream: Any, **options: Any) -> ParallelStreamer[Any]:
        """Return a ParallelStreamer of `stream` on the backend under test."""
        return ParallelStreamer(stream, self.backend, **{**self.options, **options})

    def _needs_files(self) -> None:
        if not self.shares_files:
            import pytest

            pytest.skip("what a worker does is not observable: it does not share files with this process")

    def test_a_stream_goes_on_where_it_stood(self) -> None:
        """The state of a stream is that after the last item that was taken, here and elsewhere."""
        mux = ShuffledMux([Streamer(sources.numbers, 30) for _ in range(3)], random_state=0)
        for n_workers in (1, 2):
            with self.parallel(mux, n_workers=n_workers) as stream:
                items = stream.iterate(60)
                found = [next(items) for _ in range(25)]
                for going_on in (mux, stream):
                    going_on.load_state_dict(items.state_dict())
                    assert found + list(going_on.iterate(60)) == list(mux.iterate(60))

    # Items

    def test_items_arrive_in_order(self) -> None:
        """Items of one stream arrive in order, whatever the prefetch."""
        for prefetch in (None, 1, 2, 1000):
            with self.parallel(Streamer(sources.numbers, 500), prefetch=prefetch) as stream:
                assert list(stream) == list(range(500))

    def test_items_arrive_unchanged(self) -> None:
        """Items of all kinds arrive as they are."""
        expected = sample_items()
        with self.parallel(Streamer(sample_items)) as stream:
            items = list(stream)
        assert len(items) == len(expected)
        for item, other in zip(items, expected, strict=True):
            assert_same(item, other)

    def test_items_stay_what_they_are(self) -> None:
        """Items that the consumer keeps are not touched by later ones, nor by writing to others."""
        n = 40
        with self.parallel(Streamer(sources.arrays, n, LARGE_BYTES // 8), prefetch=4) as stream:
            items = list(stream)
            items[0]["x"][:] = -1
            items[n // 2]["x"][:] = -1
            again = list(stream)
        for i, item in enumerate(items):
            assert item["i"] == i
            assert (item["x"] == (-1 if i in (0, n // 2) else i)).all()
        assert all((item["x"] == i).all() for i, item in enumerate(again))

    def test_items_outlive_their_pool(self) -> None:
        """What was delivered is valid after the pool was closed."""
        with self.parallel(Streamer(sources.arrays, 3, LARGE_BYTES // 8)) as stream:
            items = list(stream)
        assert [int(item["x"].sum()) for item in items] == [i * (LARGE_BYTES // 8) for i in range(3)]

    # Bounds

    def test_max_iter_bounds_a_stream(self) -> None:
        """``iterate(n)`` gives n items, or fewer if there are no more."""
        with self.parallel(Streamer(sources.numbers, 10)) as stream:
            for n in (0, 1, 3, 9, 10, 11):
                assert list(stream.iterate(n)) == list(range(min(n, 10)))

    def test_max_iter_bounds_what_is_drawn(self) -> None:
        """``iterate(3)`` draws exactly 3 items from its source, and closes it."""
        self._needs_files()
        with TemporaryDirectory() as folder, self.parallel(Streamer(sources.recorded, 100, folder)) as stream:
            assert list(stream.iterate(3)) == [0, 1, 2]
            assert sources.drawn(folder) == [3]
            assert sources.closed(folder) == 1

    def test_nothing_runs_before_the_first_item_is_asked_for(self) -> None:
        """An iterator that was not asked for an item opens nothing."""
        self._needs_files()
        with TemporaryDirectory() as folder:
            with self.parallel(Streamer(sources.recorded, 100, folder)) as stream:
                items = stream.iterate()
                items.close()
                stream.iterate()
            assert sources.drawn(folder) == []

    def test_a_stream_runs_ahead_by_at_most_prefetch(self) -> None:
        """At most `prefetch` items are drawn that the consumer has not taken."""
        self._needs_files()
        for prefetch in (1, 2, 7):
            with TemporaryDirectory() as folder:
                source = Streamer(sources.recorded, 10**6, folder)
                with self.parallel(source, prefetch=prefetch) as stream:
                    items = stream.iterate()
                    for taken in range(1, 30):
                        next(items)
                        assert sources.drawn(folder)[0] <= taken + prefetch
                    # Another stream on the same worker gives this one all the time it could want.
                    assert len(list(stream.iterate(200))) == 200
                    assert sorted(sources.drawn(folder))[0] <= 29 + prefetch
                    items.close()

    # End, exception, close

    def test_a_stream_ends_once_and_for_all(self) -> None:
        """After its last item a stream ends, and stays ended."""
        with self.parallel(Streamer(sources.numbers, 2)) as stream:
            items = iter(stream)
            assert [next(items), next(items)] == [0, 1]
            assert next(items, "end") == "end"
            assert next(items, "end") == "end"

    def test_a_stream_may_be_empty(self) -> None:
        """A source without items is a stream without items."""
        with self.parallel(Streamer(sources.numbers, 0)) as stream:
            assert list(stream) == []
            assert list(stream.cycle()) == []

    def test_an_exception_comes_after_the_items_before_it(self) -> None:
        """What a source raises keeps its type, its arguments and where it was raised."""
        import pytest

        with self.parallel(Streamer(sources.raising, 5)) as stream:
            got: list[int] = []
            with pytest.raises(sources.PlannedError) as caught:
                got.extend(stream)
            assert got == list(range(5))
            assert (caught.value.args, caught.value.code) == (("on purpose", 5), 5)
            assert "in raising" in "".join(traceback.format_exception(caught.value))
            del caught

    def test_an_exception_leaves_the_pool_usable(self) -> None:
        """After an exception the next iteration works as the first did."""
        import pytest

        with self.parallel(Streamer(sources.raising, 3)) as stream:
            for _ in range(3):
                assert list(stream.iterate(3)) == [0, 1, 2]
                with pytest.raises(sources.PlannedError):
                    list(stream)

    def test_an_open_stream_raises_when_its_pool_is_closed(self) -> None:
        """A pool that is closed under a stream is not the end of the stream."""
        import pytest

        with self.parallel(Streamer(sources.numbers, 10**6)) as stream:
            items = iter(stream)
            assert next(items) == 0
            stream.close()
            with pytest.raises(PescadorError):
                list(items)

    def test_a_closed_iterator_ends(self) -> None:
        """An iterator that its consumer closed ends, and closes its source."""
        self._needs_files()
        with TemporaryDirectory() as folder:
            with self.parallel(Streamer(sources.recorded, 10**6, folder)) as stream:
                items = stream.iterate()
                assert next(items) == 0
                items.close()
                items.close()
                assert next(items, "end") == "end"
            assert sources.closed(folder) == 1

    def test_the_death_of_a_worker_raises(self) -> None:
        """A worker process that is killed raises WorkerError, and is replaced for the next iteration."""
        import pytest

        with self.parallel(Streamer(sources.blocked, os.getpid())) as stream:
            items = iter(stream)
            assert next(items) == 0
            pid = stream.stats()["workers"][0]["pid"]
            if pid is None:
                pytest.skip("a worker that is no process does not die")
            psutil.Process(pid).kill()
            with pytest.raises(WorkerError):
                next(items)
            assert list(stream.iterate(1)) == [0]

    # Life of a pool

    def test_a_pool_serves_epoch_after_epoch(self) -> None:
        """Every iteration starts the stream again."""
        with self.parallel(Streamer(sources.numbers, 20)) as stream:
            for _ in range(5):
                assert list(stream) == list(range(20))
            assert list(stream.cycle(50)) == [i % 20 for i in range(50)]

    def test_several_iterators_may_be_open_at_once(self) -> None:
        """Iterators of one pool do not disturb each other."""
        with self.parallel(Streamer(sources.numbers, 100), prefetch=3) as stream:
            iterators = [stream.iterate() for _ in range(5)]
            for i in range(50):
                assert [next(items) for items in iterators] == [i] * 5
            first, *others = iterators
            assert list(first) == list(range(50, 100))
            for items in others:
                assert next(items) == 50
                items.close()

    def test_threads_may_share_a_pool(self) -> None:
        """Each thread may have an iterator of its own."""
        with self.parallel(Streamer(sources.numbers, 300), prefetch=2) as stream:
            got: list[list[int]] = []
            threads = [threading.Thread(target=lambda: got.append(list(stream))) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert got == [list(range(300))] * 4

    def test_breaking_off_leaves_the_pool_usable(self) -> None:
        """Streams that are broken off, at any point, leave nothing that later ones would see."""
        with self.parallel(Streamer(sources.arrays, 50, 5000), prefetch=3) as stream:
            for n in (1, 2, 3, 4, 7, 20):
                for item in stream:
                    assert (item["x"] == item["i"]).all()
                    if item["i"] == n:
                        break
            assert [item["i"] for item in stream] == list(range(50))

    def test_a_pool_may_be_closed_at_any_time_and_again(self) -> None:
        """Closing before the first item, in the middle, at the end and twice is all the same."""
        stream = self.parallel(Streamer(sources.numbers, 10))
        stream.close()
        for n in (0, 1, 5, None):
            assert list(stream.iterate(n)) == list(range(10 if n is None else n))
            stream.close()
            stream.close()
        items = stream.iterate()
        next(items)
        stream.close()
        items.close()
        stream.close()

    def test_a_pool_that_is_forgotten_is_closed(self) -> None:
        """Nothing needs to be closed explicitly."""
        items = iter(self.parallel(Streamer(sources.numbers, 10**6)))
        assert next(items) == 0
        del items
        assert next(iter(self.parallel(Streamer(sources.numbers, 10)))) == 0

    # Muxes and seeds

    def test_a_mux_gives_what_it_gives_here(self) -> None:
        """With a seed, the items are those of the same mux without workers, for any number of them."""
        streams = [Streamer(sources.noise, 5 * i, RNG) for i in range(1, 6)]
        muxes: list[BaseMux[int]] = [
            ShuffledMux(streams, random_state=0),
            RoundRobinMux(streams, "permuted_cycle", random_state=1),
        ]
        for mux in muxes:
            expected = list(mux.iterate(200))
            for n_workers in (1, 2, 3):
                with self.parallel(mux, n_workers=n_workers, prefetch=4) as stream:
                    assert list(stream.iterate(200)) == expected
                    assert list(stream.iterate(200)) == expected

    def test_streams_on_several_workers_arrive_unchanged(self) -> None:
        """Streams that follow each other on several workers keep their items apart."""
        streams = [Streamer(sources.arrays, 20, 5000) for _ in range(4)]
        with self.parallel(ChainMux(streams), n_workers=2) as stream:
            items = list(stream)
        assert [item["i"] for item in items] == list(range(20)) * 4
        assert all((item["x"] == item["i"]).all() for item in items)

    def test_the_seed_of_the_consumer_governs(self) -> None:
        """A stream below no mux draws its seed from NumPy's global state, in the consumer."""
        drawn = []
        state = np.random.get_state()  # noqa: NPY002  # it is what is tested
        try:
            source = Streamer(sources.noise, 10, RNG)
            with self.parallel(source) as stream:
                for streamer, seed in ((source, 0), (stream, 0), (stream, 0), (stream, 1)):
                    np.random.seed(seed)  # noqa: NPY002  # as above
                    drawn.append(list(streamer) + list(streamer))
        finally:
            np.random.set_state(state)  # noqa: NPY002  # as above
        assert drawn[0] == drawn[1] == drawn[2] != drawn[3]

    # Statistics

    def test_statistics_count_what_was_delivered(self) -> None:
        """The workers and their open streams are listed, and their items counted."""
        with self.parallel(Streamer(sources.numbers, 25)) as stream:
            items = iter(stream)
            next(items)
            (open_stream,) = stream.stats()["workers"][0]["open_streams"]
            assert (open_stream["name"], open_stream["items"]) == ("Streamer(numbers, 25)", 1)
            list(items)
            stats = stream.stats()
            assert stats["workers"][0]["open_streams"] == []
            assert stats["items"] == 25
            assert len(stats["workers"]) == 1
            assert stats["streams"] == 0
            assert stats["consumer_wait"] >= 0
            assert stats["worker_wait"] >= 0
