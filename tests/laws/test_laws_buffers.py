"""Law 1 where a generator goes on using what it has yielded: every item is as it was when it was yielded.

All items of a stream are kept, and looked at when it has ended, so whatever is shared would have changed.
"""

import array
import copy
import os
import tempfile
from collections import OrderedDict, deque, namedtuple
from dataclasses import dataclass, field

import numpy as np
import pytest

from pescador import ParallelStreamer, RoundRobinMux, Streamer
from pescador.testing import Sample, assert_same

from ..kinds import every_background

N = 6
SIZES = (4, 2500)  # in a message, and in a record of shm
LARGE = 20_000  # in a record on every backend

Pair = namedtuple("Pair", ["x", "name"])


class Plain:
    def __init__(self, x):
        self.x = x
        self.parts = {"views": [x[1:], x[::2]]}


class Slotted:
    __slots__ = ("name", "x")

    def __init__(self, x):
        self.name, self.x = "slotted", x


class Both(Slotted):
    """With slots, and a dict."""


@dataclass(frozen=True)
class Frozen:
    x: np.ndarray
    more: tuple = field(default=())


class Marked(np.ndarray):
    """An array with another one as its attribute, which it pickles."""

    mark = None

    def __array_finalize__(self, other):
        self.mark = getattr(other, "mark", None)

    def __reduce__(self):
        function, arguments, state = super().__reduce__()
        return function, arguments, (state, self.mark)

    def __setstate__(self, state):
        super().__setstate__(state[0])
        self.mark = state[1]


def one_buffer(x):
    return lambda: {"x": x}


