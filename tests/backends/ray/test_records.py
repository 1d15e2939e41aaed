"""Large arrays: those that nobody else can write to go to Ray as they are, all others as copies."""

import numpy as np
import pytest

from pescador import ParallelStreamer, Streamer

pytest.importorskip("ray", reason="Ray is not installed: pip install 'pescador[ray]'")

SIZE = 1 << 18  # bytes


def fresh(i):
    return np.full(SIZE, i, np.uint8)


def fortran(i):
    return np.full((SIZE // 16, 16), i, np.uint8, order="F")


def view(i):
    return np.full(2 * SIZE, i, np.uint8)[:SIZE]


def every_other(i):
    return np.full(2 * SIZE, i, np.uint8)[::2]


def stream_of(make):
    def source():
        for i in range(9):
            yield {"x": make(i)}

    return Streamer(source)


@pytest.mark.parametrize("make", [fresh, fortran, view, every_other])
def test_what_the_generator_gives_away_arrives(make):
    with ParallelStreamer(stream_of(make), "ray") as stream:
        found = [item["x"] for item in stream]
        copied = stream.stats()["copied"]
    for i, x in enumerate(found):
        np.testing.assert_array_equal(x, make(i))
        assert x.flags.writeable
        assert x.flags.aligned
        assert x.flags.fnc == make(i).flags.fnc
    assert copied == (9 * SIZE if make is every_other else 0)


def one_buffer():
    x = np.zeros(SIZE, np.uint8)
    for i in range(9):
        x[:] = i
        yield {"x": x}


def views_of_one_buffer():
    x = np.zeros(SIZE, np.uint8)
    for i in range(9):
        x[:] = i
        yield {"x": x[:]}


def views_of_bytes():
    memory = bytearray(SIZE)
    for i in range(9):
        memory[:] = bytes([i]) * SIZE
        yield {"x": np.frombuffer(memory, np.uint8)}


def kept_elsewhere():
    kept = []
    for i in range(9):
        for x in kept:
            x[:] = 255
        kept.append(np.full(SIZE, i, np.uint8))
        yield {"x": kept[-1]}


@pytest.mark.parametrize("source", [one_buffer, views_of_one_buffer, views_of_bytes, kept_elsewhere])
def test_what_the_generator_may_still_write_to_is_copied(source):
    with ParallelStreamer(Streamer(source), "ray") as stream:
        for i, item in enumerate(stream):
            assert set(item["x"]) == {i}
        assert stream.stats()["copied"] == 9 * SIZE
