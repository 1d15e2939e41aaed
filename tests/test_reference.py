"""The documentation of version 2: every example in it runs as it is written there.

Only paths and data sets differ, and endless loops are broken off. Calls are left in the form in which the
documentation has them, whatever today's style would be.
"""

import subprocess
import sys
import textwrap
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import pescador
from pescador import Streamer

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _seeded():
    """The examples draw from NumPy's global state."""
    np.random.seed(0)


@pytest.fixture
def labeled():
    """X, Y and train, which the examples take for granted."""
    X, Y = np.random.randn(60, 4), np.arange(60) % 3
    return X, Y, np.arange(50)


@pytest.fixture
def npz_files(tmp_path):
    """120 archives of 40 rows each, whose values tell the archive and the row."""
    files = []
    for i in range(120):
        files.append(str(tmp_path / f"file{i}.npz"))
        rows = np.arange(40 * i, 40 * (i + 1))
        np.savez(files[-1], X=np.repeat(rows[:, np.newaxis], 5, axis=1), Y=rows % 10)
    return files


def noisy_samples(X, Y, sigma=1.0):
    n, d = X.shape

    while True:
        i = np.random.randint(0, n)
        noise = sigma * np.random.randn(1, d)
        yield dict(X=X[i] + noise, Y=Y[i])


# Introduction


@pytest.mark.parametrize("iterable", [range(7), ["foo", "bar"], "abcdef", Streamer(range(3))])
def test_a_streamer_takes_any_iterable(iterable):
    assert list(Streamer(iterable)) == list(iterable)


def test_enumerate_is_a_map():
    assert list(enumerate(Streamer("abc"))) == [(0, "a"), (1, "b"), (2, "c")]


# Why Pescador?


def sample_file(filename):
    X = np.load(filename)

    while True:
        yield dict(X=X[np.random.choice(len(X))])


class Model:
    """Stands for the model of the examples; counts what it was given."""

    def __init__(self):
        self.n_samples = 0

    def partial_fit(self, X):
        assert X.shape == (3,)
        self.n_samples += 1


@pytest.fixture
def all_30k_files(tmp_path):
    files = [tmp_path / f"{i}.npy" for i in range(150)]
    for i, filename in enumerate(files):
        np.save(filename, np.full((20, 3), i))
    return files


def test_out_of_core_sampling(all_30k_files):
    ALL_30K_FILES = all_30k_files
    model = Model()
    streamers = [pescador.Streamer(sample_file, fname) for fname in ALL_30K_FILES]

    for item in pescador.StochasticMux(streamers, n_active=100, rate=8):
        model.partial_fit(item["X"])
        if model.n_samples == 2000:
            break
    assert model.n_samples == 2000


def test_parallel_processing(all_30k_files):
    model = Model()
    streamers = [pescador.Streamer(sample_file, fname) for fname in all_30k_files]

    mux_stream = pescador.StochasticMux(streamers, n_active=100, rate=8)

    for item in pescador.ZMQStreamer(mux_stream):
        model.partial_fit(item["X"])
        if model.n_samples == 500:
            break
    assert model.n_samples == 500


# Basic examples


def test_streamers(labeled):
    X, Y, train = labeled
    streamer = pescador.Streamer(noisy_samples, X[train], Y[train])

    stream2 = streamer.iterate()
    stream3 = streamer()

    for stream in (stream2, stream3, streamer.iterate(), streamer):
        for sample in islice(stream, 3):
            assert sample["X"].shape == (1, 4)
            assert np.shape(sample["Y"]) == ()
    assert len(list(streamer.iterate(max_iter=12))) == 12


