"""Random rows and patches of arrays, and streams that may fail. Of reading files, see test_files.py."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pescador import (
    RNG,
    ChainMux,
    DataError,
    ParallelStreamer,
    PescadorError,
    ShuffledMux,
    StochasticMux,
    Streamer,
    buffer_stream,
    patches,
    rows,
)
from pescador.testing import assert_same

from .kinds import every_backend
from .laws.items import DTYPES, arrange, fill

NO_FALSE_ALARM = 1e-6  # probability with which a statistical test would fail for some other seed


def take(n, stream):
    return list(islice(stream, n))


def assert_equal(value, expected):
    with np.errstate(invalid="ignore"):  # some of what fills long doubles is no number
        assert_same(value, expected)


def assert_own(value, source):
    assert not np.shares_memory(value, source)
    if isinstance(value, np.ndarray):
        assert value.flags.writeable
        assert value.flags.aligned


arrays = st.builds(
    lambda dtype, shape, how, seed: lambda n: arrange(fill(dtype, (n, *shape), seed), how, seed),
    DTYPES,
    st.sampled_from([(), (1,), (3,), (2, 3), (0, 2), (3000,)]),
    st.sampled_from(["plain", "F", "strided", "reversed", "unaligned", "readonly", "masked", "tagged"]),
    st.integers(0, 9),
)
seeds = st.integers(0, 2**32)


# rows


@given(st.lists(arrays, min_size=1, max_size=3), st.integers(1, 6), seeds)
def test_a_row_is_one_row_of_all_arrays(makers, n_rows, seed):
    data = {f"key {i}": make(n_rows) for i, make in enumerate(makers)} | {"i": np.arange(n_rows)}
    for row in take(5, rows(data, rng=seed)):
        assert list(row) == list(data)
        for key, array in data.items():
            assert_equal(row[key], array[row["i"]])
            assert_own(row[key], array)


@given(st.lists(arrays, min_size=1, max_size=3), st.integers(1, 6), st.integers(1, 7), seeds)
def test_a_batch_has_the_rows_that_come_one_by_one_without_n(makers, n_rows, n, seed):
    data = {f"key {i}": make(n_rows) for i, make in enumerate(makers)} | {"i": np.arange(n_rows)}
    batches = take(4, rows(data, n, rng=seed))
    for batch in batches:
        for key, array in data.items():
            assert_equal(batch[key], array.copy()[batch["i"]])
            assert_own(batch[key], array)
    alone = [row["i"] for row in take(4 * n, rows(data, rng=seed))]
    assert [i for batch in batches for i in batch["i"]] == alone


@pytest.mark.parametrize("n", [None, 7, 7.0])
def test_all_rows_are_equally_likely(n):
    drawn = np.concatenate([np.atleast_1d(row) for row in take(3000, rows(np.arange(50), n, rng=0))])
    assert stats.chisquare(np.bincount(drawn, minlength=50)).pvalue > NO_FALSE_ALARM


def test_the_sequence_of_a_seed_is_pinned():
    assert take(20, rows(np.arange(100), rng=0)) == [
        *(85, 63, 51, 26, 30, 4, 7, 1, 17, 81, 64, 91, 50, 60, 97, 72, 63, 54, 55, 93)
    ]


def test_an_array_alone_gives_arrays():
    data = np.arange(12).reshape(4, 3)
    assert next(rows(data, rng=0)).tolist() in data.tolist()
    assert next(rows(data.tolist(), 2, rng=0)).shape == (2, 3)
    assert next(patches(data, 2, rng=0)).shape == (2, 3)


def test_rows_of_objects_are_the_objects():
    data = np.empty(2, object)
    data[:] = [[1], [2, 3]]
    assert all(any(row is item for item in data) for row in take(4, rows(data, rng=0)))
    assert all(any(row is item for item in data) for row in next(rows(data, 3, rng=0)))


class CountingGenerator(np.random.Generator):
    calls = 0

    def integers(self, *args, **kwargs):
        self.calls += 1
        return super().integers(*args, **kwargs)


@pytest.mark.parametrize(
    "make", [rows, lambda data, rng: rows(data, 5, rng=rng), lambda data, rng: patches(data, 3, rng=rng)]
)
def test_random_numbers_are_drawn_in_blocks(make):
    rng = CountingGenerator(np.random.PCG64(0))
    take(2000, make(np.arange(100), rng=rng))
    assert rng.calls <= 10


def test_data_without_rows_give_nothing():
    assert list(rows({"x": np.zeros((0, 3))}, rng=0)) == list(rows(np.zeros(0), 2, rng=0)) == []


@pytest.mark.parametrize("make", [rows, lambda data, **options: patches(data, 2, **options)])
@pytest.mark.parametrize(
    "data",
    [
        {"x": np.zeros((5, 2)), "y": np.zeros(4)},
        {"x": np.zeros((5, 2)), "y": np.zeros(())},
        {"y": np.float32(3)},
    ],
)
def test_arrays_of_unlike_lengths_raise_and_are_shown(make, data):
    with pytest.raises(DataError, match="the same length along axis 0") as caught:
        next(make(data, rng=0))
    assert all(f"{key!r}: " in str(caught.value) for key in data)
    assert all(str(array.shape) in str(caught.value) for array in data.values())
    if "x" in data:
        assert next(make(data, rng=0, keys="x")).keys() == {"x"}


@pytest.mark.parametrize("make", [rows, lambda data, **options: patches(data, 2, **options)])
def test_keys_choose_arrays(make):
    data = {"x": np.zeros(5), "y": np.zeros(5), "z": np.zeros(4)}
    assert list(next(make(data, rng=0, keys=iter("yx")))) == ["y", "x"]
    with pytest.raises(KeyError, match=r"no 'w' in the dict, but \['x', 'y', 'z'\]") as caught:
        next(make(data, rng=0, keys="w"))
    assert isinstance(caught.value, DataError)
    with pytest.raises(PescadorError, match="single array"):
        next(make(np.zeros(3), rng=0, keys="x"))
    for nothing in ({"data": {}}, {"data": data, "keys": []}):
        with pytest.raises(DataError, match="no arrays"):
            next(make(**nothing, rng=0))
    with pytest.raises(PescadorError, match="keys must be"):
        make(data, rng=0, keys=5)


@pytest.mark.parametrize("make", [rows, lambda data, **options: patches(data, 2, **options)])
def test_a_generator_is_made_as_numpy_makes_it(make):
    expected = take(20, make(np.arange(99), rng=3))
    assert_same(expected, take(20, make(np.arange(99), rng=np.random.default_rng(3))))
    assert_same(expected, take(20, make(np.arange(99), rng=np.random.SeedSequence(3))))
    assert len(take(3, make(np.arange(99), rng=None))) == 3
    for bad in (RNG, "x", -1, 0.5):
        with pytest.raises(PescadorError, match="rng must be"):
            make(np.arange(99), rng=bad)


@pytest.mark.parametrize("n", [0, -1, 2.5, "x", True])
def test_a_bad_n_or_length_raises_at_once(n):
    with pytest.raises(PescadorError, match=f"n must be.*got {n!r}"):
        rows([], n, rng=0)
    with pytest.raises(PescadorError, match=f"length must be.*got {n!r}"):
        patches([], n, rng=0)


# patches


@given(
    st.lists(st.tuples(DTYPES, st.integers(0, 2)), min_size=1, max_size=3),
    st.integers(-3, 2),
    st.integers(1, 6),
    st.integers(0, 5),
    seeds,
)
def test_a_patch_is_contiguous_and_cut_alike_from_all_arrays(kinds, axis, length, spare, seed):
    total = length + spare
    before, after = (axis, 0) if axis >= 0 else (0, -axis - 1)  # axes before it and after it
    data = {"i": np.arange(total).reshape((1,) * before + (-1,) + (1,) * after)}
    for i, (dtype, more) in enumerate(kinds):
        before, after = (before, more) if axis >= 0 else (more, after)
        data[i] = fill(dtype, (2,) * before + (total,) + (3,) * after, i)
    for patch in take(5, patches(data, length, axis, rng=seed)):
        start = int(patch["i"].flat[0])
        assert 0 <= start <= spare
        for key, array in data.items():
            at = array.ndim + axis if axis < 0 else axis
            assert_equal(patch[key], array[(slice(None),) * at + (slice(start, start + length),)].copy())
            assert_own(patch[key], array)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_all_positions_are_equally_likely_the_last_one_too(axis):
    data = np.arange(30) + np.zeros((30, 30), int)
    data = data.T if axis == 0 else data
    starts = [int(patch.flat[0]) for patch in take(3000, patches(data, 11, axis, rng=0))]
    assert stats.chisquare(np.bincount(starts, minlength=20)).pvalue > NO_FALSE_ALARM
    assert max(starts) == 19
    assert [int(patch[0]) for patch in take(5, patches(np.arange(11), 11, rng=0))] == [0] * 5


@pytest.mark.parametrize("axis", [1.0, "x", None, True])
def test_a_bad_axis_raises_at_once(axis):
    with pytest.raises(PescadorError, match=f"axis.*got {axis!r}"):
        patches([], 2, axis, rng=0)


@pytest.mark.parametrize("axis", [2, -3])
def test_an_axis_that_is_not_there_raises(axis):
    with pytest.raises(DataError, match=rf"axis {axis}.*\(3, 4\)"):
        next(patches({"x": np.zeros((3, 4))}, 2, axis, rng=0))


SHORT = {"x": np.arange(6, dtype="f4").reshape(2, 3), "y": np.array([1, 2, 3])}


def test_short_data_raise_and_the_remedies_are_named():
    with pytest.raises(DataError, match=r"length 3 along axis -1.*length 5: pad=.*skip_short="):
        next(patches(SHORT, 5, -1, rng=0))


def test_short_data_are_skipped_and_a_mux_drops_them():
    assert list(patches(SHORT, 5, -1, rng=0, skip_short=True)) == []
    assert next(patches(SHORT, 3, -1, rng=0, skip_short=True))["y"].tolist() == [1, 2, 3]
    lengths = [4, 9, 2, 12]
    streams = [Streamer(patches, np.full(n, n), 5, rng=RNG, skip_short=True) for n in lengths]
    mux = StochasticMux(streams, 2, rate=3, random_state=0)
    assert {int(patch[0]) for patch in mux(60)} == {9, 12}


PADS = {
    "a number": (0, [[0, 1, 2, 0, 0], [3, 4, 5, 0, 0]], [1, 2, 3, 0, 0]),
    "a mode": ("wrap", [[0, 1, 2, 0, 1], [3, 4, 5, 3, 4]], [1, 2, 3, 1, 2]),
    "one a key": (
        {"x": -80.5, "y": "edge"},
        [[0, 1, 2, -80.5, -80.5], [3, 4, 5, -80.5, -80.5]],
        [1, 2, 3, 3, 3],
    ),
}


@pytest.mark.parametrize(("pad", "x", "y"), PADS.values(), ids=PADS)
def test_short_data_are_filled_up_at_their_end(pad, x, y):
    for patch in take(3, patches(SHORT, 5, -1, rng=0, pad=pad)):
        assert_same(patch, {"x": np.array(x, "f4"), "y": np.array(y)})
        patch["x"] += 1


def test_data_that_are_long_enough_are_not_filled_up():
    assert_same(take(9, patches(SHORT, 2, -1, rng=0, pad=7)), take(9, patches(SHORT, 2, -1, rng=0)))


@pytest.mark.parametrize("dtype", ["f4", "c8", "i2", "?", "U3", "M8[s]", "O", [("a", "i4"), ("b", "U2")]])
def test_filling_up_keeps_the_dtype(dtype):
    pad = {"U": "edge", "M": np.datetime64("NaT", "s")}.get(np.dtype(dtype).kind, 0)
    data = {"x": np.zeros(3, dtype)}
    assert next(patches(data, 5, rng=0, pad={"x": pad}))["x"].dtype == dtype


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("i4", 0.5),
        ("i4", np.nan),
        ("u1", -1),
        ("i1", 200),
        ("?", 2),
        ("f4", [1, 2]),
        ("f4", b"x"),
        ("f4", {}),
    ],
)
@pytest.mark.parametrize("length", [2, 5])
def test_what_an_array_cannot_be_filled_up_with_raises_also_if_it_is_long_enough(dtype, value, length):
    with pytest.raises(PescadorError, match="cannot be filled up"):
        next(patches({"x": np.zeros(3, dtype)}, length, rng=0, pad={"x": value}))


def test_how_to_fill_up_is_checked():
    for pad in ("wap", {"x": "mean"}):
        with pytest.raises(PescadorError, match="'reflect', 'symmetric', 'wrap'"):
            patches(SHORT, 5, rng=0, pad=pad)
    with pytest.raises(PescadorError, match="not both"):
        patches(SHORT, 5, rng=0, pad=0, skip_short=True)
    with pytest.raises(PescadorError, match="none for 'y'"):
        next(patches(SHORT, 2, -1, rng=0, pad={"x": 0}))
    with pytest.raises(DataError, match="cannot be filled up"):
        next(patches(np.zeros(0), 2, rng=0, pad="wrap"))
    assert next(patches(np.zeros(0), 2, rng=0, pad=1)).tolist() == [1, 1]


# In recipes


DATA = {"x": np.arange(40_000, dtype="f4").reshape(20, 2000), "y": np.arange(20)}
RECIPES = {
    "rows": Streamer(rows, DATA, rng=RNG),
    "batches of rows": Streamer(rows, DATA, 16, rng=RNG),
    "patches": Streamer(patches, DATA, 15, rng=RNG),
}


@every_backend
@pytest.mark.parametrize("stream", RECIPES.values(), ids=RECIPES)
def test_every_backend_gives_the_same(backend, stream):
    mux = ShuffledMux([stream, stream], random_state=0)
    expected = list(mux(12))
    with ParallelStreamer(mux, backend, n_workers=2) as parallel:
        assert_same(list(parallel(12)), expected)
        assert all(item["x"].flags.writeable for item in parallel(3))
    assert DATA["x"].ravel().tolist() == list(range(40_000))


@pytest.mark.parametrize("stream", list(RECIPES.values())[1:], ids=list(RECIPES)[1:])
def test_large_items_are_made_in_shared_memory(stream):
    with ParallelStreamer(stream, "shm") as parallel:
        assert len(list(parallel(50))) == 50
        stats = parallel.stats()
    assert stats["copied"] < stats["bytes"] / 10


def test_each_activation_has_random_numbers_of_its_own():
    mux = ChainMux([Streamer(RECIPES["rows"], max_iter=9)] * 2, random_state=0)
    drawn = [item["y"] for item in mux]
    assert drawn[:9] != drawn[9:]
    assert drawn == [item["y"] for item in mux]


def test_rows_can_be_batched():
    (batch,) = Streamer(buffer_stream, RECIPES["rows"], 8)(1)
    assert batch["x"].shape == (8, 2000)
    assert batch["y"].dtype == DATA["y"].dtype
