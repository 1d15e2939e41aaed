"""StreamDataset for PyTorch, in the loops that people use."""

import collections
import gc
import json
import warnings
from itertools import islice

import numpy as np
import pytest

import pescador

from .conftest import memory, needs, stream_of

needs("torch")

import torch  # noqa: E402 -- only where it is installed
from torch.utils.data import DataLoader  # noqa: E402

from pescador.adaptors.torch import StreamDataset, to_tensors  # noqa: E402

Pair = collections.namedtuple("Pair", "x y")


def loader(dataset):
    return DataLoader(dataset, batch_size=None)


def marks(items):
    return [float(item["x"][0, 0]) for item in items]


def expected(n_epochs, **options):
    return [marks(stream_of(**options).iterate(epoch=epoch)) for epoch in range(n_epochs)]


def test_each_loop_is_a_whole_and_different_epoch(backend):
    with StreamDataset(stream_of(backend=backend), 8) as dataset:
        data = loader(dataset)
        assert len(data) == 8
        assert [marks(data) for _ in range(3)] == expected(3)


def test_validation_is_always_the_same(backend):
    with StreamDataset(stream_of(backend=backend), advance=False) as dataset:
        data = loader(dataset)
        assert [marks(data) for _ in range(3)] == expected(1) * 3
        with pytest.raises(TypeError):
            len(data)


def test_tensors_share_the_memory_of_arrays(backend):
    with StreamDataset(stream_of(backend=backend)) as dataset:
        batch = next(iter(loader(dataset)))
    assert batch["x"].dtype is torch.float32
    assert (batch["i"], batch["name"]) == (0, "a")
    array = np.zeros((2, 3))
    tensor = to_tensors({"a": [array]})["a"][0]
    tensor += 1
    assert array.sum() == 6


def test_tensors_that_are_kept_past_close_are_right(backend):
    with StreamDataset(stream_of(200, backend=backend)) as dataset:
        kept = list(loader(dataset))
    gc.collect()
    assert marks(kept) == expected(1, n=200)[0]
    assert all((batch["x"] == batch["x"][0, 0]).all() for batch in kept)


@pytest.mark.parametrize(
    "array",
    [np.arange(6)[::-1], np.arange(6, dtype=">i4"), np.arange(6).reshape(2, 3).T, np.array(3), np.zeros(0)],
)
def test_arrays_of_any_form_become_tensors(array):
    np.testing.assert_array_equal(to_tensors(array).numpy(), array)


def test_a_read_only_array_is_copied_without_a_warning():
    array = np.zeros(3)
    array.flags.writeable = False
    tensor = to_tensors(array)
    tensor += 1
    assert array.sum() == 0


def test_what_is_no_number_passes_as_it_is():
    item = {
        "s": np.array(["a"]),
        "o": np.array([None]),
        "t": np.array(["2020"], "M8[D]"),
        "n": None,
        "u": "u",
    }
    assert all(value is item[key] for key, value in to_tensors(item).items())


def test_containers_keep_their_type():
    pair = to_tensors(Pair(np.zeros(2), (np.float32(1), [2])))
    assert type(pair) is Pair
    assert type(pair.x) is torch.Tensor
    assert pair.y == (torch.tensor(1.0), [2])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_workers_of_a_loader_are_refused():
    data = DataLoader(StreamDataset(stream_of()), batch_size=None, num_workers=1)
    with pytest.raises(
        pescador.PescadorError, match=r"num_workers=0.*ParallelStreamer\(stream, n_workers=2\)"
    ):
        list(data)


def test_resumes_in_mid_epoch(backend):
    with StreamDataset(stream_of(backend=backend), 8) as dataset:
        list(loader(dataset))
        items = iter(loader(dataset))
        first = marks(islice(items, 3))
        state = json.loads(json.dumps(dataset.state_dict()))
    later = StreamDataset(stream_of(), 8)
    later.load_state_dict(state)
    assert first + marks(loader(later)) == expected(2)[1]
    assert marks(loader(later)) == expected(3)[2]


@pytest.mark.parametrize("length", [None, 2])
def test_ranks_share_the_items(length):
    datasets = [StreamDataset(stream_of(), length, rank=rank, world=3) for rank in range(3)]
    for whole in expected(2):
        found = [marks(loader(dataset)) for dataset in datasets]
        assert found == [whole[rank:6:3] for rank in range(3)]
    items = iter(datasets[2])
    next(items)
    later = StreamDataset(stream_of(), length, rank=2, world=3)
    later.load_state_dict(datasets[2].state_dict())
    assert marks(later) == marks(items)


@pytest.mark.parametrize(("rank", "world"), [(3, 3), (-1, 2), (0, 0)])
def test_a_rank_that_cannot_be_raises(rank, world):
    with pytest.raises(pescador.PescadorError, match=r"rank|world"):
        StreamDataset(stream_of(), rank=rank, world=world)


def test_memory_is_flat(backend):
    with StreamDataset(stream_of(2000, 2000, backend), 2000) as dataset:
        before = None
        for number, _ in enumerate(loader(dataset)):
            if number == 300:
                before = memory()
        assert memory() - before < 16 << 20  # bytes; all batches have 64 MB


def test_an_exception_in_the_loop_leaves_nothing(backend):
    def train():
        with StreamDataset(stream_of(100, backend=backend)) as dataset:
            for number, _ in enumerate(loader(dataset)):
                if number == 3:
                    raise RuntimeError("in the loop")

    with pytest.raises(RuntimeError, match="in the loop"):
        train()


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # by torchdata itself
def test_stateful_dataloader(backend):
    torchdata = pytest.importorskip("torchdata.stateful_dataloader", reason="needs torchdata")

    def data(dataset):
        return torchdata.StatefulDataLoader(dataset, batch_size=None)

    with StreamDataset(stream_of(backend=backend), 8) as dataset:
        train = data(dataset)
        assert marks(train) == expected(1)[0]
        items = iter(train)
        first = marks(islice(items, 3))
        state = train.state_dict()
    later = data(StreamDataset(stream_of(), 8))
    later.load_state_dict(state)
    assert first + marks(later) == expected(2)[1]
    assert marks(later) == expected(3)[2]


def test_lightning_trains_on_another_epoch_each_time(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own, when it is imported
        lightning = pytest.importorskip("lightning", reason="needs lightning")
    seen, validated = [], []

    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def training_step(self, batch):
            seen.append(float(batch["x"][0, 0]))
            return torch.nn.functional.mse_loss(self.layer(batch["x"] / (1 << 20)), batch["y"])

        def validation_step(self, batch):
            validated.append(float(batch["x"][0, 0]))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    trainer = lightning.Trainer(
        max_epochs=3,
        limit_train_batches=6,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it would like num_workers, and of its own code
        trainer.fit(
            Model(),
            loader(StreamDataset(stream_of())),
            loader(StreamDataset(stream_of(random_state=1), advance=False)),
        )
    assert seen == [mark for epoch in expected(3) for mark in epoch[:6]]
    assert validated == expected(1, random_state=1)[0] * 3


def test_accelerate_sets_the_epoch():
    accelerate = pytest.importorskip("accelerate", reason="needs accelerate")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        accelerator = accelerate.Accelerator(cpu=True)
        train, validation = accelerator.prepare(
            loader(StreamDataset(stream_of(), 8)), loader(StreamDataset(stream_of(), 8, advance=False))
        )
    assert [marks(train) for _ in range(3)] == expected(3)
    assert [marks(validation) for _ in range(3)] == expected(1) * 3