def test_mixture_of_noise():
    datasets = pytest.importorskip("sklearn.datasets")
    from sklearn.linear_model import SGDClassifier
    from sklearn.metrics import accuracy_score
    from sklearn.model_selection import ShuffleSplit

    from pescador import StochasticMux

    def noisy_samples(X, Y, sigma=1.0):
        n, d = X.shape

        while True:
            i = np.random.randint(0, n, size=1)
            noise = sigma * np.random.randn(1, d)
            yield dict(X=X[i] + noise, Y=Y[i])

    raw_data = datasets.load_breast_cancer()
    X, Y = raw_data["data"], raw_data["target"]
    classes = np.unique(Y)

    rs = ShuffleSplit(n_splits=1, test_size=0.1)
    for train, test in rs.split(X):
        estimator = SGDClassifier()

        streams = [
            Streamer(noisy_samples, X[train], Y[train], sigma=sigma) for sigma in [0, 0.5, 1.0, 2.0, 4.0]
        ]

        mux_stream = StochasticMux(streams, 3, rate=64)

        for sample in mux_stream(max_iter=5000):
            estimator.partial_fit(sample["X"], sample["Y"], classes=classes)

        Ypred = estimator.predict(X[test])
        # As in the documentation the features are not scaled, so no more can be asked for.
        assert accuracy_score(Y[test], Ypred) > 0.5


def sample_npz(npz_file, n):
    with np.load(npz_file) as data:
        n_total = len(data["X"])

        while True:
            idx = np.random.randint(n_total - n)
            yield dict(X=data["X"][idx : idx + n], Y=data["Y"][idx : idx + n])


def sample_npz_copy(npz_file, n):
    with np.load(npz_file) as data:
        n_total = len(data["X"])

        while True:
            idx = np.random.randint(n_total - n)
            yield dict(
                X=data["X"][idx : idx + n].copy(),
                Y=data["Y"][idx : idx + n].copy(),
            )


@pytest.mark.parametrize("sampler", [sample_npz, sample_npz_copy])
def test_sampling_from_disk(sampler, npz_files):
    n = 16
    streams = [pescador.Streamer(sampler, npz_f, n) for npz_f in npz_files]

    mux_stream = pescador.StochasticMux(streams, n_active=32, rate=16)

    n_batches = 0
    for batch in mux_stream(max_iter=1000):
        first = batch["X"][0, 0]
        np.testing.assert_array_equal(batch["X"][:, 0], np.arange(first, first + n))
        np.testing.assert_array_equal(batch["Y"], batch["X"][:, 0] % 10)
        n_batches += 1
    assert n_batches == 1000


def sample_npy_mmap(npy_x, npy_y, n):
    X = np.load(npy_x, mmap_mode="c")
    Y = np.load(npy_y, mmap_mode="c")

    n_total = len(X)

    while True:
        idx = np.random.randint(n_total - n)
        yield dict(X=X[idx : idx + n], Y=Y[idx : idx + n])


def test_memory_mapping(tmp_path):
    npy_x_files = [tmp_path / f"x{i}.npy" for i in range(40)]
    npy_y_files = [tmp_path / f"y{i}.npy" for i in range(40)]
    for npy_x, npy_y in zip(npy_x_files, npy_y_files, strict=True):
        np.save(npy_x, np.arange(80).reshape(40, 2))
        np.save(npy_y, np.arange(40))
    n = 16

    streams = [
        pescador.Streamer(sample_npy_mmap, npy_x, npy_y, n)
        for (npy_x, npy_y) in zip(npy_x_files, npy_y_files)
    ]

    mux_streamer = pescador.StochasticMux(streams, n_active=32, rate=16)

    for batch in mux_streamer(max_iter=200):
        assert batch["X"].shape == (n, 2)
        np.testing.assert_array_equal(batch["X"][:, 0], 2 * batch["Y"])
    batch["X"][:] = -1  # copy-on-write
    assert all(np.load(npy_x).min() == 0 for npy_x in npy_x_files)


@pytest.mark.parametrize("buffer_stream", [pescador.buffer_stream, pescador.maps.buffer_stream])
def test_buffered_streaming(buffer_stream, labeled):
    X, Y, train = labeled
    streamer = pescador.Streamer(noisy_samples, X[train], Y[train])

    minibatch_size = 128

    buffered_sample_gen = buffer_stream(streamer, minibatch_size)

    def check(batches):
        n_batches = 0
        for batch in batches:
            assert batch["X"].shape == (minibatch_size, 1, 4)
            assert batch["Y"].shape == (minibatch_size,)
            n_batches += 1
            if n_batches == 3:
                break
        assert n_batches == 3

    check(buffered_sample_gen)

    buffered_sample_gen = buffer_stream(streamer, minibatch_size)
    batch_streamer = pescador.Streamer(buffered_sample_gen)
    check(batch_streamer)
    check(batch_streamer)  # goes on where it was left

    batch_streamer = pescador.Streamer(buffer_stream, streamer, minibatch_size)
    check(batch_streamer)
    check(batch_streamer)


