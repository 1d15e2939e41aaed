import contextlib
import copy
import pickle
import sqlite3
import threading
from collections import OrderedDict
from types import MappingProxyType

import numpy as np
import pytest
from scipy import stats

from pescador import (
    RNG,
    ChainMux,
    DataError,
    PescadorError,
    Streamer,
    buffer_stream,
    cache,
    keras_tuples,
    tuples,
)
from pescador.describe import describe

from .streams import Counting

SECRET = 123456.75  # stands in data, and in no message


def batches_of(values, size, **options):
    return [batch["x"] for batch in buffer_stream(({"x": value} for value in values), size, **options)]


def same(array, expected):
    assert array.dtype == expected.dtype
    assert array.shape == expected.shape
    assert array.tolist() == expected.tolist()
    return True


# buffer_stream

STRUCTURED = np.dtype([("id", "i4"), ("name", "U3")])

STACKED = {
    "scalars": [1, 2, 3],
    "arrays": [np.arange(6.0).reshape(2, 3) + i for i in range(3)],
    "0-d": [np.array(i, dtype="f4") for i in range(3)],
    "zero-size": [np.empty((0, 4), "i2")] * 3,
    "lists": [[1, 2], [3, 4], [5, 6]],
    "Fortran order": [np.asfortranarray(np.arange(6).reshape(2, 3))] * 3,
    "strided": [np.arange(12)[::3]] * 3,
    "structured": [np.array((i, "abc"), STRUCTURED) for i in range(3)],
    "datetime64": [np.datetime64("2020-01-01", "s")] * 3,
    "strings": ["a", "abc", "ab"],
    "longer and longer strings": ["a", "abc", "abcde"],
    "bytes": [b"a", b"", b"abc"],
    "booleans": [True, False, True],
    "objects": [{"a": 1}, None, "x"],
    "ints, then a float": [1, 2, 2.5],
    "bool, int, complex": [True, 2, 3j],
    "unlike integers": [np.int8(1), np.uint8(200), np.int8(-3)],
    "int64 and float32": [np.int64(2**40), np.float32(0.5), np.int8(1)],
    "int and string": [np.int64(7), "x"],
    "promoted last": [np.zeros(3, "f4"), np.zeros(3, "f4"), np.ones(3, "f8") / 3],
}


@pytest.mark.parametrize("values", STACKED.values(), ids=STACKED.keys())
def test_a_batch_is_what_numpy_stack_gives(values):
    (batch,) = batches_of(values, len(values))
    assert same(batch, np.stack([np.asarray(value) for value in values]))


def test_a_batch_keeps_the_byte_order():
    (batch,) = batches_of([np.arange(3, dtype=">i4")] * 2, 2)
    assert same(batch, np.array([[0, 1, 2]] * 2, ">i4"))


@pytest.mark.parametrize("n", [1, 3])
def test_with_an_axis_a_batch_has_the_byte_order_that_numpy_concatenate_gives(n):
    values = [np.arange(3, dtype=">i4")] * n
    (batch,) = batches_of(values, n, axis=0)
    assert same(batch, np.concatenate(values))


def test_a_generator_may_fill_one_array_again_and_again():
    def reusing():
        value = np.empty(3)
        for i in range(4):
            value[:] = i
            yield {"x": value}

    batches = buffer_stream(reusing(), 2)
    assert [batch["x"][:, 0].tolist() for batch in batches] == [[0, 1], [2, 3]]


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
@pytest.mark.parametrize("lengths", [[2, 2, 2], [1, 5, 3], [4, 1, 1], [0, 3, 0], [0, 0, 0]])
def test_with_an_axis_a_batch_is_what_numpy_concatenate_gives(axis, lengths):
    def shape(length):
        shape = [2, 3, 4]
        shape[axis] = length
        return shape

    rng = np.random.default_rng(0)
    values = [rng.random(shape(length)) for length in lengths]
    values[2] = values[2].astype("c16")
    (batch,) = batches_of(values, 3, axis=axis)
    assert same(batch, np.concatenate(values, axis=axis))


def test_the_items_left_at_the_end_are_dropped_or_make_a_partial_batch():
    assert [batch.tolist() for batch in batches_of(range(5), 2)] == [[0, 1], [2, 3]]
    assert [batch.tolist() for batch in batches_of(range(5), 2, partial=True)] == [[0, 1], [2, 3], [4]]
    assert [batch.tolist() for batch in batches_of(range(4), 2, partial=True)] == [[0, 1], [2, 3]]
    assert batches_of([], 2, partial=True) == []
    values = [np.ones((2, 1)), np.ones((2, 4))]
    assert batches_of(values, 3, partial=True, axis=1)[0].shape == (2, 5)


