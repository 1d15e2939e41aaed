"""Items of every kind, and whether two of them are the same in every respect."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp


@dataclass
class Sample:
    name: str
    x: object


class Tagged(np.ndarray):
    """A subclass with an attribute of its own, which it pickles."""

    tag = None

    def __array_finalize__(self, other):
        self.tag = getattr(other, "tag", None)

    def __reduce__(self):
        function, arguments, state = super().__reduce__()
        return function, arguments, (state, self.tag)

    def __setstate__(self, state):
        super().__setstate__(state[0])
        self.tag = state[1]


DTYPES = st.sampled_from(
    [
        np.dtype(text)
        for text in [
            "?",
            "b1",
            "i1",
            "u1",
            "i2",
            "u4",
            "i8",
            "f2",
            "f4",
            "f8",
            "g",
            "c8",
            "c16",
            "G",
            ">i4",
            ">f8",
            ">c8",
            "<u2",
            "S0",
            "S5",
            "U0",
            "U3",
            ">U2",
            "V7",
            "M8[D]",
            "M8[ns]",
            ">M8[s]",
            "m8[us]",
            "l",
            "q",
        ]
    ]
    + [
        np.dtype([("a", "i4"), ("b", ">f8", (2, 3))]),
        np.dtype([("a", "u1"), ("b", "f8")], align=True),
        np.dtype({"names": ["x", "y"], "formats": ["i2", "U2"], "offsets": [4, 10], "itemsize": 24}),
        np.dtype([("t", "M8[s]"), ("inner", [("z", "c16")])]),
        np.dtype([("a", "i4"), ("o", "O")]),
        np.dtype("O"),
    ]
)
SHAPES = st.one_of(
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    st.sampled_from([(5000,), (70, 70), (3, 0, 2), (20_000,)]),
)


def fill(dtype, shape, seed):
    """Return an array of any dtype that holds anything, NaN and NaT included."""
    if dtype.hasobject:
        array = np.empty(shape, dtype)
        for i, index in enumerate(np.ndindex(*shape)):
            array[index] = [i, "text", None, (1, [2])][i % 4] if dtype.names is None else (i, {"i": i})
        return array
    n_bytes = dtype.itemsize * int(np.prod(shape, dtype=int))
    data = np.random.default_rng(seed).integers(0, 128, n_bytes, np.uint8)
    if dtype.kind == "U" or dtype.names is not None or dtype.kind == "b":
        data %= 2  # valid characters and booleans
        if dtype.kind == "U" or dtype.names is not None:
            data[:] = 0
    if dtype.char in "gG":  # of x86, where other long doubles are no numbers, and unlike themselves
        data.reshape(-1, np.dtype("g").itemsize)[:, 7] |= 128
    return np.ndarray(shape, dtype, data.tobytes() or b"\0").copy()


def arrange(array, how, seed):
    """Return an array that lies in memory in another way."""
    if how == "F":
        return np.asfortranarray(array)
    if how == "strided" and array.ndim:
        return np.repeat(array, 2, axis=0)[::2]
    if how == "reversed" and array.ndim:
        return array[::-1]
    if how == "transposed":
        return array.T
    if how == "broadcast" and not array.dtype.hasobject:
        return np.broadcast_to(array, (2, *array.shape))
    if how == "unaligned" and not array.dtype.hasobject and array.nbytes:
        memory = np.empty(array.nbytes + 1, np.uint8)
        shifted = np.ndarray(array.shape, array.dtype, memory, 1)
        shifted[...] = array
        return shifted
    if how == "readonly":
        array.flags.writeable = False
    if how == "masked" and array.dtype.kind in "iuf" and array.dtype.isnative:
        return np.ma.masked_array(array, np.zeros(array.shape, bool), fill_value=7)
    if how == "tagged" and array.dtype.isnative:
        array = array.view(Tagged)
        array.tag = seed
    return array


HOWS = st.sampled_from(
    [
        "plain",
        "plain",
        "F",
        "strided",
        "reversed",
        "transposed",
        "broadcast",
        "unaligned",
        "readonly",
        "masked",
        "tagged",
    ]
)


@dataclass
class Recipe:
    """An array that is made where the stream runs, for recipes are pickled by NumPy's own rules."""

    dtype: np.dtype
    shape: tuple
    how: str
    seed: int

    def make(self):
        return arrange(fill(self.dtype, self.shape, self.seed), self.how, self.seed)


