"""The text that stands for an item in a message."""

import pathlib
import threading
from collections import namedtuple
from collections.abc import Mapping

import numpy as np
import pytest

from pescador.describe import MAX_ARGUMENT, MAX_TEXT, describe, shown

SECRET = 123456.75  # stands in data, and in no text


def test_it_shows_form_at_any_depth():
    item = {"a": {"b": np.zeros(2, "f4")}, "c": [1, "x", None, 2.5, 3]}
    assert describe(item) == (
        "{'a': {'b': ndarray(shape=(2,), dtype=float32)}, 'c': list of 5: [int, str, NoneType, float, ...]}"
    )


def test_of_a_long_path_the_end_is_shown():
    path = pathlib.PurePosixPath("/data", *["folder"] * 20, "song_0123.npz")
    for value in (path, str(path)):
        assert "folder/song_0123.npz'" in shown(value)
        assert len(shown(value)) == MAX_ARGUMENT
    assert shown(pathlib.PurePosixPath("a.npz")) == "PurePosixPath('a.npz')"


class Tensor:
    shape, dtype = (2, 3), "tensor.float32"


class Broken:
    """Raises at whatever is asked of it."""

    def fail(self, *_):
        raise RuntimeError(f"{SECRET}")

    __class__ = shape = dtype = property(fail)
    __repr__ = __str__ = __len__ = __iter__ = __getitem__ = __hash__ = __bool__ = __eq__ = fail
    keys = items = values = fail
    __getattr__ = fail


class Exits(Broken):
    def fail(self, *_):
        raise SystemExit(SECRET)

    shape = property(fail)
    keys = fail


class HalfBroken(Mapping):
    def __getitem__(self, key):
        if key == "b":
            raise OSError(SECRET)
        return SECRET

    def __iter__(self):
        return iter("abc")

    def __len__(self):
        raise OSError(SECRET)


class Endless(Mapping):
    """Has no end of keys, and at each there is another one of its kind."""

    def __getitem__(self, key):
        return Endless()

    def __iter__(self):
        while True:
            yield "key"

    def __len__(self):
        return 10**9


class BrokenArray(np.ndarray):
    shape = dtype = property(lambda self: 1 / 0)


class BrokenDict(dict):
    def items(self):
        raise ValueError(SECRET)

    __iter__ = keys = items


class Meta(type):
    @property
    def __name__(cls):
        raise ValueError(SECRET)


class OfMeta(metaclass=Meta):
    pass


Pair = namedtuple("Pair", "first second")


def cyclic_dict():
    item = {"n": SECRET}
    item["self"] = item
    return item


def cyclic_list():
    item = [SECRET]
    item += [item] * 3
    return [item] * 4


def deep(levels=100_000, wrap=lambda item: [item]):
    item = threading.Lock()
    for _ in range(levels):
        item = wrap(item)
    return item


ITEMS = {
    "array": (lambda: np.full((2, 3), SECRET), "ndarray(shape=(2, 3), dtype=float64)"),
    "scalar": (lambda: np.float64(SECRET), "float64(shape=(), dtype=float64)"),
    "array of objects": (lambda: np.full(2, {"x": SECRET}, object), "ndarray(shape=(2,), dtype=object)"),
    "array of a subclass that fails": (
        lambda: np.full(3, SECRET).view(BrokenArray),
        "BrokenArray(shape=(3,), dtype=float64)",
    ),
    "like an array": (Tensor, "Tensor(shape=(2, 3), dtype=tensor.float32)"),
    "named tuple": (lambda: Pair(SECRET, "x"), "Pair of 2: [float, str]"),
    "string": (lambda: str(SECRET), "str"),
    "class": (lambda: dict, "type"),
    "one that raises at everything": (Broken, "Broken"),
    "one that ends the program": (Exits, "Exits"),
    "those in a dict": (lambda: {"a": Broken(), "b": [Exits()]}, "{'a': Broken, 'b': list of 1: [Exits]}"),
    "a key that raises": (HalfBroken, "{'a': float, 'b': ?, 'c': float}"),
    "a dict that raises": (lambda: BrokenDict(a=1), "{'a': int}"),
    "a class whose name raises": (OfMeta, "OfMeta"),
    "keys of all kinds": (
        lambda: {1: 0, None: 0, (SECRET, 2): 0, b"b": 0, 10**9999: 0},
        "{1: int, None: int, tuple: int, b'b': int, int: int}",
    ),
    "cyclic dict": (cyclic_dict, "{'n': float, 'self': {'n': float, 'self': {"),
    "cyclic list": (cyclic_list, "list of 4: [list of 4: [float, list of 4: "),
    "deep list": (deep, "list of 1: [list of 1: [list of 1: [list of 1: [list of 1: [list of 1]"),
    "deep dict": (lambda: deep(wrap=lambda item: {"x": item}), "{'x': {'x': {'x': {'x': {'x': {...}}}}}}"),
    "endless": (Endless, "{'key': {'key': "),
    "huge dict": (lambda: dict.fromkeys(range(10**5), SECRET), "{0: float, 1: float, "),
    "huge key": (lambda: {"k" * 10**7: 1}, "{'kkkkk"),
    "huge dtype": (
        lambda: np.zeros(2, [(f"f{i}", "f8") for i in range(9999)]),
        "ndarray(shape=(2,), dtype=[('",
    ),
}


@pytest.mark.parametrize(("make", "text"), ITEMS.values(), ids=ITEMS)
def test_it_describes_whatever_there_is_in_bounded_text_without_data(make, text):
    item = make()
    shown = describe(item)
    assert shown.startswith(text) if len(text) < len(shown) else shown == text
    assert len(shown) <= MAX_TEXT
    assert "123456" not in shown


def test_it_does_not_fail_where_the_stack_is_all_but_used_up():
    def descend():
        try:
            return descend()
        except RecursionError:
            return describe({"a": [{"b": 1}]})

    assert isinstance(descend(), str)
