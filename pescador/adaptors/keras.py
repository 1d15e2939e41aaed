"""Keras: a stream as a PyDataset, for ``fit()``, ``evaluate()`` and ``predict()`` on every backend.

Keras asks for the batches of an epoch by number, shuffled by default; it gets the next one of the stream
each time, for a stream has an order of its own. In which epoch of the stream that is follows from what Keras
does:

- At each ``fit()``, ``evaluate()`` or ``predict()`` it makes an adapter, which reads `workers`. An epoch
  that was broken off before (by ``stop_training``, or an exception) is over then.
- It tries some batches: one to build the model, if need be, and on TensorFlow two for their types and shapes.
  ``on_epoch_begin()`` or ``on_epoch_end()`` follows, and the epoch begins again. The latter is also the end
  of trying; ``predict()`` has none before its batches, so that the next call gets the same ones.
- After that, ``on_epoch_end()`` in the middle of an epoch comes of `steps_per_epoch`: Keras goes on where it
  was, and so does this. Without `advance`, it is the end of an evaluation, and the next one begins anew.

TensorFlow asks on threads of its own, ahead of what it trains on, but not beyond the end of an epoch. After a
``fit()`` that was broken off it goes on to ask, until its iterator is freed, which Keras leaves in a cycle of
references. So it is freed before the next ``fit()``, at ``close()``, and before the interpreter ends, where
TensorFlow would warn of it. While an exception keeps it nevertheless, a closed dataset gives no batch.
"""

from __future__ import annotations

import atexit
import gc
import threading
import weakref
from collections.abc import Generator, Iterable
from typing import Any, TypeVar

from ..core import Streamer
from ..epochs import Epochs
from ..exceptions import MissingLibraryError, ParameterError, PescadorError
from ..maps import keras_tuples
from ..opening import State

try:
    from keras.config import backend
    from keras.utils import PyDataset
except ImportError as error:
    raise MissingLibraryError(
        f"pescador.adaptors.keras needs Keras 3 and the backend that KERAS_BACKEND names ({error}): "
        'pip install "pescador[keras]"'
    ) from error

__all__ = ["StreamDataset"]

Keys = str | Iterable[str] | None
Self = TypeVar("Self", bound="StreamDataset")

if ASKS_AHEAD := backend() == "tensorflow":
    # Exit functions run in reverse order. The one that ends pools is registered by the first finalizer of the
    # interpreter: so one is made before, and what asks for batches is freed while the pools are still there.
    weakref.finalize(PyDataset, int).detach()
    atexit.register(gc.collect)