def views(x):
    return lambda: {"half": x[: len(x) // 2], "strided": x[::2], "two": x.reshape(2, -1).T, "one": x[0]}


def fresh_dict_around_held_parts(x):
    part = [x, {"deep": (x[1:], "text", None)}]
    return lambda: {"parts": part, "number": float(x[0])}


def one_dict(x):
    item = {"x": x, "i": 0}

    def make():
        item["i"] = float(x[0])
        return item

    return make


def dict_with_new_arrays(x):
    item = OrderedDict()

    def make():
        item["x"] = x.copy()
        item["number"] = float(x[0])
        return item

    return make


def one_list(x):
    item = []

    def make():
        item[:] = [x, float(x[0]), [x[0]]]
        return item

    return make


def growing_list(x):
    item = []

    def make():
        item.append(float(x[0]))
        return item

    return make


def last_frames(x):
    frames = deque(maxlen=3)

    def make():
        frames.append(x)
        return {"frames": frames}

    return make


def objects(kind):
    def source(x):
        held = kind(x)
        return lambda: [kind(x), held]

    return source


def tuples(x):
    held = (x, Pair(x[1:], "a"))
    return lambda: (held, Pair(x, (x, 3)))


def object_array(x):
    held = np.empty((2, 2), object)
    held[0, 0], held[0, 1], held[1, 0] = x, [x], "text"
    return lambda: {"held": held, "new": np.array([x, None], object)}


def records(x):
    table = np.zeros(3, [("x", "f8", x.shape), ("big-endian", ">i4")])

    def make():
        table["x"], table["big-endian"] = x, x[0]
        return {"table": table, "row": table[1], "column": table["x"]}

    return make


def records_with_objects(x):
    table = np.zeros(2, [("a", "i4"), ("o", "O")])

    def make():
        table["a"] = x[0]
        table["o"][0] = x
        return {"table": table}

    return make


def masked(x):
    data, mask = x.copy(), np.zeros(len(x), bool)

    def make():
        data[:], mask[0] = x, bool(x[0] % 2)
        return {"new": np.ma.masked_array(x.copy(), mask, copy=False), "held": np.ma.masked_array(data, mask)}

    return make


def with_attributes(x):
    def make():
        new = x.copy().view(Marked)
        new.mark = x[1:]
        return [new, x.view(Marked)]

    return make


def over_other_memory(x):
    memory = bytearray(x.nbytes)
    view = np.frombuffer(memory, x.dtype)
    numbers = array.array("d", [0.0])

    def make():
        view[:] = x
        numbers[0] = x[0]
        return {"x": np.frombuffer(memory, x.dtype), "memory": memory, "numbers": numbers}

    return make


def read_only(x):
    def make():
        mine = x.copy()
        mine.flags.writeable = False
        shown = x[1:]
        shown.flags.writeable = False
        return {"mine": mine, "shown": shown}

    return make


def unaligned(x):
    memory = np.zeros(x.nbytes + 1, np.uint8)
    shifted = np.ndarray(x.shape, x.dtype, memory, 1)

    def make():
        shifted[:] = x
        return {"x": shifted, "new": np.ndarray(x.shape, x.dtype, memory.copy(), 1)}

    return make


def cycle(x):
    item = {"x": x}
    item["items"] = [item]
    return lambda: {"x": item["items"][0]["items"][0]["x"], "all": [item["x"]], "set": {1, 2}}


SOURCES = [
    one_buffer,
    views,
    fresh_dict_around_held_parts,
    one_dict,
    dict_with_new_arrays,
    one_list,
    growing_list,
    last_frames,
    objects(Plain),
    objects(Slotted),
    objects(Both),
    objects(Frozen),
    objects(lambda x: Sample("a", {"x": x})),
    objects(lambda x: Frozen(x, (x[1:], [x]))),
    tuples,
    object_array,
    records,
    records_with_objects,
    masked,
    with_attributes,
    over_other_memory,
    read_only,
    unaligned,
    cycle,
]


def filled(source, size, n):
    x = np.zeros(size)
    make = source(x)
    for i in range(n):
        x[:] = i
        yield make()


def mapped(source, size, n):
    """The same in a file."""
    with tempfile.TemporaryDirectory() as folder:
        x = np.lib.format.open_memmap(os.path.join(folder, "x.npy"), "w+", float, (size,))
        make = source(x)
        for i in range(n):
            x[:] = i
            yield make()


@every_background
def test_what_is_written_to_one_place_of_an_array_is_in_no_other(backend):
    with ParallelStreamer(Streamer(wide, 3), backend) as stream:
        for item in stream:
            item[0, 0] = 7
            assert item.sum() == 7


def wide(n):
    for _ in range(n):
        yield np.broadcast_to(np.zeros(3), (2, 3))


def shown(item):
    """Return an item in the types that assert_same knows."""
    if isinstance(item, np.ma.MaskedArray):
        return ["masked", shown(item.data), shown(np.ma.getmaskarray(item))]
    if isinstance(item, Marked):
        return ["marked", item.view(np.ndarray), shown(item.mark)]
    if isinstance(item, np.ndarray) and item.dtype.hasobject:
        return [item.shape, str(item.dtype), shown(item.tolist())]
    if isinstance(item, np.void):
        return [str(item.dtype), shown(item.tolist())]
    if isinstance(item, dict):
        return {key: shown(value) for key, value in item.items()}
    if isinstance(item, list | tuple | deque):
        return [type(item).__name__, *map(shown, item)]
    if isinstance(item, Plain | Slotted | Frozen | Sample):
        names = ("name", "x", "parts", "more", "values")
        return [(name, shown(getattr(item, name))) for name in names if hasattr(item, name)]
    return item


@every_background
@pytest.mark.parametrize("n_workers", [1, 2])
def test_items_are_as_they_were_when_they_were_yielded(backend, n_workers):
    cases = [(source, size) for source in SOURCES for size in SIZES] + [(one_buffer, LARGE), (views, LARGE)]
    streams = [Streamer(fill, *case, N) for case in cases for fill in (filled, mapped)]
    mux = RoundRobinMux(streams)
    expected = [copy.deepcopy(shown(item)) for item in mux]
    with ParallelStreamer(mux, backend, n_workers) as stream:
        items = list(stream)
    assert len(items) == len(expected)
    for item, other in zip(items, expected, strict=True):
        assert_same(shown(item), writeable(other))


def writeable(item):
    """Return what is expected, without the one thing in which it may differ: what cannot be written to."""
    if isinstance(item, np.ndarray):
        return np.require(item, requirements="W") if type(item) is np.ndarray else item
    if isinstance(item, dict):
        return {key: writeable(value) for key, value in item.items()}
    return type(item)(map(writeable, item)) if isinstance(item, list | tuple) else item


def test_an_object_that_holds_itself_arrives():
    class Node:
        def __init__(self, x):
            self.x, self.nodes = x, [self]

    def nodes(n):
        x = np.zeros(3)
        for i in range(n):
            x[:] = i
            yield Node(x)

    with ParallelStreamer(Streamer(nodes, 3), "thread") as stream:
        items = list(stream)
    assert [item.x[0] for item in items] == [0, 1, 2]
    assert all(item.nodes[0] is item for item in items)
