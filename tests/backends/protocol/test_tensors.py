"""What is sent, and copied, of a view: the view, and not all that lies behind it."""

import numpy as np
import pytest

from pescador import ParallelStreamer, Streamer
from pescador.testing import Sample, Tagged, assert_same

from ...kinds import every_background, process_backends

BIG = (1000, 1000)
ENOUGH = 100_000  # bytes, for any of the views below


def array_views():
    """Views of an array of 8 MB."""
    x = np.arange(1_000_000.0).reshape(BIG)
    table = np.zeros(1000, [("a", "i4"), ("big", "f8", 1000)])
    table["a"] = np.arange(1000)
    masked = np.ma.masked_greater(x, 10)
    yield {"x": x[3]}
    yield {"x": x[::100, ::100], "y": x[:5].T, "z": x[::-200, 0]}
    yield {"x": table["a"][:10], "y": np.broadcast_to(x[0, :1], (50, 50))}
    yield x[3]
    yield [x[3], {"deep": (x[4, ::2], x[5, :0])}]
    yield Sample("a", {"x": x[6]})
    yield x[7].view(Tagged)
    yield masked[0]
    yield {"x": np.array([x[1], x[2], None], object)}
    yield x[3].astype(">f8")[::2]
    yield x[8].astype("M8[s]")[:10]


@process_backends
def test_of_a_view_of_an_array_the_view_is_sent(backend, tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(1_000_000.0).reshape(BIG))

    def source():
        yield from array_views()
        yield {"x": np.load(path, mmap_mode="r")[5], "y": [np.load(path, mmap_mode="c")[6:8]]}

    expected = list(source())
    with ParallelStreamer(Streamer(source), backend) as stream:
        items = list(stream)
        assert stream.stats()["bytes"] < len(items) * ENOUGH
    for item, other in zip(items, expected, strict=True):
        if isinstance(other, np.ma.MaskedArray):
            assert (item == other).all()
        elif isinstance(other, dict) and "y" not in other and other["x"].dtype == object:
            assert_same(item["x"].tolist(), other["x"].tolist())
        else:
            assert_same(item, other)


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed")


def tensor_views(torch):
    """Views of a tensor of 4 MB."""
    x = torch.arange(1_000_000, dtype=torch.float32).reshape(BIG)
    yield {"row": x[3], "column": x[:, 3], "number": x[0, 0], "none": x[:0], "strided": x[::100, ::50]}
    yield {"bfloat16": x.bfloat16()[3], "half": x.half()[3], "bool": (x > 5)[0], "int": x.int()[1:2]}
    yield {"complex": (x[:100] * 1j)[3], "conjugated": (x[:100] * 1j)[3].conj()}
    if hasattr(torch, "float8_e5m2"):
        yield [x[:10].to(torch.float8_e5m2)[3]]
    yield [x.clone().requires_grad_()[3].detach().requires_grad_()]
    yield [x[5], (x[6], {"same": x[6]})]
    yield Sample("a", {"x": x[7]})
    named = x[8]
    named.name_of_mine = "attribute"
    yield named


def assert_same_tensors(torch, item, other):
    if isinstance(other, dict):
        assert list(item) == list(other)
        item, other = list(item.values()), list(other.values())
    if isinstance(other, list | tuple):
        assert len(item) == len(other)
        for one, another in zip(item, other, strict=True):
            assert_same_tensors(torch, one, another)
    elif isinstance(other, Sample):
        assert_same_tensors(torch, item.values, other.values)
    else:
        assert type(item) is type(other)
        for name in ("dtype", "shape", "requires_grad", "layout", "device"):
            assert getattr(item, name) == getattr(other, name)
        assert vars(item) == vars(other)
        assert torch.equal(item.detach().to_dense().cfloat(), other.detach().to_dense().cfloat())


def other_tensors(torch):
    x = torch.arange(12.0).reshape(3, 4)
    yield [x, x.T, torch.nn.Parameter(x), x.to_sparse(), torch.zeros(0), torch.tensor(1.5)]
    yield {"shared": (x, x), "grad": x.clone().requires_grad_()}


def filled_again(torch):
    x, array = torch.zeros(10), np.zeros(5)
    for i in range(5):
        x.fill_(i)
        array.fill(i)
        yield {"x": x, "row": x[2:], "array": array, "of an array": torch.from_numpy(array)}


@every_background
def test_tensors_arrive_as_they_were_and_of_a_view_the_view(backend, torch):
    """In one test, for a worker takes seconds to import PyTorch."""

    def source(make):
        import torch

        yield from make(torch)

    with ParallelStreamer(Streamer(source, tensor_views), backend) as first:
        items = list(first)
        assert first.stats()["bytes"] < len(items) * ENOUGH
        for item, other in zip(items, tensor_views(torch), strict=True):
            assert_same_tensors(torch, item, other)
        row = items[0]["row"]
        assert row.untyped_storage().nbytes() == 4000
        row.fill_(-1)
        assert items[0]["column"][3] == 3003
        assert items[0]["number"] == 0

        stream = ParallelStreamer(Streamer(source, other_tensors), backend)
        stream._pool = first._pool
        for item, other in zip(stream, other_tensors(torch), strict=True):
            assert_same_tensors(torch, item, other)

        stream = ParallelStreamer(Streamer(source, filled_again), backend)
        stream._pool = first._pool
        for i, item in enumerate(list(stream)):
            assert {float(value.min()) for value in item.values()} == {i}
            assert {float(value.max()) for value in item.values()} == {i}