class StreamDataset(PyDataset):  # type: ignore[misc]  # mypy does not read Keras
    """A stream as a Keras dataset: each epoch of ``fit()`` is the next epoch of the stream, and whole.

    Parameters
    ----------
    stream : Streamer or iterable
        Of batches.
    length : int
        Number of batches in an epoch, see :class:`pescador.Epochs`. So ``steps_per_epoch`` is not needed; if
        it is less, Keras goes on in the next of its epochs.
    inputs, outputs, weights : str, iterable of str, or None
        Keys of the inputs, the targets and the sample weights in the batches, which are dicts; several keys
        give a tuple. Without `inputs`, the batches are given to Keras as they are: as tuples such as (x, y).
    advance : bool
        Whether each epoch is the next one. False gives the same batches each time, for validation.

    Notes
    -----
    Keras would ask workers of its own for batches in any order, so this takes none: give the stream workers
    instead, ``StreamDataset(pescador.ParallelStreamer(stream, n_workers=2), ...)``.

    Close it, or use it in a ``with`` block: after an exception in ``fit()``, the stream is open until then.

    Keras refuses a Streamer itself ("Unrecognized data type"), and goes but once through a generator of it.

    Examples
    --------
    >>> import numpy as np, pescador
    >>> from pescador.adaptors.keras import StreamDataset
    >>> batches = pescador.Streamer([{"x": np.zeros((2, 3)), "y": np.ones(2)}])
    >>> dataset = StreamDataset(batches, 10, inputs="x", outputs="y")
    >>> x, y = dataset[0]
    >>> len(dataset), x.shape, y.shape
    (10, (2, 3), (2,))
    """

    def __init__(
        self,
        stream: Streamer[Any] | Iterable[Any],
        length: int,
        inputs: Keys = None,
        outputs: Keys = None,
        weights: Keys = None,
        *,
        advance: bool = True,
    ) -> None:
        super().__init__()
        if length is None:
            raise ParameterError("Keras needs the length of an epoch: StreamDataset(stream, 1000)")
        if inputs is None and (outputs is not None or weights is not None):
            raise ParameterError("inputs are needed where outputs or weights are named")
        self.epochs = Epochs(stream, length, advance=advance)
        self._keys = [
            keys if keys is None or isinstance(keys, str) else list(keys)
            for keys in (inputs, outputs, weights)
        ]
        self._lock = threading.RLock()
        # An epoch, and how many of its batches were asked for.
        self._items: Generator[Any, None, None] | None = None
        self._n_given = 0
        self._tries = False  # whether the batches that Keras asks for may be those that it tries
        self._is_closed = False

    def __len__(self) -> int:
        return len(self.epochs)

    def __getitem__(self, index: int) -> Any:
        """Return the next batch, whatever the index."""
        with self._lock:
            batch = self._next_batch()
            if self._n_given == len(self):
                self._close_epoch()
        inputs, outputs, weights = self._keys
        if inputs is None:
            return batch
        x_y = next(keras_tuples([batch], inputs, outputs, weights))
        return x_y[:1] if outputs is None and weights is None else x_y

    def _next_batch(self) -> Any:
        if self._is_closed:
            raise PescadorError("this StreamDataset was closed: give it to fit() again, or make another one")
        while True:
            if self._items is None:
                self._items, self._n_given = iter(self.epochs), 0
            if (batch := next(self._items, None)) is not None:
                self._n_given += 1
                return batch
            self._close_epoch()  # an epoch that went on from a state has less

    def _close_epoch(self) -> None:
        """Close the epoch that is open, if any, which is begun again if Keras tried its batches."""
        items, self._items = self._items, None
        if items is not None:
            items.close()
            if self._tries:
                self.epochs.rewind()

    def _free_iterator(self) -> None:
        """Free that of a ``fit()`` that was broken off. Not with the lock, for which it may wait."""
        if ASKS_AHEAD and self._items is not None:
            gc.collect()

    @property
    def workers(self) -> int:
        """1: Keras asks for batches on one thread. To read it tells the dataset that a ``fit()`` begins."""
        self._free_iterator()
        with self._lock:
            self._tries = False
            self._close_epoch()
            self._tries, self._is_closed = True, False
        return 1

    @workers.setter
    def workers(self, workers: int) -> None:
        if workers > 1:
            raise PescadorError(
                f"workers={workers}, but workers of Keras ask for batches in any order. Give the stream "
                "workers of its own: StreamDataset(pescador.ParallelStreamer(stream, n_workers=...), ...)"
            )

    @property
    def use_multiprocessing(self) -> bool:
        """False: each process of Keras would give the whole stream."""
        return False

    @use_multiprocessing.setter
    def use_multiprocessing(self, value: bool) -> None:
        if value:
            raise PescadorError(
                "with use_multiprocessing, each process of Keras would give the whole stream. Give the "
                "stream workers of its own: StreamDataset(pescador.ParallelStreamer(stream, n_workers=...), "
                "...)"
            )

    def on_epoch_begin(self) -> None:
        """Take note that Keras begins an epoch of its own."""
        with self._lock:
            if self._tries:
                self._close_epoch()

    def on_epoch_end(self) -> None:
        """Take note that Keras has tried its batches, or is at the end of an epoch of its own."""
        with self._lock:
            if self._tries or not self.epochs.advance:
                self._close_epoch()
            self._tries = False

    def set_epoch(self, epoch: int) -> None:
        """Let the next epoch be that of this number, see :meth:`pescador.Epochs.set_epoch`."""
        self.epochs.set_epoch(epoch)

    def state_dict(self) -> State:
        """Return where the stream stands, see :meth:`pescador.Epochs.state_dict`.

        It is exact at the end of an epoch. In the middle of one, TensorFlow has asked for batches that it has
        not trained on yet; those are given, and the state goes on after them.
        """
        with self._lock:
            return self.epochs.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Go on from a state, see :meth:`pescador.Epochs.load_state_dict`.

        If it was saved in mid-epoch, the first epoch of Keras ends with batches of the next one.
        """
        with self._lock:
            self._close_epoch()
            self.epochs.load_state_dict(state)

    def close(self) -> None:
        """Close the stream, and the workers of a ParallelStreamer."""
        self._free_iterator()
        with self._lock:
            self._is_closed = True
            self._close_epoch()
            self.epochs.close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
