"""Items as bytes, and what is not an item."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from pescador import PescadorError
from pescador.backends.protocol import messages
from pescador.backends.protocol.codec import (
    MAX_FIELDS,
    MAX_SCHEMAS,
    Decoder,
    Encoder,
    Schema,
)
from pescador.backends.protocol.errors import Unloadable
from pescador.backends.protocol.messages import NOWHERE, Record
from pescador.backends.protocol.pickling import PICKLED, Pickled
from pescador.backends.system.shared_memory import ALIGNMENT
from pescador.testing import Sample, assert_same, sample_items

WAYS = ("join", "write")

every_way = pytest.mark.parametrize("way", WAYS)


class Connection:
    """An Encoder and a Decoder, and what goes from one to the other."""

    def __init__(self):
        self.encoder, self.decoder = Encoder(), Decoder()
        self.n_definitions = 0

    def encode(self, item):
        layout, parts = self.encoder.encode(item)
        if layout.is_new:
            self.n_definitions += 1
            self.decoder.define(layout.definition())
            layout.is_new = False
        return layout, parts

    def carry(self, item, way="join"):
        layout, parts = self.encode(item)
        body = aligned(layout.n_bytes)
        if way == "join":
            joined = layout.join(parts)
            assert len(joined) == layout.n_bytes
            body[:] = np.frombuffer(joined, np.uint8)
        else:
            layout.write(parts, Record(NOWHERE, body))
        return self.decoder.decode(layout.number, body)


def aligned(n_bytes):
    """Return memory like that of a transport."""
    memory = np.full(n_bytes + ALIGNMENT, 0xAA, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + n_bytes]


@every_way
def test_items_of_all_kinds_arrive_as_they_were(way):
    connection = Connection()
    for item in sample_items():
        assert_same(connection.carry(item, way), item)


@every_way
@given(
    st.dictionaries(
        st.text(max_size=3),
        st.tuples(npst.array_shapes(min_dims=0, min_side=0, max_side=5), st.sampled_from("CFST")).flatmap(
            lambda look: npst.arrays(
                st.one_of(
                    npst.scalar_dtypes(),
                    npst.array_dtypes(npst.integer_dtypes() | npst.datetime64_dtypes(), allow_subarrays=True),
                ),
                look[0],
                fill=st.nothing(),
            ).map(lambda array: reordered(array, look[1]))
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_dict_of_arrays_arrives_as_it_was(way, item):
    connection = Connection()
    for _ in range(2):
        got = connection.carry(item, way)
        assert list(got) == list(item)
        for key, array in got.items():
            assert (array.dtype, array.shape) == (item[key].dtype, item[key].shape)
            assert array.tobytes() == item[key].tobytes()
            assert array.flags.aligned
            assert array.flags.writeable
    assert connection.n_definitions == 1


def reordered(array, order):
    if order == "F":
        return np.asfortranarray(array) if array.ndim else array
    if order == "S":  # strided
        return np.stack([array, array], axis=-1)[..., 0]
    return array.T if order == "T" else array


@every_way
def test_fields_that_are_renamed_in_place_arrive(way):
    connection = Connection()
    array = np.zeros(3, [("a", "f4"), ("b", "i4")])
    assert_same(connection.carry({"x": array}, way), {"x": array})
    array.dtype.names = ("p", "q")  # in place
    assert connection.carry({"x": array}, way)["x"].dtype.names == ("p", "q")


def test_a_schema_is_sent_once_for_items_that_look_the_same():
    connection = Connection()
    for i in range(5):
        assert_same(connection.carry({"x": np.full(3, i), "y": np.float32(i)})["x"], np.full(3, i))
    assert connection.n_definitions == 1


@pytest.mark.parametrize(
    "other",
    [
        {"y": np.zeros((2, 3))},
        {"x": np.zeros((3, 2))},
        {"x": np.zeros((2, 3), "f4")},
        {"x": np.zeros((2, 3), ">f8")},
        {"x": np.zeros((2, 3), order="F")},
        {"x": np.zeros((2, 3), np.dtype("f8", metadata={"unit": "m"}))},
        {"x": np.zeros((2, 3)), "y": np.zeros(1)},
    ],
    ids=str,
)
def test_items_that_look_otherwise_have_a_schema_of_their_own(other):
    connection = Connection()
    connection.carry({"x": np.zeros((2, 3))})
    got = connection.carry(other)
    assert connection.n_definitions == 2
    assert_same(got, other)


def test_the_order_of_keys_is_kept():
    connection = Connection()
    one, other = np.zeros(2), np.ones(2)
    assert list(connection.carry({"a": one, "b": other})) == ["a", "b"]
    assert list(connection.carry({"b": one, "a": other})) == ["b", "a"]


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        ({"x": np.zeros(3)}, Schema),
        ({"x": np.float64(1)}, Schema),
        ({"x": np.array(1.5)}, Schema),
        ({}, Pickled),
        ({1: np.zeros(3)}, Pickled),
        ({"x": 1.5}, Pickled),
        ({"x": np.zeros(3, object)}, Pickled),
        ({"x": np.ma.zeros(3)}, Pickled),
        ({str(i): np.zeros(1) for i in range(MAX_FIELDS + 1)}, Pickled),
        (np.zeros(3), Pickled),
        (None, Pickled),
        (Sample("a"), Pickled),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else type(value).__name__,
)
def test_only_dicts_of_plain_arrays_have_a_schema(item, kind):
    layout, _ = Encoder().encode(item)
    assert type(layout) is kind


def test_the_number_of_schemas_is_bounded():
    connection = Connection()
    for n in range(MAX_SCHEMAS + 10):
        assert connection.carry({"x": np.zeros(n, np.uint8)})["x"].shape == (n,)
    assert connection.n_definitions == MAX_SCHEMAS


@every_way
def test_large_arrays_of_other_items_are_not_copied_into_the_pickle(way):
    item = [np.arange(10_000), {"nested": np.ones((100, 100), order="F")}, "text"]
    connection = Connection()
    layout, parts = connection.encode(item)
    assert layout.number == PICKLED
    assert len(parts) == 2 + 2  # table, pickle, and two buffers
    assert len(parts[1]) < 1000
    assert_same(connection.carry(item, way), item)


@every_way
def test_parts_of_some_size_are_aligned(way):
    item = {"a": np.zeros(3, np.uint8), "b": np.zeros(100, np.uint8), "c": np.float64(1), "d": np.zeros(64)}
    got = Connection().carry(item, way)
    assert got["b"].ctypes.data % ALIGNMENT == 0
    assert got["d"].ctypes.data % ALIGNMENT == 0


def test_functions_of_a_script_go_through_cloudpickle():
    number = 3
    assert Connection().carry([lambda: number])[0]() == 3


def test_what_cannot_be_pickled_raises():
    with pytest.raises(TypeError):
        Encoder().encode(x for x in range(3))


def test_scattered_items_arrive_as_they_were():
    connection = Connection()
    item = {
        "small": np.arange(3, dtype="i2"),
        "large": np.arange(2000).reshape(40, 50),
        "scalar": np.float32(2),
        "empty": np.zeros((0, 3)),
        "fortran": np.asfortranarray(np.arange(3000.0).reshape(30, 100)),
        "text": np.array(["a", "bcd"] * 20),
    }
    layout, parts = connection.encode(item)
    records = {}

    def place(part, field):
        if part.nbytes < 8000:
            return messages.NOWHERE
        extent = messages.Extent(1 + len(records), 64, part.nbytes)
        records[extent] = aligned(part.nbytes)
        field.view(records[extent], 0)[...] = part
        return extent

    body = layout.scatter(parts, place)
    assert len(records) == 2
    assert_same(
        connection.decoder.decode_scattered(layout.number, bytearray(body), records.__getitem__), item
    )


# What a worker never sends: an error, and neither a crash nor a wrong item. Pickles are left out: who may
# send one may do anything. (That a stranger may not is in test_zmq_strangers.py.) Nor is there a checksum:
# that the bytes of an array are those that were sent is up to the memory.


@given(st.integers(1, 5), st.binary(max_size=100))
def test_a_body_that_does_not_fit_its_schema_is_refused(number, data):
    connection = Connection()
    layout, _ = connection.encode({"x": np.zeros(5), "y": np.zeros((2, 3), "i2")})
    body = bytearray(data)
    if number == layout.number and len(data) >= layout.n_bytes:
        assert connection.decoder.decode(number, body)["x"].tobytes() == data[:40]
    else:
        with pytest.raises(PescadorError):
            connection.decoder.decode(number, body)


def nowhere(extent):
    raise PescadorError(f"nothing is at {extent}")


@given(st.binary(max_size=100))
def test_a_scattered_body_that_does_not_fit_its_schema_is_refused(data):
    connection = Connection()
    layout, _ = connection.encode({"x": np.zeros(5), "y": np.zeros((2, 3), "i2")})
    try:
        item = connection.decoder.decode_scattered(layout.number, bytearray(data), nowhere)
    except PescadorError:
        return
    assert set(item) == {"x", "y"}


SCATTERED = {"small": np.arange(3, dtype="i2"), "large": np.arange(3000), "other": np.arange(5.0)}


def scattered():
    """Return a decoder, the schema and the body of a scattered item, and the records it refers to."""
    connection = Connection()
    layout, parts = connection.encode(SCATTERED)
    records = {}

    def place(part, field):
        if part.nbytes < 8000:
            return messages.NOWHERE
        extent = messages.Extent(1, 64, part.nbytes)
        records[extent] = aligned(part.nbytes)
        field.view(records[extent], 0)[...] = part
        return extent

    return connection.decoder, layout.number, layout.scatter(parts, place), records


@given(st.data())
def test_a_changed_table_of_a_scattered_item_is_refused_or_means_the_same(data):
    decoder, schema, body, records = scattered()
    end = messages.unpack_table(body)[1]
    changed = bytearray(body)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, end - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        item = decoder.decode_scattered(
            schema, changed, lambda extent: records.get(extent) or nowhere(extent)
        )
    except (PescadorError, ValueError):
        return
    assert_same(item["large"], SCATTERED["large"])


@given(st.data())
def test_a_shortened_item_is_refused(data):
    """Of any kind: as one body, scattered, or a pickle with buffers."""
    decoder, schema, body, records = scattered()
    with pytest.raises(PescadorError):
        decoder.decode_scattered(
            schema, bytearray(body[: data.draw(st.integers(0, len(body) - 1))]), records.__getitem__
        )
    connection = Connection()
    for item in (SCATTERED, ["text", np.arange(100), b"bytes" * 100]):
        layout, parts = connection.encode(item)
        joined = layout.join(parts)
        with pytest.raises(PescadorError):
            connection.decoder.decode(
                layout.number, bytearray(joined[: data.draw(st.integers(0, layout.n_bytes - 1))])
            )


@given(st.data())
def test_a_changed_head_of_a_pickle_is_refused(data):
    """Its number of parts, and their lengths, of which each says where the next part is."""
    item = [np.arange(100), np.arange(200)]
    connection = Connection()
    layout, parts = connection.encode(item)
    n_parts = len(parts) - 1
    table = [n_parts, *(len(part) for part in parts[1:])]
    table[data.draw(st.integers(0, n_parts))] = data.draw(st.integers(0, 2**32 - 1))
    body = bytearray(layout.join(parts))
    struct.pack_into(f"<I{n_parts}Q", body, 0, *table)
    try:
        got = connection.decoder.decode(PICKLED, body)
    except (PescadorError, Unloadable):  # the constructor of an array says that its buffer has another size
        return
    assert_same(got, item)  # it was drawn as it was, or holds unused bytes


def test_a_schema_that_was_not_defined_is_refused():
    with pytest.raises(PescadorError, match="unknown schema 3"):
        Decoder().decode(3, bytearray(100))


@pytest.mark.parametrize(
    "body",
    [b"", b"\1", struct.pack("<I", 5), struct.pack("<IQ", 1, 1000), struct.pack("<I2Q", 2, 0, 2**63)],
    ids=len,
)
def test_a_table_that_promises_more_than_there_is_is_refused(body):
    with pytest.raises(PescadorError, match="broken item"):
        Decoder().decode(PICKLED, bytearray(body))


def test_the_table_of_a_pickle_without_parts_is_refused():
    with pytest.raises(PescadorError, match="broken item"):
        Decoder().decode(PICKLED, bytearray(struct.pack("<I", 0)))
