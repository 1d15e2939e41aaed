"""What an opening gets of a recipe's arguments: what is copied, what is shared, and what is a view."""

import array
import copy
import enum
import functools
import io
import itertools
import logging
import multiprocessing
import pathlib
import queue
import random
import socket
import sys
import tempfile
import threading
import types
import weakref
import zipfile
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np
import pytest

from pescador import RNG, ChainMux, Streamer

from .streams import Caller, numbers


def arguments(*values):
    yield values


def given_to_a_generator(*values):
    """Return what a generator gets that is given these arguments."""
    (own,) = Streamer(arguments, *values)
    return own if len(own) > 1 else own[0]


class Bag:
    """An object with attributes."""

    def __init__(self, **attributes):
        vars(self).update(attributes)


Pair = namedtuple("Pair", "one other")
Colour = enum.Enum("Colour", "RED GREEN")


class Slotted:
    __slots__ = ("unset", "value")


class SlottedAndMore(Slotted):
    pass


@dataclass(frozen=True)
class Frozen:
    value: list


@dataclass(frozen=True, slots=True)
class FrozenSlots:
    value: list


class MadeWithArguments:
    def __new__(cls, value):
        self = object.__new__(cls)
        self.value = value
        return self

    def __getnewargs__(self):
        return (self.value,)


class OnlyOne:
    """A class of which there is one object."""

    one = None

    def __new__(cls):
        cls.one = cls.one or object.__new__(cls)
        return cls.one


class CannotBeReduced:
    def __reduce_ex__(self, protocol):
        raise RuntimeError("no")


class CannotBeRestored(Bag):
    def __setstate__(self, state):
        raise RuntimeError("no")


def slotted(kind):
    made = kind()
    made.value = [1]
    return made


# Immutable, or a copy would be of no use

SHARED = {
    "numbers": lambda: 7,
    "tuple": lambda: (1, "x", (2.5, None)),
    "frozenset": lambda: frozenset({1, 2}),
    "named tuple": lambda: Pair(1, "x"),
    "function": lambda: numbers,
    "builtin": lambda: len,
    "class": lambda: Bag,
    "module": lambda: sys,
    "enum": lambda: Colour.RED,
    "dtype": lambda: np.dtype("f4,i4"),
    "NumPy scalar": lambda: np.float32(3),
    "path": lambda: pathlib.Path("x"),
    "time": lambda: datetime.now(timezone.utc),
    "object": object,
    "weak reference": lambda: weakref.ref(Bag),
    "generator": lambda: numbers(3),
    "iterator that cannot be copied": lambda: itertools.count(),
    "lock": threading.Lock,
    "event": threading.Event,
    "condition": threading.Condition,
    "barrier": lambda: threading.Barrier(2),
    "queue": queue.Queue,
    "thread": threading.Thread,
    "thread-local": threading.local,
    "subclass of an event": type("MyEvent", (threading.Event,), {}),
    "lock of processes": multiprocessing.Lock,
    "logger": lambda: logging.getLogger("x"),
    "global state of NumPy": lambda: np.random.mtrand._rand,
    "function of the global state of NumPy": lambda: np.random.random,
    "function of the global state": lambda: random.random,
    "only one": OnlyOne,
    "cannot be reduced": CannotBeReduced,
    "cannot be restored": lambda: CannotBeRestored(value=[1]),
}


@pytest.mark.parametrize("make", SHARED.values(), ids=SHARED)
def test_what_is_immutable_or_connects_threads_is_passed_as_it_is(make):
    value = make()
    assert given_to_a_generator(value) is value
    assert given_to_a_generator([value])[0] is value


def test_files_and_sockets_are_shared_and_stay_open(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, x=np.arange(3))
    with (
        path.open("rb") as file,
        zipfile.ZipFile(path) as archive,
        np.load(path) as arrays,
        socket.socket() as peer,
        tempfile.NamedTemporaryFile() as temporary,
    ):
        for _ in range(2):
            given = given_to_a_generator(file, archive, arrays, peer, Bag(file=file, n=[1]), temporary)
            assert given[:4] == (file, archive, arrays, peer)
            assert given[4].file is file
        del given
        assert arrays["x"].tolist() == [0, 1, 2]
        assert archive.read("x.npy")
        assert temporary.write(b"x") == 1


