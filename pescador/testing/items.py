"""Items of all kinds, which a backend must deliver as they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["LARGE_BYTES", "Sample", "Tagged", "assert_same", "sample_items"]

LARGE_BYTES = 1 << 20  # of an item that no backend sends together with others


@dataclass
class Sample:
    """An item that is no dict."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)


class Tagged(np.ndarray):
    """A subclass of arrays."""


def sample_items() -> list[Any]:
    """Return new items of all kinds: what a backend must deliver as it is."""
    rng = np.random.default_rng(0)
    matrix = rng.random((5, 7))
    structured = np.zeros(3, dtype=[("id", "i4"), ("name", "U5"), ("at", "f8", 2)])
    structured["id"] = [1, 2, 3]
    return [
        {"X": matrix, "Y": np.arange(5)},
        {"X": matrix + 1, "Y": np.arange(5) + 1},
        {"X": np.asfortranarray(matrix), "strided": np.arange(20)[::3], "backwards": np.arange(9)[::-1]},
        {"0-d": np.array(3.5), "scalar": np.float32(1.5), "empty": np.empty((0, 4), "i2")},
        {"big-endian": np.arange(6, dtype=">i4"), "complex": matrix[:2] * 1j, "bool": matrix > 0.5},
        {"when": np.array(["2020-01-01", "NaT"], "M8[ns]"), "long": np.array([1, 2], "m8[s]")},
        {"structured": structured, "text": np.array(["a", "bcd"]), "bytes": np.array([b"a", b"bcd"])},
        {"large": rng.integers(0, 256, (LARGE_BYTES,), np.uint8), "small": np.arange(3)},
        {"large": np.asfortranarray(rng.random((300, 500)))},
        np.arange(12).view(Tagged),
        np.array([None, "a", {"b": 1}], dtype=object),
        {"nested": {"x": matrix, "more": [matrix, (1, 2.5, None)]}, 7: "a number is a key"},
        [matrix, "text", b"bytes"],
        (1, 2.5, 3j, True, None),
        None,
        "text",
        bytes(LARGE_BYTES),
        {},
        [],
        Sample("a", {"x": matrix}),
    ]


def assert_same(one: Any, other: Any) -> None:
    """Raise AssertionError unless two items are the same: types, values, and all that arrays have."""
    assert type(one) is type(other), f"{type(one)} instead of {type(other)}"
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype, f"dtype {one.dtype} instead of {other.dtype}"
        assert one.shape == other.shape, f"shape {one.shape} instead of {other.shape}"
        np.testing.assert_array_equal(one, other)
        if other.flags.forc:
            assert one.flags.f_contiguous == other.flags.f_contiguous, "another memory order"
        assert one.flags.aligned, "not aligned"
        assert one.flags.writeable, "not writeable"
    elif isinstance(one, dict):
        assert list(one) == list(other), f"keys {list(one)} instead of {list(other)}"
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), f"{len(one)} items instead of {len(other)}"
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, Sample):
        assert_same((one.name, one.values), (other.name, other.values))
    else:
        assert one == other, f"{one!r} instead of {other!r}"
