import copy
import functools
import inspect
import math
import pickle
import threading

import numpy as np
import pytest

import pescador
from pescador import RNG, ChainMux, PescadorError, ShuffledMux, StochasticMux, Streamer

from .streams import Caller, Counting, constant, countdown, letters, noise, numbers

SOURCES = {
    "range": Streamer(range(5)),
    "list": Streamer([0, 1, 2, 3, 4]),
    "generator function": Streamer(numbers, 5),
    "keywords": Streamer(numbers, n=5, start=0),
    "partial": Streamer(functools.partial(numbers, start=0), 5),
    "bound method": Streamer(Caller().method, 5),
    "callable object": Streamer(Caller(), 5),
    "class": Streamer(range, 5),
    "function that returns a list": Streamer(sorted, [3, 1, 4, 2, 0]),
    "Streamer": Streamer(Streamer(numbers, 5)),
    "mux": Streamer(ChainMux([[0, 1], [2, 3, 4]])),
    "function that takes a Streamer": Streamer(list, Streamer(numbers, 5)),
    "reiterable": Streamer(Counting(5)),
}


@pytest.mark.parametrize("stream", SOURCES.values(), ids=SOURCES.keys())
def test_every_kind_of_source_can_be_opened_again_and_again(stream):
    for _ in range(2):
        assert list(stream) == list(stream.iterate()) == list(stream()) == [0, 1, 2, 3, 4]
    assert list(stream.iterate(3)) == list(stream(3)) == list(stream(max_items=3)) == [0, 1, 2]
    assert list(stream.cycle(7)) == list(stream(7, cycle=True)) == [0, 1, 2, 3, 4, 0, 1]
    assert stream.active == 0


@pytest.mark.parametrize("source", [5, None, 2.5, object()])
def test_a_source_that_is_no_iterable_and_no_function_is_refused_by_name(source):
    with pytest.raises(PescadorError, match=f"not .*{type(source).__name__}"):
        Streamer(source)


@pytest.mark.parametrize("source", [[1, 2], "abc"])
def test_arguments_for_an_iterable_are_refused(source):
    with pytest.raises(PescadorError, match="arguments were given"):
        Streamer(source, 3)


def test_a_function_that_does_not_yield_is_refused_when_it_is_opened():
    with pytest.raises(PescadorError, match=r"lambda.*returned 3 of type int.*yield"):
        list(Streamer(lambda: 3))


@pytest.mark.parametrize(
    ("max_iter", "n"),
    [
        (0, 0),
        (7, 7),
        (1e2, 100),
        (np.int64(7), 7),
        (np.float32(7), 7),
        (np.float64(7), 7),
        (np.uint8(7), 7),
        (np.array(7), 7),
    ],
)
def test_max_iter_takes_every_whole_number(max_iter, n):
    stream = Streamer(constant, 1)
    assert len(list(stream.iterate(max_iter))) == len(list(stream.cycle(max_iter))) == n


@pytest.mark.parametrize("infinity", [None, math.inf, np.inf, np.float32("inf")])
def test_infinity_is_no_limit(infinity):
    assert list(Streamer(range(3)).iterate(infinity)) == list(Streamer(range(3))(infinity)) == [0, 1, 2]
    assert list(Streamer(Streamer(range(3)), infinity)) == [0, 1, 2]
    items = Streamer(range(3)).cycle(infinity)
    assert [next(items) for _ in range(100)][-2:] == [2, 0]


@pytest.mark.parametrize(
    "max_iter", [2.5, -1, -1.0, "x", -math.inf, math.nan, [3], True, np.int64(-1), np.array([1, 2])]
)
@pytest.mark.parametrize("method", ["iterate", "cycle", "__call__"])
def test_any_other_max_iter_raises_before_the_first_item(method, max_iter):
    with pytest.raises(PescadorError, match=r"max_iter.*got .") as caught:
        getattr(Streamer(range(3)), method)(max_iter)
    assert repr(max_iter) in str(caught.value)


@pytest.mark.parametrize("cycle", ["x", 2, None, 0.5])
def test_cycle_is_true_or_false(cycle):
    with pytest.raises(PescadorError, match="cycle must be True or False, got"):
        Streamer(range(3))(5, cycle)


def test_max_iter_and_max_items_together_raise():
    with pytest.raises(PescadorError, match="max_iter and max_items"):
        Streamer(range(3))(2, max_items=2)


@pytest.mark.parametrize("stream", [Streamer([]), ChainMux([[]]), ShuffledMux([[], []]), Streamer(iter(()))])
def test_cycle_over_nothing_ends(stream):
    assert list(stream.cycle()) == []


def test_a_one_shot_iterator_continues_where_it_was_left():
    stream = Streamer(numbers(6))
    assert [list(stream(2)), list(stream(2)), list(stream), list(stream)] == [[0, 1], [2, 3], [4, 5], []]
    assert list(Streamer(iter(range(3))).cycle()) == [0, 1, 2]


@pytest.mark.parametrize("ship", [pickle.dumps, copy.deepcopy])
@pytest.mark.parametrize("iterator", [numbers(3), iter([1, 2])], ids=["generator", "list iterator"])
def test_shipping_a_one_shot_iterator_names_the_fix(ship, iterator):
    with pytest.raises(PescadorError, match=r"Streamer\(buffer_stream, stream, 16\)"):
        ship(Streamer(iterator))


# Activation


def test_an_activated_copy_holds_the_iterator_and_is_counted():
    stream = Streamer(numbers, 3)
    with stream as active:
        assert active.is_activated_copy
        assert not stream.is_activated_copy
        assert stream.stream_ is None
        assert stream.active == stream.active_count_ == active.active_count_ == 1
        assert next(active.stream_) == 0
        with stream as second:
            assert stream.active == 2
            assert next(second.stream_) == 0
        assert next(active.stream_) == 1
    assert stream.active == 0
    assert active.stream_ is None


