"""StreamDataset for Keras, in fit(), evaluate() and predict().

A process has one backend of Keras, that of KERAS_BACKEND. So all this is run again for each of the others.
"""

import json
import os
import sys
import textwrap
import warnings

import numpy as np
import pytest

from pescador import PescadorError, Streamer

from .conftest import memory, needs, run, stream_of

needs("keras", os.environ["KERAS_BACKEND"])

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import keras

from pescador.adaptors.keras import StreamDataset  # noqa: E402 -- only where it is installed


class Mark(keras.metrics.Metric):
    """The mark of the last batch that the model was trained or evaluated on."""

    def __init__(self):
        super().__init__(name="mark")
        self.last = self.add_weight(shape=(), initializer="zeros", name="last")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.last.assign(y_true[0, 0])

    def result(self):
        return self.last * (1 << 20)


class Seen(keras.callbacks.Callback):
    """Has the marks of the batches of each epoch and evaluation, and may stop or raise in the middle."""

    def __init__(self, at=None, action=None):
        super().__init__()
        self.at, self.action, self.epochs, self.evaluations = at, action, [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs.append([])

    def on_train_batch_end(self, batch, logs=None):
        self.epochs[-1].append(float(logs["mark"]))
        if batch == self.at:
            self.action(self.model)

    def on_test_begin(self, logs=None):
        self.evaluations.append([])

    def on_test_batch_end(self, batch, logs=None):
        self.evaluations[-1].append(float(logs["mark"]))


def model(is_built=True):
    layers = [keras.Input((4,))] if is_built else []
    one = keras.Sequential([*layers, keras.layers.Rescaling(1 / (1 << 20)), keras.layers.Dense(1)])
    one.compile("sgd", "mse", metrics=[Mark()])
    return one


def dataset_of(n=8, backend=None, length=8, advance=True, random_state=0):
    stream = stream_of(n, backend=backend, random_state=random_state)
    return StreamDataset(stream, length, "x", "y", advance=advance)


def fit(one, data, **options):
    """Return what the model saw, by epochs."""
    one.fit(data, callbacks=[seen := Seen()], verbose=0, **options)
    return seen.epochs


def expected(n_epochs, n=8, random_state=0):
    stream = stream_of(n, random_state=random_state)
    return [[float(b["x"][0, 0]) for b in stream.iterate(epoch=epoch)] for epoch in range(n_epochs)]


@pytest.mark.parametrize(("is_built", "shuffle"), [(True, True), (False, False)])
def test_each_epoch_is_whole_and_the_next_and_validation_is_fixed(backend, is_built, shuffle):
    with dataset_of(backend=backend) as train, dataset_of(advance=False, random_state=1) as validation:
        model(is_built).fit(
            train,
            validation_data=validation,
            epochs=3,
            callbacks=[seen := Seen()],
            shuffle=shuffle,
            verbose=0,
        )
    assert seen.epochs == expected(3)
    assert seen.evaluations == expected(1, random_state=1) * 3


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("is_built", [True, False])
def test_batches_that_keras_tries_are_given_again(length, is_built):
    with dataset_of(length=length) as train:
        one = model(is_built)
        found = fit(one, train, epochs=2) + fit(one, train)
    assert found == [epoch[:length] for epoch in expected(3)]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # predict() itself
@pytest.mark.parametrize("is_built", [True, False])
def test_evaluate_and_predict_see_the_same_each_time(is_built):
    seen, one = Seen(), model(is_built)

    def evaluate(**options):
        one.evaluate(data, callbacks=[seen], verbose=0, **options)

    with StreamDataset(stream_of(), 8, "x", advance=False) as inputs:
        first, second = (one.predict(inputs, verbose=0) for _ in range(2))
        assert first.shape == (24, 1)
        np.testing.assert_array_equal(first, second)
        assert np.unique(first).size == 8
    with dataset_of(advance=False) as data:
        evaluate()
        evaluate(steps=3)
        evaluate()
    whole = expected(1)[0]
    assert seen.evaluations == [whole, whole[:3], whole]


def test_validation_steps_begin_anew_each_time():
    with dataset_of() as train, dataset_of(advance=False, random_state=1) as validation:
        model().fit(
            train,
            validation_data=validation,
            validation_steps=3,
            epochs=3,
            callbacks=[seen := Seen()],
            verbose=0,
        )
    assert seen.evaluations == [expected(1, random_state=1)[0][:3]] * 3


@pytest.mark.parametrize("is_built", [True, False])
def test_steps_per_epoch_go_on_where_the_epoch_before_ended(is_built):
    with dataset_of() as train:
        found = fit(model(is_built), train, epochs=4, steps_per_epoch=4)
    assert found == [half for epoch in expected(2) for half in (epoch[:4], epoch[4:])]


@pytest.mark.parametrize("is_built", [True, False])
@pytest.mark.parametrize("n", [8, 200])  # all are asked for ahead, or some
def test_an_epoch_that_was_stopped_counts_and_the_next_fit_begins_the_next(backend, is_built, n):
    def stop(one):
        one.stop_training = True

    with dataset_of(n, backend, n) as train:
        one = model(is_built)
        one.fit(train, epochs=3, callbacks=[seen := Seen(2, stop)], verbose=0)
        later = fit(one, train, epochs=2)
    whole = expected(3, n=n)
    assert seen.epochs == [whole[0][:3]]
    assert later == whole[1:]


def fail(one):
    raise RuntimeError("in fit")


def test_an_exception_in_fit_leaves_nothing(backend):
    with dataset_of(200, backend, 200) as train, pytest.raises(RuntimeError, match="in fit"):
        model().fit(train, callbacks=[Seen(2, fail)], verbose=0)


def test_an_exception_in_fit_ends_the_epoch(backend):
    with dataset_of(200, backend, 200) as train:
        with pytest.raises(RuntimeError, match="in fit"):
            model().fit(train, callbacks=[Seen(2, fail)], verbose=0)
        assert fit(model(), train) == expected(2, n=200)[1:]


def test_a_closed_dataset_is_opened_by_fit_alone(backend):
    train = dataset_of(backend=backend)
    train[0]
    train.close()
    with pytest.raises(PescadorError, match="closed"):
        train[1]
    with train:
        assert fit(model(), train) == expected(2)[1:]


def test_an_error_of_the_stream_comes_out_of_fit(backend):
    with (
        StreamDataset(stream_of(backend=backend), 8, "x", "z") as train,
        pytest.raises(PescadorError, match="no 'z' in"),
    ):
        model().fit(train, verbose=0)


def failing():
    yield from [(np.zeros((2, 4)), np.zeros((2, 1)))] * 4
    raise RuntimeError("in the stream")


def test_an_error_in_mid_epoch_comes_out_of_fit():
    # TensorFlow's own error then, which has the text of that of the stream
    with StreamDataset(Streamer(failing), 8) as train, pytest.raises(Exception, match="in the stream"):
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


@pytest.mark.parametrize("n_before", [3, 7])
def test_goes_on_in_mid_epoch(backend, n_before):
    with dataset_of(backend=backend) as train:
        first = [float(train[i][0][0, 0]) for i in range(n_before)]
        state = json.loads(json.dumps(train.state_dict()))
    with dataset_of() as later:
        later.load_state_dict(state)
        epoch, after = fit(model(False), later, epochs=2)
    assert first + epoch + after == [mark for whole in expected(3) for mark in whole][: n_before + 16]


def test_a_state_at_the_end_of_an_epoch_is_exact(backend):
    states = []

    with dataset_of(backend=backend) as train:
        save = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: states.append(train.state_dict()))
        model().fit(train, epochs=2, callbacks=[save], verbose=0)
    found = []
    for state in states:
        with dataset_of() as later:
            later.load_state_dict(json.loads(json.dumps(state)))
            found += fit(model(), later)
    assert found == expected(3)[1:]


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


def test_a_script_that_broke_off_fit_ends_silently():
    script = """
        from tests.adaptors.test_keras import *

        def stop(one):
            one.stop_training = True

        stopped, failed = (dataset_of(2000, "shm", 2000) for _ in range(2))
        model().fit(stopped, callbacks=[Seen(2, stop)], verbose=0)
        with pytest.raises(RuntimeError):
            model().fit(failed, callbacks=[Seen(2, fail)], verbose=0)
        print("the end", file=sys.stderr)  # TensorFlow has its say before that
    """
    done = run(sys.executable, "-c", textwrap.dedent(script))
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.endswith("the end\n")


@pytest.mark.parametrize("other", sorted({"torch", "jax", "tensorflow"} - {os.environ["KERAS_BACKEND"]}))
def test_all_this_with_another_backend(other):
    if other == "tensorflow" and (sys.platform != "linux" or sys.version_info >= (3, 14)):
        pytest.skip("the extra `frameworks` has no TensorFlow for this machine")
    needs(other)
    tests = run(
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "0",
        "-k",
        "not another_backend",
        __file__,
        KERAS_BACKEND=other,
    )
    assert tests.returncode == 0, tests.stdout + tests.stderr
