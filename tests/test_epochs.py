"""Epochs: every iter() is the next epoch, of a given length, and can be saved in the middle."""

import copy
import gc
import json
import pickle
from itertools import chain, islice

import numpy as np
import pytest

import pescador
from pescador import RNG, Epochs, ParallelStreamer, PescadorError, ShuffledMux, StochasticMux, Streamer

from .streams import Counting, failing, noise, numbers

KINDS = {
    "int": lambda: 7,
    "Generator": lambda: np.random.default_rng(7),
    "RandomState": lambda: np.random.RandomState(7),
    "SeedSequence": lambda: np.random.SeedSequence(7),
    "None": lambda: None,
}


def once(random_state=0, n=3):
    """Return a mux that gives 2 * n numbers, and ends."""
    streams = [Streamer(noise, n, RNG) for _ in range(2)]
    return StochasticMux(streams, 2, None, mode="exhaustive", random_state=random_state)


def doubled(stream):
    for item in stream:
        yield 2 * item


def trees(random_state):
    return {"mux": once(random_state), "map": Streamer(doubled, once(random_state))}


def background(stream, backend):
    return stream if backend is None else ParallelStreamer(stream, backend)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tree", ["mux", "map"])
def test_epochs_are_those_of_cycle_whatever_the_random_state(kind, tree):
    np.random.seed(3)  # noqa: NPY002 -- what governs without a random_state
    epochs = Epochs(trees(KINDS[kind]())[tree])
    found = [list(epochs) for _ in range(4)]
    np.random.seed(3)  # noqa: NPY002 -- as above
    assert list(chain.from_iterable(found)) == list(trees(KINDS[kind]())[tree].cycle(24))
    assert len({tuple(epoch) for epoch in found}) == 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tree", ["mux", "map"])
def test_without_advance_all_are_the_first(kind, tree):
    epochs = Epochs(trees(KINDS[kind]())[tree], 9, advance=False)
    first = list(epochs)
    epochs.set_epoch(5)  # as frameworks do, for validation, too
    assert list(epochs) == first
    assert len(set(first)) > 1


def test_without_a_random_state_the_global_one_at_the_first_epoch_governs():
    def epochs_after(*seeds):
        epochs = Epochs(once(None))
        for seed in seeds:
            np.random.seed(seed)  # noqa: NPY002 -- it is about that
            yield list(epochs)

    assert list(epochs_after(1, 2, 3)) == list(epochs_after(1, 5, 6))
    assert list(epochs_after(1)) != list(epochs_after(2))


@pytest.mark.parametrize("backend", [None, "thread", "shm"])
@pytest.mark.parametrize("length", [4, 6, 15])
def test_an_epoch_has_exactly_its_length(backend, length):
    with Epochs(background(once(), backend), length) as epochs:
        assert len(epochs) == length
        found = [list(epochs) for _ in range(3)]
    assert [len(epoch) for epoch in found] == [length] * 3
    assert len({tuple(epoch) for epoch in found}) == 3
    assert [epoch[:6] for epoch in found] == [list(once().iterate(length, epoch=e))[:6] for e in range(3)]


def test_all_passes_of_all_epochs_are_different():
    epochs = Epochs(once(), 18)
    assert (
        len({tuple(items[k : k + 6]) for items in (list(epochs) for _ in range(4)) for k in (0, 6, 12)}) == 12
    )


def test_no_more_is_taken_than_the_length():
    source = Counting()
    epochs = Epochs(source, 5)
    items = iter(epochs)
    assert source.opened == 0
    assert list(items) == list(range(5))
    assert (source.taken, source.running) == (5, 0)


def test_without_a_length_there_is_no_len():
    with pytest.raises(TypeError, match=r"Epochs\(stream, 1000\)"):
        len(Epochs([1]))


@pytest.mark.parametrize("length", [0, -1, 2.5, "3"])
def test_a_length_that_cannot_be_raises(length):
    with pytest.raises(PescadorError, match="length"):
        Epochs([1], length)


def test_a_stream_that_gives_nothing_cannot_fill_an_epoch():
    assert list(Epochs([])) == []
    with pytest.raises(PescadorError, match="to have 3 items, but after 0 of them"):
        list(Epochs(Streamer(numbers, 0), 3))


def test_set_epoch_and_an_epoch_that_is_broken_off():
    epochs = Epochs(once())
    found = [list(epochs) for _ in range(4)]
    epochs.set_epoch(1)
    assert list(epochs) == found[1]
    next(iter(epochs))
    assert epochs.epoch == 3
    assert list(epochs) == found[3]