# Copied

COPIED = {
    "list": lambda: [1, [2], (3, [4])],
    "list of pairs": lambda: [("a", 1), ("b", 2)],
    "dict": lambda: {"a": [1], "b": {"c": 2}},
    "dict by tuples": lambda: {(1, 2): [3]},
    "set": lambda: {1, (2, 3)},
    "tuple of lists": lambda: ([1], [2]),
    "named tuple of lists": lambda: Pair([1], 2),
    "deque": lambda: deque([1, [2]], 3),
    "defaultdict": lambda: defaultdict(list, a=[1]),
    "OrderedDict": lambda: OrderedDict(a=1, b=2),
    "Counter": lambda: Counter("abb"),
    "bytearray": lambda: bytearray(b"xx"),
    "array of the standard library": lambda: array.array("i", [1, 2]),
    "list with attributes": lambda: type("MyList", (list,), {})([1, [2]]),
    "frozen dataclass": lambda: Frozen([1]),
    "frozen dataclass with slots": lambda: FrozenSlots([1]),
    "namespace": lambda: types.SimpleNamespace(value=[1]),
}


@pytest.mark.parametrize("make", COPIED.values(), ids=COPIED)
def test_what_is_mutable_is_copied_with_all_that_it_holds(make):
    value = make()
    own = given_to_a_generator(value)
    assert type(own) is type(value)
    assert own == value == make()
    assert own is not value
    assert not mutable_parts(own) & mutable_parts(value)


def mutable_parts(value):
    parts = {id(value)} if isinstance(value, list | dict | set) else set()
    if isinstance(value, dict):
        value = list(value.values())
    elif hasattr(value, "value"):
        value = [value.value]
    if isinstance(value, list | tuple | deque):
        parts |= set().union(*map(mutable_parts, value))
    return parts


@pytest.mark.parametrize("kind", [Slotted, SlottedAndMore])
def test_slots_are_copied(kind):
    value = slotted(kind)
    own = given_to_a_generator(value)
    assert own.value == [1]
    assert own.value is not value.value
    assert not hasattr(own, "unset")


def test_objects_made_with_arguments_are_copied():
    value = MadeWithArguments([1])
    own = given_to_a_generator(value)
    assert own.value == [1]
    assert own.value is not value.value


def test_an_object_that_holds_a_lock_is_copied_and_the_lock_shared():
    value = Bag(lock=threading.Lock(), event=threading.Event(), n=[1])
    own = given_to_a_generator(value)
    assert (own.lock, own.event) == (value.lock, value.event)
    assert own.n == [1]
    assert own.n is not value.n


def test_an_object_that_failed_to_be_copied_is_shared_with_what_it_holds():
    held = [1]
    failed, other = given_to_a_generator(CannotBeRestored(value=held), [held])
    assert failed.value is held
    assert other[0] is not held


@pytest.mark.parametrize(
    "rng",
    [
        np.random.RandomState(3),
        np.random.RandomState(np.random.PCG64(3)),
        np.random.default_rng(3),
        *(np.random.Generator(bits(3)) for bits in (np.random.MT19937, np.random.Philox, np.random.SFC64)),
    ],
    ids=str,
)
def test_random_generators_are_copied_where_they_stand(rng):
    rng.standard_normal()  # a RandomState keeps the second of two
    before = copy.deepcopy(rng)
    own = given_to_a_generator(Bag(rng=rng)).rng
    expected = [before.standard_normal() for _ in range(3)]
    assert [own.standard_normal() for _ in range(3)] == expected
    assert [rng.standard_normal() for _ in range(3)] == expected