def test_buffered_shapes():
    """Samples of shape (4, 5) and a batch size of 10 give arrays of shape (10, 4, 5)."""
    stream = pescador.Streamer([dict(X=np.zeros((4, 5)), Y=1)] * 20)
    shapes = [batch["X"].shape for batch in pescador.maps.buffer_stream(stream, 10)]
    assert shapes == [(10, 4, 5)] * 2


# Parallel streaming


PARALLEL = """
import numpy as np
import pescador
import time


def costly_function(X, n_ops=2):
    for n in range(n_ops):
        if (n % 2):
            X = X ** 3.0
        else:
            X = X ** (1. / 3)

    return X


def data_gen(n_ops=2):
    while True:
        X = np.random.uniform(size=(64, 64))
        yield dict(X=costly_function(X, n_ops),
                   y=np.random.randint(10, size=(1,)))


def timed_sampling(stream, n_iter, desc):
    start_time = time.time()
    for data in stream(max_iter=n_iter):
        costly_function(data['X'])

    duration = time.time() - start_time
    print("{} :: Average time per iteration: {:0.3f} sec"
          .format(desc, duration / max_iter))


max_iter = 1e2

stream = pescador.Streamer(data_gen)
"""

ZMQ = """
timed_sampling(stream, max_iter, 'Single-threaded')

zstream = pescador.ZMQStreamer(stream)
timed_sampling(zstream, max_iter, 'ZMQ')

buffer_size = 16

batches = pescador.Streamer(pescador.buffer_stream, stream, buffer_size)
timed_sampling(batches, max_iter, 'Single-threaded Batches')

zstream = pescador.ZMQStreamer(batches)
timed_sampling(zstream, max_iter, 'ZMQ Batches')
"""

ANY_START = """
import sys
backend, start_method = sys.argv[1:]
pstream = pescador.ParallelStreamer(stream, backend=backend, start_method=start_method)
timed_sampling(pstream, max_iter, backend)
assert len(list(pstream(max_iter=3))) == 3
"""