def test_several_iterators_each_give_their_own_epoch():
    found = [list(epochs) for epochs in [Epochs(once(), 9)] for _ in range(3)]
    epochs = Epochs(once(), 9)
    assert list(zip(*[iter(epochs) for _ in range(3)], strict=True)) == list(zip(*found, strict=True))


@pytest.mark.parametrize("backend", [None, "shm"])
@pytest.mark.parametrize("is_closed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_state_goes_on_with_the_item_that_would_have_come(kind, is_closed, backend):
    np.random.seed(3)  # noqa: NPY002 -- what governs without a random_state
    expected = [list(epochs) for epochs in [Epochs(once(KINDS[kind]()), 9)] for _ in range(4)]
    for epoch, n in [(0, 1), (0, 6), (1, 4), (1, 8), (1, 9)]:
        np.random.seed(3)  # noqa: NPY002 -- as above
        with Epochs(background(once(KINDS[kind]()), backend), 9) as epochs:
            for _ in range(epoch):
                list(epochs)
            items = iter(epochs)
            assert list(islice(items, n)) == expected[epoch][:n]
            if is_closed:
                items.close()
            state = json.loads(json.dumps(epochs.state_dict()))
        np.random.seed(4)  # noqa: NPY002 -- which must not matter
        later = Epochs(once(KINDS[kind]()), 9)
        later.load_state_dict(state)
        assert later.state_dict() == state
        later.set_epoch(epoch + (n == 9))  # which a framework calls, and it changes nothing
        items = list(chain.from_iterable(list(later) for _ in range(2)))
        assert items == list(chain.from_iterable(expected[epoch:]))[n:][: len(items)]
        assert len(items) == (18 if n == 9 else 18 - n)


def test_a_state_of_the_beginning_and_of_an_end():
    expected = [list(epochs) for epochs in [Epochs(once())] for _ in range(2)]
    epochs = Epochs(once())
    for n in range(2):
        later = Epochs(once())
        later.load_state_dict(json.loads(json.dumps(epochs.state_dict())))
        assert list(later) == expected[n]
        list(epochs)


def test_a_state_of_another_stream_or_of_none_raises():
    state = Epochs(once()).state_dict()
    with pytest.raises(PescadorError, match="not of"):
        Epochs(Streamer(noise, 3, RNG)).load_state_dict(state)
    with pytest.raises(PescadorError, match="is the dict"):
        Epochs(once()).load_state_dict(once().state_dict())
    with pytest.raises(PescadorError, match="another form"):
        Epochs(once()).load_state_dict({**state, "form": 99})


def test_an_error_of_the_stream_comes_through_and_the_next_epoch_is_the_next():
    epochs = Epochs(Streamer(failing, 2, OSError))
    items = iter(epochs)
    assert list(islice(items, 2)) == [0, 1]
    with pytest.raises(OSError, match="broken"):
        next(items)
    with pytest.raises(PescadorError, match="has raised"):
        epochs.state_dict()
    assert epochs.epoch == 1
    assert next(iter(epochs)) == 0


def test_close_closes_what_is_open_and_the_workers():
    source = Counting()
    with Epochs(source) as epochs:
        items = iter(epochs)
        next(items)
        assert source.running == 1
    assert source.running == 0
    parallel = ParallelStreamer(ShuffledMux([Streamer(numbers, 5)]), "shm")
    with Epochs(parallel, 3) as epochs:
        list(epochs)
        assert parallel.stats()["workers"]
    assert not parallel.stats()["workers"]


def test_what_is_broken_off_is_closed_at_once():
    source = Counting()
    for _ in Epochs(source):
        break
    gc.collect()
    assert source.running == 0


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda epochs: pickle.loads(pickle.dumps(epochs))])
def test_a_copy_begins_with_the_next_epoch(duplicate):
    epochs = Epochs(once())
    items = iter(epochs)
    next(items)
    assert list(duplicate(epochs)) == list(epochs)


def test_epochs_within_a_generator_follow_its_seed():
    def three(stream):
        epochs = Epochs(stream)
        for _ in range(3):
            yield list(epochs)

    stream = pescador.ChainMux([Streamer(three, once(None))], random_state=0)
    assert list(stream) == list(stream)
    assert len(set(map(tuple, stream))) == 3


def test_what_is_shown():
    assert repr(Epochs("ab", 3, advance=False)) == "Epochs(Streamer('ab'), 3, advance=False)"