def test_each_batch_has_keys_shapes_and_dtypes_of_its_own():
    items = [{"x": 1}, {"x": 2}, {"y": "a", "z": 0.5}, {"z": 1.5, "y": "b"}]
    first, second = buffer_stream(items, 2)
    assert list(first) == ["x"]
    assert same(second["y"], np.array(["a", "b"]))
    assert same(second["z"], np.array([0.5, 1.5]))


def test_a_batch_belongs_to_the_consumer_alone():
    value = np.zeros(3)
    first, second = batches_of([value, value], 1)
    first += 1
    assert value.sum() == second.sum() == 0
    assert first.flags.writeable


def test_batches_take_no_item_beyond_their_own():
    source = Counting(value={"x": 1})
    batches = buffer_stream(source, 4)
    assert source.opened == 0
    next(batches)
    assert source.taken == 4
    batches.close()
    assert source.running == 0


BAD_ITEMS = {
    "other shape": ({"x": np.full(3, SECRET)}, {"x": np.full((2, 2), SECRET)}, ["(3,)", "(2, 2)", "'x'"]),
    "another dimension": ({"x": np.full(3, SECRET)}, {"x": SECRET}, ["(3,)", "()", "float"]),
    "other keys": ({"x": SECRET}, {"y": np.full(2, SECRET, "f4")}, ["'x'", "'y'", "(2,)", "float32"]),
    "a key less": ({"x": SECRET, "y": 1}, {"x": SECRET}, ["'x'", "'y'"]),
    "ragged": ({"x": 1}, {"x": [[SECRET], [1, 2]]}, ["'x'", "list of 2"]),
    "no common dtype": (
        {"x": np.array([SECRET])},
        {"x": np.array([("1", SECRET)], "U1,f8")},
        ["'x'", "(1,)", "f1"],
    ),
    "no dict": ({"x": 1}, (SECRET, np.full(4, SECRET)), ["tuple of 2", "float", "(4,)", "float64"]),
}


@pytest.mark.parametrize(("first", "second", "shown"), BAD_ITEMS.values(), ids=BAD_ITEMS.keys())
def test_an_item_that_does_not_fit_raises_and_shows_its_form_but_not_its_data(first, second, shown):
    with pytest.raises(DataError) as caught:
        list(buffer_stream([first, second], 2))
    message = str(caught.value)
    assert [text for text in shown if text not in message] == []
    assert "123456" not in message


@pytest.mark.parametrize(
    ("values", "axis", "message"),
    [
        ([1, 2], 0, r"no axis 0.*\(\)"),
        ([np.ones(3), np.ones(3)], 1, r"no axis 1.*\(3,\)"),
        ([np.ones(3), np.ones(3)], -2, r"no axis -2.*\(3,\)"),
        ([np.ones((2, 3)), np.ones((3, 3))], 1, r"\(3, 3\).*\(2, "),
    ],
)
def test_an_axis_that_does_not_fit_raises(values, axis, message):
    with pytest.raises(DataError, match=message):
        batches_of(values, 2, axis=axis)


@pytest.mark.parametrize("size", [2, 2.0, np.float32(2), np.int8(2), np.array(2)])
def test_a_buffer_size_is_any_whole_number(size):
    assert [batch.tolist() for batch in batches_of(range(4), size)] == [[0, 1], [2, 3]]


@pytest.mark.parametrize("size", [0, -1, 2.5, "x", None, float("inf"), float("nan"), True])
def test_a_bad_buffer_size_raises_at_once(size):
    with pytest.raises(PescadorError, match=f"buffer_size.*got {size!r}"):
        buffer_stream([], size)


@pytest.mark.parametrize("axis", [1.5, "x"])
def test_a_bad_axis_raises_at_once(axis):
    with pytest.raises(PescadorError, match=f"axis.*got {axis!r}"):
        buffer_stream([], 2, axis=axis)


def test_batching_what_is_no_stream_raises_at_once():
    with pytest.raises(PescadorError, match="not a int"):
        buffer_stream(5, 2)


# tuples and keras_tuples

ITEMS = [{"x": 1, "y": 2, "z": 3}, {"x": 4, "y": 5, "z": 6}]


