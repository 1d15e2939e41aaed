"""What a generator still holds when it has yielded, as a worker's loop finds out."""

import numpy as np
import pytest

from pescador import Streamer
from pescador.backends.worker.ownership import Ownership

from .test_loop import Loop, opened


class OwnershipLoop(Loop):
    """Keeps the keys of the arrays of each item that nobody else refers to."""

    def __init__(self, find, *commands):
        super().__init__(*commands)
        self.find = find
        self.ownership = Ownership()
        self.probe()
        self.sent.clear()

    def send(self, number, item):
        self.sent.append((number, self.find(self.ownership, item)))


def by_sole(ownership, item):
    parts = tuple(item.values())
    sole = ownership.sole(item, parts)
    return {key for key, part in zip(item, parts, strict=True) if id(part) in sole}


def by_private(ownership, item):
    before = {key: id(part) for key, part in item.items()}
    item = ownership.private(item)
    return {key for key, part in item.items() if id(part) == before[key]}


def view():
    return np.ndarray(8, np.uint8, np.zeros(8, np.uint8))


def nothing_is_held(held):
    yield {"x": view(), "y": view()}


def an_array_is_held(held):
    y = view()
    yield {"x": view(), "y": y}


def an_array_is_held_elsewhere(held):
    held.append(view())
    yield {"x": view(), "y": held[0]}


def what_an_array_views_is_held(held):
    held.append(np.zeros(8, np.uint8))
    yield {"x": view(), "y": held[0].view()}


def one_array_is_there_twice(held):
    held.append(view())
    yield {"x": view(), "y": held[0], "z": held.pop()}


def an_array_of_its_own_memory_is_held(held):
    held.append(np.zeros(8))
    yield {"x": np.zeros(8), "y": held[0]}


def the_item_is_held(held):
    item = {"x": view(), "y": view()}
    yield item


@pytest.mark.parametrize("find", [by_sole, by_private])
@pytest.mark.parametrize(
    ("source", "private"),
    [
        (nothing_is_held, {"x", "y"}),
        (an_array_is_held, {"x"}),
        (an_array_is_held_elsewhere, {"x"}),
        (what_an_array_views_is_held, {"x"}),
        (one_array_is_there_twice, {"x"}),
        (an_array_of_its_own_memory_is_held, {"x"}),
        (the_item_is_held, set()),
    ],
)
def test_an_array_is_private_if_nobody_else_refers_to_it(find, source, private):
    opening = [("open", 1, Streamer(source, []), *opened(1, 1)[3:])]
    loop = OwnershipLoop(find, opening)
    loop.run()
    assert loop.sent == [(1, private)]