def test_iterations_count_as_activations_while_they_run():
    stream = Streamer(range(3))
    first, second = stream.iterate(), stream.cycle()
    assert stream.active == 0
    next(first), next(second)
    assert stream.active == 2
    first.close(), second.close()
    assert stream.active == 0


def test_a_with_block_leaves_an_iteration_that_began_inside_it_alone():
    stream = Streamer(range(3))
    with stream:
        items = iter(stream)
        assert next(items) == 0
    assert list(items) == [1, 2]


def test_with_blocks_of_two_threads_end_in_any_order():
    stream = Streamer(range(3))
    entered, leave = threading.Event(), threading.Event()
    rest = []

    def other():
        with stream as active:
            entered.set()
            leave.wait()
            rest.extend(active.stream_)

    thread = threading.Thread(target=other)
    with stream as active:
        thread.start()
        entered.wait()
    assert active.stream_ is None
    leave.set()
    thread.join()
    assert rest == [0, 1, 2]


def test_interleaved_iterations_share_no_state():
    stream = Streamer(numbers, 3)
    assert list(zip(stream, stream, strict=True)) == [(0, 0), (1, 1), (2, 2)]


@pytest.mark.parametrize("refused", [copy.copy, copy.deepcopy, pickle.dumps])
def test_an_activated_copy_refuses_to_be_copied_or_pickled(refused):
    with Streamer(numbers, 3) as active, pytest.raises(PescadorError, match="activated copy of a Streamer"):
        refused(active)


def test_activation_copies_no_array():
    huge = np.zeros(2**27)  # 1 GB that is never touched

    def give_back(array, by_name, nested):
        yield array, by_name, nested[0]

    stream = Streamer(give_back, huge, by_name=huge, nested=[huge, RNG])
    for items in (stream, stream.cycle(1), ChainMux([stream]), copy.copy(stream)):
        one, *others = next(iter(items))
        assert all(array is one for array in others)
        assert one.base is huge


def test_a_generator_is_closed_when_its_iteration_is_broken_off():
    source = Counting()
    items = ChainMux([Streamer(Streamer(source))]).iterate()
    next(items)
    assert source.running == 1
    items.close()
    assert source.running == 0


def test_an_error_in_a_generator_reaches_the_consumer_and_closes_the_rest():
    def fail():
        yield 1
        raise KeyError("lost")

    other = Counting()
    stream = pescador.RoundRobinMux([other, Streamer(fail)])
    with pytest.raises(KeyError, match="lost"):
        list(stream)
    assert (other.running, stream.active) == (0, 0)


def test_a_new_type_of_stream_overrides_activate():
    class Doubled(Streamer):
        def _activate(self):
            super()._activate()
            self.stream_ = (2 * item for item in self.stream_)

    stream = Doubled(numbers, 3)
    assert list(stream) == [0, 2, 4]
    assert list(ChainMux([stream, stream])) == [0, 2, 4, 0, 2, 4]


# Copies

RECIPES = {
    "Streamer": Streamer(numbers, 5),
    "with RNG": Streamer(ChainMux([Streamer(noise, 5, rng=RNG)], random_state=1)),
    "streamable": countdown(5),
    "ShuffledMux": ShuffledMux(letters(2, 3), weights=[1, 2], random_state=1),
    "StochasticMux": StochasticMux(letters(2, 3), 1, 2, weights=[1, 2], random_state=1),
    "nested": Streamer(pescador.buffer_stream, ChainMux([[{"x": 1}], [{"x": 2}]]), 2),
}


def show(stream):
    return [str(item) for item in stream.iterate(20)]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("stream", RECIPES.values(), ids=RECIPES.keys())
def test_a_pickled_recipe_gives_the_same_stream(stream, protocol):
    shipped = pickle.loads(pickle.dumps(stream, protocol))
    assert type(shipped) is type(stream)
    assert show(shipped) == show(stream)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
@pytest.mark.parametrize("stream", RECIPES.values(), ids=RECIPES.keys())
def test_a_copied_recipe_gives_the_same_stream(stream, duplicate):
    running = iter(stream)  # an open iteration belongs to the original alone
    next(running)
    copied = duplicate(stream)
    assert copied.active == 0
    running.close()
    assert show(duplicate(copied)) == show(duplicate(stream))


def test_a_shallow_copy_shares_arguments_and_a_deep_copy_does_not():
    stream = Streamer(list, [1, 2])
    assert copy.copy(stream).args[0] is stream.args[0]
    assert copy.deepcopy(stream).args[0] is not stream.args[0]


# streamable and repr


def test_streamable_keeps_signature_name_and_docstring():
    assert inspect.signature(countdown) == inspect.signature(lambda n, step=1: None)
    assert (countdown.__name__, countdown.__doc__) == ("countdown", "Count down from n.")
    assert isinstance(countdown(5), Streamer)
    assert list(countdown(5, step=2)) == [5, 3, 1]


def test_streamable_takes_only_a_function():
    with pytest.raises(PescadorError, match="not 3"):
        pescador.streamable(3)


def test_repr_names_the_recipe_and_shows_no_data():
    assert (
        repr(Streamer(numbers, 5, RNG, start=RNG)) == "Streamer(numbers, 5, pescador.RNG, start=pescador.RNG)"
    )
    shown = repr(Streamer(numbers, 5, start=np.zeros(9)))
    assert shown == "Streamer(numbers, 5, start=<ndarray>)"
    assert repr(countdown(5)) == "Streamer(countdown, 5)"