def test_tuples_gives_the_values_in_the_order_of_the_keys():
    assert list(tuples(ITEMS, "z", "x")) == [(3, 1), (6, 4)]
    assert list(tuples(ITEMS, "y")) == [(2,), (5,)]


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        ("x", "y", (1, 2)),
        (["x"], "y", ((1,), 2)),
        (["x", "z"], ("y", "x"), ((1, 3), (2, 1))),
        ("x", None, (1, None)),
        (None, "y", (None, 2)),
        ((key for key in "xy"), None, ((1, 2), None)),
    ],
)
def test_keras_tuples_gives_a_value_for_a_key_and_a_tuple_for_keys(inputs, outputs, expected):
    assert next(keras_tuples(ITEMS, inputs, outputs)) == expected


def test_keras_tuples_gives_weights_where_they_are_asked_for():
    assert next(keras_tuples(ITEMS, "x", "y", "z")) == (1, 2, 3)
    assert next(keras_tuples(ITEMS, "x", ["y", "x"], weights=["z", "z"])) == (1, (2, 1), (3, 3))


def test_tuples_pass_on_the_very_values():
    value = np.zeros(3)
    assert next(tuples([{"x": value}], "x"))[0] is value
    assert next(keras_tuples([{"x": value}], "x"))[0] is value


@pytest.mark.parametrize("call", [lambda: tuples(ITEMS), lambda: keras_tuples(ITEMS)])
def test_no_keys_raise_at_once(call):
    with pytest.raises(PescadorError, match="at least one key"):
        call()


@pytest.mark.parametrize("make", [lambda items: tuples(items, "w"), lambda items: keras_tuples(items, "w")])
@pytest.mark.parametrize("item", [{"x": np.full(3, SECRET)}, [np.full(3, SECRET)], SECRET, None])
def test_a_missing_key_raises_and_shows_the_form_of_the_item(make, item):
    with pytest.raises(DataError, match="no 'w' in") as caught:
        list(make([item]))
    assert describe(item) in str(caught.value)
    assert "123456" not in str(caught.value)


def test_a_missing_key_is_a_key_error_whose_message_is_readable():
    with pytest.raises(KeyError) as caught:
        list(tuples([{"x": 1}], "y"))
    assert isinstance(caught.value, DataError)
    assert str(caught.value) == "there is no 'y' in {'x': int}"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


# Items that are no dicts


class Row:
    """As rows of tables are: it has keys, and iterates over its values."""

    def __init__(self, **values):
        self.values = values

    def keys(self):
        return list(self.values)

    def __getitem__(self, key):
        return self.values[key]

    def __iter__(self):
        return iter(self.values.values())


def sqlite_rows(n):
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("create table t (x, y)")
        connection.executemany("insert into t values (?, ?)", [(i, 10.0 * i) for i in range(n)])
        return connection.execute("select x, y from t order by x").fetchall()


KEYED = {
    "dict": lambda: [{"x": i, "y": 10.0 * i} for i in range(4)],
    "dict subclass": lambda: [OrderedDict(x=i, y=10.0 * i) for i in range(4)],
    "Mapping": lambda: [MappingProxyType({"x": i, "y": 10.0 * i}) for i in range(4)],
    "row of one's own": lambda: [Row(x=i, y=10.0 * i) for i in range(4)],
    "sqlite3.Row": lambda: sqlite_rows(4),
    "pandas row": lambda: [row for _, row in pandas_frame(4).iterrows()],
}


def pandas_frame(n):
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame({"x": range(n), "y": [10.0 * i for i in range(n)]})


@pytest.mark.parametrize("make", KEYED.values(), ids=KEYED)
def test_an_item_is_anything_that_has_keys(make):
    items = make()
    first, second = buffer_stream(items, 2)
    assert (first["x"].tolist(), second["y"].tolist()) == ([0, 1], [20, 30])
    assert list(tuples(items, "y", "x"))[1:3] == [(10, 1), (20, 2)]
    assert list(keras_tuples(items, ["x"], "y"))[3] == ((3,), 30)
    with pytest.raises(KeyError, match=r"no 'z' in .*'x': .*'y': ") as caught:
        list(tuples(items, "z"))
    assert isinstance(caught.value, DataError)


@pytest.mark.parametrize("item", ["x", "xy", b"x", 5, None, [1], ("x", 1), np.zeros(3)])
def test_what_has_no_keys_is_no_item(item):
    with pytest.raises(DataError, match="buffer_stream takes dicts, but got"):
        list(buffer_stream([item], 1))
    with pytest.raises(DataError, match="no 'x' in"):
        list(tuples([item], "x"))


