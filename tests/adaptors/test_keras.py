"""StreamDataset for Keras, in fit(), evaluate() and predict()."""

import json
import os
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest

from pescador import PescadorError

from ..kinds import ROOT
from .conftest import memory, needs, stream_of

needs("keras", "torch")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import keras

from pescador.adaptors.keras import StreamDataset  # noqa: E402 -- only where it is installed


class Recording(StreamDataset):
    """Keeps a mark of each batch that it gives."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.given = []

    def __getitem__(self, index):
        batch = super().__getitem__(index)
        self.given.append(float(np.asarray(batch[0]).flat[0]))
        return batch


class Seen(keras.callbacks.Callback):
    """Says at the end of each epoch what was given in it, and may stop or raise in the middle."""

    def __init__(self, dataset, at=None, action=None):
        super().__init__()
        self.dataset, self.at, self.action, self.epochs = dataset, at, action, []

    def on_epoch_begin(self, epoch, logs=None):
        self.dataset.given.clear()

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.at:
            self.action(self.model)

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(list(self.dataset.given))


def model(is_built=True):
    layers = [keras.Input((4,))] if is_built else []
    one = keras.Sequential([*layers, keras.layers.Rescaling(1 / (1 << 20)), keras.layers.Dense(1)])
    one.compile("sgd", "mse")
    return one


def dataset_of(n=8, backend=None, length=8, advance=True, random_state=0):
    return Recording(
        stream_of(n, backend=backend, random_state=random_state), length, "x", "y", advance=advance
    )


def expected(n_epochs, random_state=0):
    stream = stream_of(random_state=random_state)
    return [[float(b["x"][0, 0]) for b in stream.iterate(epoch=epoch)] for epoch in range(n_epochs)]


@pytest.mark.parametrize("is_built", [True, False])
@pytest.mark.parametrize("shuffle", [True, False])
def test_each_epoch_is_whole_and_the_next_and_validation_is_fixed(backend, is_built, shuffle):
    with dataset_of(backend=backend) as train, dataset_of(advance=False, random_state=1) as validation:
        seen = Seen(train)
        model(is_built).fit(
            train, validation_data=validation, epochs=3, callbacks=[seen], shuffle=shuffle, verbose=0
        )
        assert seen.epochs == expected(3)
        assert validation.given == expected(1, random_state=1)[0] * 3


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # predict() itself
def test_evaluate_and_predict_see_the_same_each_time():
    one = model(False)
    with dataset_of(advance=False) as data:
        scores = [float(one.evaluate(data, verbose=0)) for _ in range(3)]
        assert len(set(scores)) == 1
        assert data.given[-24:] == expected(1)[0] * 3
        one.evaluate(data, steps=3, verbose=0)
        data.given.clear()
        one.evaluate(data, verbose=0)
        assert data.given == expected(1)[0]
    with StreamDataset(stream_of(), 8, "x", advance=False) as data:
        assert one.predict(data, verbose=0).shape == (24, 1)


def test_validation_steps_begin_anew_each_time():
    with dataset_of() as train, dataset_of(advance=False, random_state=1) as validation:
        model().fit(train, validation_data=validation, validation_steps=3, epochs=3, verbose=0)
        assert validation.given == expected(1, random_state=1)[0][:3] * 3


@pytest.mark.parametrize("is_built", [True, False])
def test_steps_per_epoch_go_on_where_the_epoch_before_ended(is_built):
    with dataset_of() as train:
        seen = Seen(train)
        model(is_built).fit(train, epochs=4, steps_per_epoch=4, callbacks=[seen], verbose=0)
        assert seen.epochs == [half for epoch in expected(2) for half in (epoch[:4], epoch[4:])]


@pytest.mark.parametrize("is_built", [True, False])
def test_an_epoch_that_was_stopped_counts_and_the_next_fit_begins_the_next(backend, is_built):
    def stop(one):
        one.stop_training = True

    with dataset_of(backend=backend) as train:
        seen = Seen(train, 2, stop)
        one = model(is_built)
        one.fit(train, epochs=3, callbacks=[seen], verbose=0)
        one.fit(train, epochs=2, callbacks=[later := Seen(train)], verbose=0)
        assert seen.epochs == [expected(1)[0][:3]]
        assert later.epochs == expected(3)[1:]


def test_an_exception_in_fit_leaves_nothing(backend):
    def fail(one):
        raise RuntimeError("in fit")

    with dataset_of(200, backend=backend, length=200) as train, pytest.raises(RuntimeError, match="in fit"):
        model().fit(train, callbacks=[Seen(train, 2, fail)], verbose=0)


def test_an_error_of_the_stream_comes_out_of_fit(backend):
    with (
        StreamDataset(stream_of(backend=backend), 8, "x", "z") as train,
        pytest.raises(PescadorError, match="no 'z' in"),
    ):
        model().fit(train, verbose=0)


def test_several_inputs_and_weights():
    first, second = keras.Input((4,)), keras.Input((1,))
    joined = keras.layers.Concatenate()([keras.layers.Rescaling(1 / (1 << 20))(first), second])
    one = keras.Model([first, second], keras.layers.Dense(1)(joined))
    one.compile("sgd", "mse")
    with StreamDataset(stream_of(), 8, ["x", "y"], "y", "w") as train:
        one.fit(train, epochs=2, verbose=0)
        (x, y), target, weights = train[0]
    assert (x.shape, y.shape, target.shape, weights.shape) == ((3, 4), (3, 1), (3, 1), (3,))


def test_batches_are_given_as_they_are_without_keys():
    with StreamDataset([(np.zeros((2, 4)), np.zeros((2, 1)))], 3) as train:
        model().fit(train, verbose=0)


def test_goes_on_in_mid_epoch(backend):
    with dataset_of(backend=backend) as train:
        first = [train[i][0][0, 0] for i in range(3)]
        state = json.loads(json.dumps(train.state_dict()))
    later = dataset_of()
    later.load_state_dict(state)
    seen = Seen(later)
    model(False).fit(later, epochs=1, callbacks=[seen], verbose=0)
    whole = expected(2)
    assert first + seen.epochs[0] == whole[0] + whole[1][:3]


@pytest.mark.parametrize(("name", "value"), [("workers", 2), ("use_multiprocessing", True)])
def test_workers_of_keras_are_refused(name, value):
    with pytest.raises(PescadorError, match=r"ParallelStreamer\(stream, n_workers="):
        setattr(dataset_of(), name, value)


@pytest.mark.parametrize("options", [{"length": None}, {"length": 3, "outputs": "y"}])
def test_parameters_that_cannot_be_raise(options):
    with pytest.raises(PescadorError, match=r"length|inputs"):
        StreamDataset([], **options)


def test_memory_is_flat(backend):
    sizes = []

    class Memory(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch in (300, 1999):
                sizes.append(memory())

    with StreamDataset(stream_of(2000, 1000, backend), 2000, "x", "y") as train:
        model().fit(train, callbacks=[Memory()], verbose=0)
    assert sizes[1] - sizes[0] < 16 << 20  # bytes; all batches have 40 MB


def test_the_jax_backend():
    pytest.importorskip("jax", reason="needs jax")
    script = """
        from tests.adaptors.test_keras import *
        assert keras.backend.backend() == "jax"
        for is_built in (True, False):
            with dataset_of() as train, dataset_of(advance=False, random_state=1) as validation:
                seen = Seen(train)
                model(is_built).fit(train, validation_data=validation, epochs=3, callbacks=[seen], verbose=0)
                assert seen.epochs == expected(3), seen.epochs
                assert validation.given == expected(1, random_state=1)[0] * 3
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