def run_script(source, folder, *args):
    """Run a plain script, and return what it printed."""
    script = folder / "script.py"
    script.write_text(textwrap.dedent(source), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script), *args], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def _importable(monkeypatch):
    """Let scripts import pescador also where it is not installed."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.mark.usefixtures("_importable")
def test_parallel_streaming_as_a_plain_script(tmp_path):
    lines = run_script(PARALLEL + ZMQ, tmp_path)
    assert [line.partition(" :: ")[0] for line in lines] == [
        "Single-threaded",
        "ZMQ",
        "Single-threaded Batches",
        "ZMQ Batches",
    ]


@pytest.mark.usefixtures("_importable")
@pytest.mark.parametrize("start_method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("backend", ["zmq", "shm"])
def test_a_plain_script_works_under_every_start_method(backend, start_method, tmp_path):
    lines = run_script(PARALLEL + ANY_START, tmp_path, backend, start_method)
    assert len(lines) == 1, "the worker ran the user's script again"


# Keras: the data path of the example, without a model


def test_keras_data_path():
    def sampler(X, y):
        X = np.atleast_2d(X)
        y = np.atleast_1d(y)

        n = X.shape[0]
        while True:
            i = np.random.randint(0, n)
            yield {"X": X[i], "y": y[i]}

    def additive_noise(stream, key="X", scale=1e-1):
        for data in stream:
            noise_shape = data[key].shape
            noise = scale * np.random.randn(*noise_shape)
            data[key] = data[key] + noise
            yield data

    batch_size = 128
    X_train, Y_train = np.zeros((300, 8, 8, 1), "float32"), np.eye(10)[np.arange(300) % 10]

    stream = pescador.Streamer(sampler, X_train, Y_train)
    noisy_stream = pescador.Streamer(additive_noise, stream, "X")

    mux = pescador.StochasticMux([stream, noisy_stream], n_active=2, rate=None)

    batches = pescador.buffer_stream(mux, batch_size)

    assert {bool(sample["X"].any()) for sample in mux(max_iter=200)} == {True, False}, "always active"

    for X, y in islice(pescador.tuples(batches, "X", "y"), 5):
        assert X.shape == (batch_size, 8, 8, 1)
        assert y.shape == (batch_size, 10)
    assert not X_train.any(), "the map wrote into its source"


# Multiplexing examples


def data_gen(filename, m):
    data = np.load(filename)
    X = data["X"]
    Y = data["Y"]

    for i in range(m):
        yield dict(X=X[i], y=Y[i])


# np.load leaves the archive open, as the documentation writes it.
leaves_archives_open = pytest.mark.filterwarnings("ignore::ResourceWarning")


@leaves_archives_open
def test_repeatable_streams(npz_files):
    val_files = npz_files[:2]
    N = len(val_files)
    M = 10

    val_streams = [pescador.Streamer(data_gen, fn, M) for fn in val_files]

    val_stream = pescador.ChainMux(val_streams, mode="cycle")

    rows = [int(sample["X"][0]) for sample in val_stream(max_iter=3 * N * M)]
    assert rows == [*range(10), *range(40, 50)] * 3


@leaves_archives_open
@pytest.mark.parametrize("n_files", [3, 120])  # fewer than are to be active, as in the example, and more
def test_epochs(npz_files, n_files):
    files = npz_files[:n_files]
    N = len(files)
    M = 10

    streams = [pescador.Streamer(data_gen, fn, M) for fn in files]

    k = 100

    mux = pescador.StochasticMux(streams, k, rate=None, mode="exhaustive")

    epoch_stream = mux(cycle=True)

    epochs = [[int(sample["X"][0]) for sample in islice(epoch_stream, N * M)] for _ in range(3)]
    epoch_stream.close()
    everything = sorted(40 * i + row for i in range(N) for row in range(M))
    assert all(sorted(epoch) == everything for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 3, "two epochs had the same order"


def letter(c):
    while True:
        yield c


def test_hierarchical_sampling():
    pop1 = [pescador.Streamer(letter, c) for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    pop2 = [pescador.Streamer(letter, c) for c in "abcdefghijklmnopqrstuvwxyz"]

    mux1 = pescador.StochasticMux(pop1, 3, 5)

    mux2 = pescador.StochasticMux(pop2, 5, 2)

    hier_mux = pescador.ShuffledMux([mux1, mux2])
    assert len("".join(hier_mux(max_iter=80))) == 80

    weight_mux = pescador.ShuffledMux([mux1, mux2], weights=[0.75, 0.25])
    assert len("".join(weight_mux(max_iter=80))) == 80

    # Five standard deviations: a fair mux fails one seed in 1.7 million. The seed is fixed.
    n = 10000
    for mux, share in ((hier_mux, 0.5), (weight_mux, 0.75)):
        n_upper = sum(c.isupper() for c in mux(max_iter=n))
        assert abs(n_upper - n * share) < 5 * np.sqrt(n * share * (1 - share))


def npz_generator(npz_path):
    npz_data = np.load(npz_path)
    X = npz_data["X"]
    y = npz_data["Y"]

    n = X.shape[0]

    while True:
        i = np.random.randint(0, n)
        yield {"X": X[i], "Y": y[i]}


def split_and_save_datasets(X, Y, paths):
    shuffled_idxs = np.random.permutation(np.arange(len(X)))
    for i in range(len(paths)):
        X_i = X[shuffled_idxs[i :: len(paths)]]
        Y_i = Y[shuffled_idxs[i :: len(paths)]]
        np.savez(paths[i], X=X_i, Y=Y_i)


@leaves_archives_open
def test_several_datasets(tmp_path):
    datasets = [str(tmp_path / f"dataset{i}_train.npz") for i in (1, 2, 3)]
    split_and_save_datasets(np.random.randn(90, 8, 8), np.eye(10)[np.arange(90) % 10], datasets)

    streams = [pescador.Streamer(npz_generator, x) for x in datasets]

    with pytest.warns(DeprecationWarning, match="StochasticMux") as caught:
        mux = pescador.Mux(streams, k=len(streams), rate=None)
    assert caught[0].filename == __file__, "the warning does not point at the caller"
    everywhere = list(mux(max_iter=200))
    assert len(everywhere) == 200
    stored = [np.load(path)["X"] for path in datasets]
    found = {next(i for i in range(3) if (stored[i] == x["X"]).all((1, 2)).any()) for x in everywhere}
    assert found == {0, 1, 2}, "three streams, always active"

    with pytest.warns(DeprecationWarning, match="StochasticMux"):
        mux = pescador.Mux(streams, k=1, rate=1000)

    shapes = []
    for data in mux(max_iter=10):
        shapes.append(dict((k, v.shape) for k, v in data.items()))
    assert shapes == [{"X": (8, 8), "Y": (10,)}] * 10


# API reference


def my_generator(n):
    for i in range(n):
        yield i


def test_streamer_reference():
    stream = Streamer(my_generator, 5)
    assert [i for i in stream] == [0, 1, 2, 3, 4]
    assert [i for i in stream(max_items=3)] == [0, 1, 2]
    assert [i for i in islice(stream.cycle(), 8)] == [0, 1, 2, 3, 4, 0, 1, 2]
    assert [i for i in stream.cycle(max_iter=7)] == [0, 1, 2, 3, 4, 0, 1]
    assert [i for i in islice(stream(cycle=True), 8)] == [0, 1, 2, 3, 4, 0, 1, 2]
    assert (stream.streamer, list(stream.args), stream.kwargs) == (my_generator, [5], {})
    assert not stream.active
    assert not stream.is_activated_copy
    with stream as active:
        assert stream.active
        assert active.is_activated_copy


def test_zmq_streamer_reference():
    def my_generator():
        for i in range(5):
            yield dict(X=np.full(3, i))

    received = []

    def MY_FUNCTION(data):
        received.append(data["X"].tolist())

    S = pescador.Streamer(my_generator)
    Z = pescador.ZMQStreamer(S)
    for data in Z:
        MY_FUNCTION(data)
    assert received == [[i] * 3 for i in range(5)]
    assert len(list(Z.iterate(max_iter=3))) == 3
    assert len(list(Z(3))) == 3
    assert len(list(Z.cycle(max_iter=7))) == 7
    assert len(list(Z(max_iter=7, cycle=True))) == 7
    assert not Z.active
    assert not Z.is_activated_copy
    Z.close()


def test_zmq_streamer_takes_its_parameters():
    Z = pescador.ZMQStreamer(
        Streamer(range(4)), min_port=49152, max_port=65535, max_tries=100, copy=False, timeout=5
    )
    assert list(Z) == [0, 1, 2, 3]
    Z.close()


def test_a_list_of_strings_as_streamers():
    assert "".join(pescador.RoundRobinMux(["abc", "12"])) == "a1b2c"
    assert "".join(pescador.ChainMux(["abc", "12"])) == "abc12"
    assert sorted(pescador.StochasticMux(["abc", "12"], 2, None, mode="exhaustive")) == list("12abc")
    assert set(pescador.ShuffledMux(["a", "b"])(max_iter=100)) == {"a", "b"}


def test_modes_of_stochastic_mux():
    streams = [Streamer(letter, c) for c in "abc"]
    for mode in ("with_replacement", "single_active", "exhaustive"):
        mux = pescador.StochasticMux(streams, 2, rate=64, mode=mode)
        assert len(list(mux(max_iter=20))) == 20


def test_maps_reference():
    items = [dict(X=1, Y=2)]
    assert list(pescador.tuples(items, "X", "Y")) == [(1, 2)]
    assert list(pescador.keras_tuples(items, inputs="X", outputs="Y")) == [(1, 2)]
    assert next(pescador.buffer_stream(items * 2, 2))["X"].tolist() == [1, 1]