def test_generators_of_one_bit_generator_go_on_sharing_it():
    bits = np.random.MT19937(3)
    for holders in (
        (np.random.Generator(bits), np.random.RandomState(bits), bits),
        (bits, np.random.RandomState(bits)),
    ):
        own = given_to_a_generator(*holders)
        found = {id(getattr(one, "bit_generator", getattr(one, "_bit_generator", one))) for one in own}
        assert len(found) == 1
        assert id(bits) not in found


def test_a_copied_generator_spawns_what_the_original_would():
    rng = np.random.default_rng(3)
    own = given_to_a_generator(rng)
    (child,), (expected,) = (one.bit_generator.seed_seq.spawn(1) for one in (own, rng))
    assert child.spawn_key == expected.spawn_key == (0,)


def test_methods_and_partials_are_those_of_the_copy():
    caller = Bag(values=[1])
    values = caller.values
    own, append, partial = given_to_a_generator(caller, values.append, functools.partial(len, values))
    append(2)
    assert own.values == [1, 2]
    assert partial() == 2
    assert values == [1]


def test_streams_and_markers_deep_inside_are_passed_as_they_are():
    bag = Bag(stream=Streamer(numbers, 3), rng=RNG)
    own = given_to_a_generator(bag)
    assert own is not bag
    assert own.stream is bag.stream
    assert own.rng is RNG


def test_what_is_one_object_in_the_recipe_is_one_in_the_opening():
    one = [1]
    first, second, bag = given_to_a_generator(one, {"x": one}, Bag(one=one))
    assert first is second["x"] is bag.one is not one
    cycle = []
    cycle.append((cycle,))
    own = given_to_a_generator(cycle)
    assert own[0][0] is own is not cycle


@pytest.mark.parametrize("link", [lambda rest: [rest], lambda rest: (rest, []), lambda rest: Bag(rest=rest)])
def test_what_is_nested_too_deeply_is_shared_as_a_whole(link):
    value = shared = [1]
    for _ in range(100_000):
        value = link(value)
    own, other = given_to_a_generator(value, shared)
    assert own is value
    assert other is not shared
    del own
    while isinstance(value, Bag):  # its end, one after the other, is no matter of this test
        holder, value = value, value.rest
        holder.rest = None


def test_a_class_says_what_its_copy_is():
    class Own:
        def __init__(self, x):
            self.x, self.n = x, 0

        def __deepcopy__(self, memo):
            duplicate = Own(copy.deepcopy(self.x, memo))
            duplicate.n = "copied"
            return duplicate

    value = Own(np.zeros(3))
    own = given_to_a_generator(value)
    assert own.n == "copied"
    assert own.x.base is value.x


def test_an_object_with_a_finalizer_is_copied_unless_it_holds_what_cannot_be(tmp_path):
    class Source:
        def __init__(self, file=None):
            self.file, self.n = file, [1]

        def __del__(self):
            if self.file:
                self.file.close()

    idle = Source()
    assert given_to_a_generator(idle).n is not idle.n
    with (tmp_path / "x").open("w") as file:
        busy = Source([file])
        busy.file = file
        assert given_to_a_generator(busy) is busy
        assert not file.closed


# Arrays


def test_an_array_is_one_read_only_view_wherever_it_is():
    x = np.arange(3)
    first, many, bag = given_to_a_generator(x, [x, {"x": x}], Bag(x=x))
    assert first is many[0] is many[1]["x"] is bag.x is not x
    assert first.base is x
    assert x.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1


def test_subclasses_stay_what_they_are_and_are_read_only_with_what_they_hold(tmp_path):
    masked = np.ma.MaskedArray([1.0, 2.0], [False, True])
    mapped = np.memmap(tmp_path / "x", "f8", "w+", shape=3)
    records = np.zeros(2, "i4,f8").view(np.recarray)
    own, own_map, own_records = given_to_a_generator(masked, mapped, records)
    assert list(map(type, (own, own_map, own_records))) == [np.ma.MaskedArray, np.memmap, np.recarray]
    for change in (
        lambda: own.__setitem__(0, 5),
        lambda: own.__setitem__(0, np.ma.masked),
        lambda: own.mask.__setitem__(0, True),
        lambda: own_map.__setitem__(0, 5),
        lambda: setattr(own_records, "f0", 5),
    ):
        with pytest.raises(ValueError, match="read-only"):
            change()
    assert np.shares_memory(own_map, mapped)
    assert own_map.filename == mapped.filename