def make(item):
    """Return a copy of an item, with arrays in place of their recipes."""
    if isinstance(item, Recipe):
        return item.make()
    if isinstance(item, dict):
        return {key: make(value) for key, value in item.items()}
    if isinstance(item, list | tuple):
        return type(item)(make(entry) for entry in item)
    return Sample(item.name, make(item.x)) if isinstance(item, Sample) else item


def make_all(recipes):
    for recipe in recipes:
        yield make(recipe)


arrays = st.builds(Recipe, DTYPES, SHAPES, HOWS, st.integers(0, 999))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.sampled_from(
        [
            np.float32(1.5),
            np.int64(-3),
            np.bool_(True),
            np.complex128(1j),
            np.datetime64("2020-01-01"),
            np.datetime64("2020-01-01T00:00:01"),
            np.timedelta64(3, "h"),
            np.str_("s"),
            np.bytes_(b"s"),
            np.longdouble(3),
        ]
    ),
    st.integers(0, 40_000).map(bytearray),
)
keys = st.text(max_size=3)
items = st.recursive(
    arrays | scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys | st.integers(), inner, max_size=3),
        st.builds(Sample, st.text(max_size=3), inner),
    ),
    max_leaves=4,
)
samples = st.dictionaries(keys, arrays | scalars, min_size=1, max_size=4)
streams = st.lists(st.one_of(items, samples, samples), max_size=5)


def assert_same(got, sent):
    """Compare in every respect."""
    assert type(got) is type(sent)
    if isinstance(sent, np.ma.MaskedArray):
        assert got.fill_value == sent.fill_value
        assert_same(np.asarray(got), np.asarray(sent))
        assert_same(np.ma.getmaskarray(got), np.ma.getmaskarray(sent))
    elif isinstance(sent, np.ndarray):
        assert_same_array(got, sent)
    elif isinstance(sent, np.generic):
        assert got.dtype == sent.dtype
        assert got == sent
    elif isinstance(sent, dict):
        assert list(got) == list(sent)
        for key in sent:
            assert_same(got[key], sent[key])
    elif isinstance(sent, list | tuple):
        assert len(got) == len(sent)
        for one, other in zip(got, sent, strict=True):
            assert_same(one, other)
    elif isinstance(sent, Sample):
        assert_same((got.name, got.x), (sent.name, sent.x))
    else:
        assert got == sent


def assert_same_array(got, sent):
    assert got.dtype == sent.dtype
    assert got.dtype.str == sent.dtype.str
    assert got.dtype.isalignedstruct == sent.dtype.isalignedstruct
    assert got.shape == sent.shape
    if sent.flags.c_contiguous or sent.flags.f_contiguous:
        assert got.flags.c_contiguous == sent.flags.c_contiguous
        assert got.flags.f_contiguous == sent.flags.f_contiguous
    if sent.dtype.hasobject or sent.dtype.names:  # there may be anything between fields
        assert_same(got.tolist(), sent.tolist())
    else:
        assert got.tobytes() == sent.tobytes()
    if isinstance(sent, Tagged):
        assert got.tag == sent.tag


def arrays_in(item):
    """Yield all arrays of an item."""
    if isinstance(item, np.ndarray):
        yield item
        if item.dtype == object:
            yield from arrays_in(item.ravel().tolist())
    elif isinstance(item, dict):
        yield from arrays_in(list(item.values()))
    elif isinstance(item, list | tuple):
        for entry in item:
            yield from arrays_in(entry)
    elif isinstance(item, Sample):
        yield from arrays_in(item.x)


def assert_all_writeable_and_apart(delivered):
    """Writing to an array touches no other: what each is filled with, it still holds at the end."""
    plain = [array for array in arrays_in(delivered) if not array.dtype.hasobject and array.nbytes]
    for array in plain:
        assert array.flags.writeable
        assert array.flags.aligned
    written = [(array, np.asarray(array).view(np.ndarray)) for array in plain]
    contents = []
    for number, (_, array) in enumerate(written):
        array[...] = np.ndarray(
            (), array.dtype, np.full(array.dtype.itemsize, number % 2, np.uint8).tobytes()
        )
        contents.append(array.tobytes())
    for (_, array), content in zip(written, contents, strict=True):
        assert array.tobytes() == content
