"""Law 8, isolation: what a generator does to its arguments reaches neither the caller nor another opening.

PESCADOR_LAW_EXAMPLES sets the number of examples for each backend and number of workers.
"""

import os
from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pescador import ParallelStreamer, RoundRobinMux, Streamer

from .test_laws_workers import workers

EXAMPLES = int(os.environ.get("PESCADOR_LAW_EXAMPLES", 0))

every_pool = pytest.mark.parametrize(
    ("backend", "n"), [(backend, n) for backend in ("serial", "thread", "shm", "zmq") for n in (1, 2)]
)


class Holder:
    """An object with attributes."""

    def __init__(self, value):
        self.value = value
        self.n = 0

    def walk(self):
        """Meddle with what the object itself holds."""
        yield from meddle(self)

    __call__ = walk


class Slotted:
    __slots__ = ("n", "value")

    def __init__(self, value):
        self.value = value
        self.n = 0


@dataclass(frozen=True)
class Frozen:
    value: object
    seen: list = field(default_factory=list)


class Reiterable(Holder):
    """An iterable with a state of its own."""

    def __iter__(self):
        return self.walk()


RANDOM = (np.random.RandomState, np.random.default_rng)
OBJECTS = (Holder, Slotted, Frozen)


def describe(value, seen):
    """Return what a value holds, in builtins; what occurs twice is the number of its first occurrence."""
    if isinstance(value, int | str | None):
        return value
    if id(value) in seen:
        return "again", list(seen).index(id(value))
    seen[id(value)] = value
    if isinstance(value, np.ndarray):
        return "array", value.tolist()
    if isinstance(value, RANDOM[0]):
        return "RandomState", str(value.get_state())
    if isinstance(value, np.random.Generator):
        return "Generator", str(value.bit_generator.state)
    if isinstance(value, dict):
        return type(value).__name__, [(key, describe(entry, seen)) for key, entry in value.items()]
    if isinstance(value, list | tuple | deque):
        return type(value).__name__, [describe(entry, seen) for entry in value]
    if isinstance(value, set | frozenset):
        return type(value).__name__, sorted(value)
    names = value.__slots__ if isinstance(value, Slotted) else sorted(vars(value))
    return type(value).__name__, [(name, describe(getattr(value, name), seen)) for name in names]


def change(value, seen):
    """Change all that can be changed in a value."""
    if id(value) in seen or isinstance(value, int | str | None):
        return
    seen[id(value)] = value
    if isinstance(value, np.ndarray):
        with pytest.raises(ValueError, match="read-only"):
            value[...] = -1
    elif isinstance(value, RANDOM[0]):
        value.normal()
    elif isinstance(value, np.random.Generator):
        value.random()
    elif isinstance(value, dict):
        for entry in value.values():
            change(entry, seen)
        value["more"] = 1
    elif isinstance(value, list | tuple | deque):
        for entry in value:
            change(entry, seen)
        if not isinstance(value, tuple):
            value.append(1)
    elif isinstance(value, set):
        value.add(-1)
    elif isinstance(value, Frozen):
        change(value.value, seen)
        value.seen.append(1)
    elif isinstance(value, Holder | Slotted):
        change(value.value, seen)
        value.n += 1


def meddle(*values, **named):
    """Show what came, change it, and show it again."""
    values = (*values, named) if named else values
    yield describe(values, {})
    change(values, {})
    yield describe(values, {})


arrays = st.builds(np.arange, st.integers(0, 9))
scalars = st.none() | st.integers(0, 9) | st.sampled_from("ab")
leaves = st.one_of(
    scalars,
    arrays,
    st.builds(lambda make, seed: make(seed), st.sampled_from(RANDOM), st.integers(0, 3)),
    st.sets(st.integers(0, 9)),
    st.frozensets(st.integers(0, 9)),
)
values = st.recursive(
    leaves,
    lambda entries: st.one_of(
        st.lists(entries, max_size=3),
        st.lists(entries, max_size=3).map(tuple),
        st.lists(entries, max_size=3).map(deque),
        st.lists(entries, min_size=1, max_size=2).map(lambda values: [*values, values[0], values]),
        st.dictionaries(st.sampled_from("xyz"), entries, max_size=3),
        st.dictionaries(st.sampled_from("xyz"), entries, max_size=3).map(OrderedDict),
        st.dictionaries(st.sampled_from("xyz"), entries, max_size=3).map(lambda d: defaultdict(list, d)),
        st.builds(lambda kind, value: kind(value), st.sampled_from(OBJECTS), entries),
    ),
    max_leaves=8,
)
recipes = st.builds(
    lambda kind, value: {
        "argument": lambda: Streamer(meddle, value, [value]),
        "keyword": lambda: Streamer(meddle, 1, value=value, again=value),
        "method": lambda: Streamer(Holder(value).walk),
        "callable": lambda: Streamer(Holder(value)),
        "iterable": lambda: Streamer(Reiterable(value)),
    }[kind](),
    st.sampled_from(["argument", "keyword", "method", "callable", "iterable"]),
    values,
)


def given_to(stream):
    """Return what the recipe of a stream holds."""
    source = getattr(stream.streamer, "__self__", stream.streamer)
    return [stream.args, stream.kwargs, source if isinstance(source, Holder) else None]


@every_pool
def test_no_opening_sees_what_another_did_to_the_arguments(backend, n):
    with workers(backend, n) as parallel:

        @settings(max_examples=EXAMPLES or (60 if backend in ("serial", "thread") else 15))
        @given(recipes)
        def isolated(stream):
            before = describe(given_to(stream), {})
            mux = RoundRobinMux([stream, Streamer(stream), stream])
            first = list(mux)
            assert first[:3] == [first[0]] * 3
            assert first[3:] == [first[3]] * 3
            for _ in range(2):
                assert list(parallel(mux, None, None)) == first
            assert list(mux) == first
            assert describe(given_to(stream), {}) == before

        isolated()


@every_pool
def test_what_the_caller_changes_between_epochs_holds_in_the_next(backend, n):
    with workers(backend, n) as parallel:

        @settings(max_examples=EXAMPLES or (60 if backend in ("serial", "thread") else 15))
        @given(recipes)
        def follows(stream):
            mux = RoundRobinMux([stream] * 2)
            running = parallel(mux, None, None)
            first = list(running)
            assert first == list(mux)
            held = given_to(stream)
            arrays = [value for value in seen_in(held) if isinstance(value, np.ndarray)]
            for array in arrays:
                array.flags.writeable = False  # so the others are what changes
            change([held[0], *held[1].values(), held[2]], {})
            second = list(running)
            assert second == list(mux)
            for array in arrays:
                array.flags.writeable = True
                array += 1
            assert list(running) == list(mux)

        follows()


def seen_in(value):
    seen = {}
    describe(value, seen)
    return list(seen.values())


def addresses(*values):
    """Give the places of all arrays among the arguments, in the order in which they are found."""
    found = [held for held in seen_in(values) if isinstance(held, np.ndarray)]
    yield [array.__array_interface__["data"][0] for array in found]


@pytest.mark.parametrize("backend", ["serial", "thread"])
@given(values)
def test_arrays_are_never_copied(backend, value):
    (expected,) = addresses(value)
    with ParallelStreamer(Streamer(addresses, value), backend) as stream:
        assert list(stream) == [expected]