# cache


def test_with_a_probability_of_1_nothing_is_cached_or_copied():
    items = [threading.Lock() for _ in range(9)]
    assert list(cache(items, 5, prob=1, random_state=0)) == items


@pytest.mark.parametrize("n_cache", [1, 10, 10.0, np.int64(10)])
def test_a_cache_begins_with_n_cache_items_and_gives_new_ones_in_order(n_cache):
    items = list(cache(range(500), n_cache, prob=0.3, random_state=0))
    assert items[: int(n_cache)] == list(range(int(n_cache)))
    assert list(dict.fromkeys(items)) == list(range(500))


def test_a_stream_that_does_not_fill_the_cache_is_given_as_it_is():
    for n in (0, 3, 4):
        assert list(cache(range(n), 5, prob=0.5, random_state=0)) == list(range(n))


def test_the_sequence_of_a_cache_is_pinned():
    got = list(cache(range(8), 3, prob=0.5, random_state=0))
    assert got == [0, 1, 2, 0, 3, 2, 2, 2, 3, 3, 3, 1, 4, 5, 4, 4, 2, 4, 4, 6, 5, 7, 4, 5, 4]


def test_the_share_of_new_items_is_prob():
    n = 20_000
    n_replayed = len(list(cache(range(n), 5, prob=0.25, random_state=1))) - n
    # geometric: mean 3, variance 12 an item, and one more wait for the end; a false alarm beyond 5 sigma has
    # a probability of 6e-7
    assert abs(n_replayed - 3 * (n - 4)) < 5 * np.sqrt(12 * n)


def test_a_new_item_takes_the_place_of_a_random_one():
    # The first replay after the last of 24 items, from 4000 caches of 4
    counts = np.zeros(24)
    for seed in range(4000):
        items = cache(range(24), 4, prob=0.5, random_state=seed)
        while next(items) != 23:
            pass
        for item in items:
            counts[item] += 1
            break
    assert counts.sum() > 1800
    age = np.minimum(np.arange(24)[::-1], 20)  # replacements that each survived
    expected = 0.75**age / 4 * counts.sum()
    grouped = [np.append(values[12:], values[:12].sum()) for values in (counts, expected)]
    assert stats.chisquare(*grouped).pvalue > 1e-6  # the probability of a false alarm with other seeds


def test_a_cache_takes_an_item_when_it_gives_it_and_none_beyond():
    source, n_new = Counting(), 0
    items = cache(source, 4, prob=0.3, random_state=0)
    for _ in range(200):
        n_new += next(items) == n_new
        assert source.taken == n_new
    assert 4 < n_new < 100
    items.close()
    assert source.running == 0


def test_an_item_that_cannot_be_copied_is_refused_by_its_form():
    with pytest.raises(DataError, match=r"'lock': lock.*cannot be copied: TypeError"):
        list(cache([{"lock": threading.Lock()}], 2))


def test_writing_into_a_delivered_item_does_not_change_its_replays():
    for item in cache(({"x": np.zeros(2)} for _ in range(50)), 5, prob=0.5, random_state=0):
        assert item["x"].sum() == 0
        item["x"] += 1


@pytest.mark.parametrize("n_cache", [0, -1, 1.5, "x"])
def test_a_bad_n_cache_raises_at_once(n_cache):
    with pytest.raises(PescadorError, match=f"n_cache.*got {n_cache!r}"):
        cache([], n_cache)


@pytest.mark.parametrize("prob", [0, 0.0, 1.5, -0.1, float("nan"), "x", None])
def test_a_bad_prob_raises_at_once(prob):
    with pytest.raises(PescadorError, match=f"prob.*got {prob!r}"):
        cache([], 3, prob)


# In recipes


def test_maps_in_a_recipe_restart_with_it():
    mux = ChainMux([[{"x": 1}, {"x": 2}], [{"x": 3}]])
    stream = Streamer(tuples, Streamer(buffer_stream, mux, 3), "x")
    for _ in range(2):
        assert [values[0].tolist() for values in stream.cycle(2)] == [[1, 2, 3], [1, 2, 3]]
    assert next(iter(copy.deepcopy(stream)))[0].tolist() == [1, 2, 3]


def test_cache_in_a_recipe_takes_its_randomness_from_the_tree():
    mux = ChainMux([Streamer(cache, range(30), 5, random_state=RNG)] * 2, random_state=3)
    assert list(mux) == list(mux)
    assert list(mux) != list(ChainMux(mux.streamers, random_state=4))
