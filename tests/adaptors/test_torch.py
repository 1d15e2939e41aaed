"""StreamDataset for PyTorch, in the loops that people use."""

import collections
import gc
import json
import sys
import textwrap
import warnings
from itertools import chain, islice

import numpy as np
import pytest

import pescador

from .conftest import memory, needs, run, stream_of

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


def test_other_ranks_go_on_with_the_epoch(backend):
    with StreamDataset(stream_of(backend=backend), rank=0, world=1) as dataset:
        next(iter(dataset))
        state = dataset.state_dict()
    for rank, share in enumerate([[3, 6], [1, 4], [2, 5]]):
        later = StreamDataset(stream_of(), rank=rank, world=3)
        later.load_state_dict(state)
        assert marks(later) == [expected(1)[0][p] for p in share]


def test_ranks_without_a_common_seed_are_refused():
    with pytest.raises(pescador.PescadorError, match="random_state"):
        StreamDataset(stream_of(random_state=None), rank=0, world=2)
    assert marks(StreamDataset(stream_of(random_state=None)))


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
    needs("torchdata")
    from torchdata import stateful_dataloader

    def data(dataset):
        return stateful_dataloader.StatefulDataLoader(dataset, batch_size=None)

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
    needs("lightning")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own, when it is imported
        import lightning
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
    needs("accelerate")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import accelerate

        accelerator = accelerate.Accelerator(cpu=True)
        train, validation = accelerator.prepare(
            loader(StreamDataset(stream_of(), 8)), loader(StreamDataset(stream_of(), 8, advance=False))
        )
    assert [marks(train) for _ in range(3)] == expected(3)
    assert [marks(validation) for _ in range(3)] == expected(1) * 3


def sentences(n, size, rng):
    for _ in range(n):
        ids = rng.integers(1, 100, size)
        yield {"input_ids": ids, "labels": ids[0] % 2}


def test_transformers_trains_on_another_epoch_each_time(tmp_path, backend):
    needs("accelerate", "transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

    def stream():
        return stream_of(backend=backend, source=sentences)

    network = transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=100, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
        )
    )
    seen = {True: [], False: []}
    network.register_forward_pre_hook(
        lambda module, args, kwargs: seen[module.training].extend(kwargs["input_ids"].tolist()),
        with_kwargs=True,
    )
    arguments = transformers.TrainingArguments(
        tmp_path,
        num_train_epochs=3,
        per_device_train_batch_size=4,
        per_device_eval_batch_size=4,
        eval_strategy="epoch",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    with (
        StreamDataset(stream(), 8) as train,
        StreamDataset(stream(), 8, advance=False) as validation,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        transformers.Trainer(network, arguments, train_dataset=train, eval_dataset=validation).train()
    whole = [[item["input_ids"].tolist() for item in stream().iterate(epoch=epoch)] for epoch in range(3)]
    assert seen == {True: [*chain(*whole)], False: whole[0] * 3}


def train_rank(rank, folder):
    """Train in one of two processes, for two epochs."""
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    torch.manual_seed(0)
    network = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    with StreamDataset(stream_of(14, backend="shm"), rank=rank, world=2) as dataset:
        seen = []
        for batch in chain(loader(dataset), loader(dataset)):
            step(network, optimizer, batch)
            seen.append(float(batch["x"][0, 0]))
    torch.distributed.destroy_process_group()
    torch.save((seen, network.module.state_dict()), folder / str(rank))


def step(network, optimizer, batch):
    optimizer.zero_grad()
    torch.nn.functional.mse_loss(network(batch["x"] / (1 << 20)), batch["y"]).backward()
    optimizer.step()


def test_ranks_train_as_one_process_does_with_the_batches_of_both(tmp_path):
    torch.multiprocessing.spawn(train_rank, (tmp_path,), nprocs=2)
    (first, trained), (second, also_trained) = (torch.load(tmp_path / rank) for rank in "01")
    whole = expected(2, n=14)
    assert (first, second) == tuple([mark for epoch in whole for mark in epoch[rank::2]] for rank in range(2))

    torch.manual_seed(0)
    network = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    dataset = StreamDataset(stream_of(14))
    items = chain(dataset, dataset)
    for one, two in zip(items, items, strict=True):
        step(network, optimizer, {key: torch.cat([one[key], two[key]]) for key in ("x", "y")})
    for name, value in network.state_dict().items():
        torch.testing.assert_close(trained[name], value)
        assert torch.equal(trained[name], also_trained[name])


def test_a_script_that_keeps_tensors_ends_silently():
    script = """
        from tests.adaptors.test_torch import *
        items = iter(loader(StreamDataset(stream_of(200, backend="shm"))))
        kept = [next(items) for _ in range(100)]
        print(marks(kept) == expected(1, n=200)[0][:100])
    """
    done = run(sys.executable, "-c", textwrap.dedent(script))
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