def test_the_elements_of_an_object_array_are_shared_and_records_are_copied():
    objects, records = np.array([[1], None], object), np.zeros(2, "i4,f8")
    own, record = given_to_a_generator(objects, records[0])
    assert own[0] is objects[0]
    record["f0"] = 3
    assert records["f0"][0] == 0


@pytest.mark.parametrize(
    "name", ["__array__", "__dlpack__", "__array_interface__", "__cuda_array_interface__"]
)
def test_arrays_of_other_libraries_are_shared(name):
    tensor = type("Tensor", (Bag,), {name: None})(data=[1])
    assert given_to_a_generator([tensor])[0] is tensor


def test_a_view_of_memory_is_read_only():
    memory = bytearray(3)
    own = given_to_a_generator(memoryview(memory))
    assert own.readonly
    assert bytes(own) == bytes(3)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="there are no notes")
def test_the_error_about_a_read_only_array_says_why_it_is(recwarn):
    def doubles(x):
        x *= 2
        yield x

    for stream in (Streamer(doubles, np.ones(3)), ChainMux([Streamer(doubles, np.ones(3))])):
        with pytest.raises(ValueError, match="read-only") as caught:
            list(stream)
        (note,) = caught.value.__notes__
        assert "makes a copy" in note


# Sources


class Dealer(Caller):
    """Takes from a list of its own."""

    def __init__(self):
        self.cards = [1, 2, 3]

    def __iter__(self):
        while self.cards:
            yield self.cards.pop()

    def deal(self, n):
        while self.cards and n:
            n -= 1
            yield self.cards.pop()

    __call__ = deal


@pytest.mark.parametrize(
    "make",
    [
        lambda dealer: Streamer(dealer),
        lambda dealer: Streamer(dealer, 3),
        lambda dealer: Streamer(dealer.deal, 3),
        lambda dealer: Streamer(functools.partial(dealer.deal, 3)),
        lambda dealer: Streamer(Dealer.deal, dealer, n=3),
        lambda dealer: Streamer(dealer.__iter__),
    ],
)
def test_the_object_whose_method_runs_belongs_to_the_recipe(make):
    dealer = Dealer()
    stream = make(dealer)
    assert list(stream) == list(stream) == list(ChainMux([stream])) == [3, 2, 1]
    assert dealer.cards == [1, 2, 3]
    dealer.cards.append(4)
    assert next(iter(stream)) == 4


def test_keywords_that_were_changed_are_isolated_too():
    def fill(n, into=()):
        into.append(n)
        yield list(into)

    stream = Streamer(fill, 1, into=None)
    stream.kwargs["into"] = []
    assert list(stream) == list(stream) == [[1]]
    assert stream.kwargs["into"] == []


def test_what_is_built_in_is_iterated_over_as_it_is():
    items = [object(), [1], np.zeros(3)]
    for source in (items, tuple(items), deque(items), dict.fromkeys(range(3))):
        assert all(map(lambda one, other: one is other, Streamer(source), source))
    text = io.StringIO("a\nb\n")
    assert [list(Streamer(text)), list(Streamer(text))] == [["a\n", "b\n"], []]


def test_globals_closures_and_defaults_are_left_alone():
    seen = []

    def note(item, defaults=[]):  # noqa: B006 -- it is about those
        seen.append(item)
        defaults.append(item)
        yield len(defaults)

    stream = Streamer(note, 5)
    assert list(stream) + list(stream) == [1, 2]
    assert seen == [5, 5]
