"""PyTorch: a stream as a dataset for its DataLoader, and for what is built on that.

Its workers would each give the whole stream, so a stream has workers of its own instead, see
:class:`pescador.ParallelStreamer`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

from ..core import Streamer
from ..epochs import Epochs
from ..exceptions import MissingLibraryError, PescadorError
from ..opening import State
from ..sharding import shard

try:
    import torch
    from torch.utils.data import IterableDataset, get_worker_info
except ImportError as error:
    raise MissingLibraryError(
        f'pescador.adaptors.torch needs PyTorch ({error}): pip install "pescador[torch]"'
    ) from error

__all__ = ["StreamDataset"]

Self = TypeVar("Self", bound="StreamDataset")

NUMBERS = "biufc"  # kinds of the dtypes that tensors have: bool, signed, unsigned, floating, complex


class StreamDataset(IterableDataset):  # type: ignore[misc]  # mypy does not read PyTorch
    """A stream as a PyTorch dataset, of which every iteration is the next epoch.

    The items are batches, or samples: they come as they are, with tensors in place of arrays, which share
    their memory. So the loader is told not to batch: ``DataLoader(dataset, batch_size=None)``.

    Parameters
    ----------
    stream : Streamer or iterable
        Of items of any kind. In dicts, lists and tuples, arrays of numbers and NumPy's numbers become
        tensors; other arrays (of strings, of objects) and all else stay as they are. Arrays that are
        read-only, have negative strides or another byte order are copied.
    length : int, optional
        Number of items of each epoch (for each rank), see :class:`pescador.Epochs`.
    advance : bool
        Whether each iteration is the next epoch. False gives the same items each time, for validation.
    rank, world : int
        For data-parallel training: this process takes its part of the stream, see :func:`pescador.shard`: all
        ranks get different items, and equally many. They need the same stream with the same `random_state`.
        Leave it out if each rank has a stream of its own, such as a part by streams, and where the framework
        distributes the items itself, as accelerate does.

    Raises
    ------
    PescadorError
        While iterating: in a worker of a DataLoader.

    Examples
    --------
    >>> import numpy as np, pescador
    >>> from torch.utils.data import DataLoader
    >>> from pescador.adaptors.torch import StreamDataset
    >>> mux = pescador.ShuffledMux([({"x": np.full(2, i)} for i in range(9))], random_state=0)
    >>> with StreamDataset(mux, length=2) as dataset:
    ...     for batch in DataLoader(dataset, batch_size=None):
    ...         print(batch["x"])
    tensor([0, 0])
    tensor([1, 1])
    """

    def __init__(
        self,
        stream: Streamer[Any] | Iterable[Any],
        length: int | None = None,
        *,
        advance: bool = True,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        super().__init__()
        self.epochs = Epochs(shard(stream, rank, world), length, advance=advance)

    def __len__(self) -> int:
        return len(self.epochs)

    def __iter__(self) -> Iterator[Any]:
        if get_worker_info() is not None:
            raise PescadorError(
                "each worker of a DataLoader would give the whole stream: use DataLoader(dataset, "
                "batch_size=None, num_workers=0), and give the stream workers of its own: "
                "StreamDataset(pescador.ParallelStreamer(stream, n_workers=2))"
            )
        return map(to_tensors, self.epochs)

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration give an epoch of this number, see :meth:`pescador.Epochs.set_epoch`."""
        self.epochs.set_epoch(epoch)

    def state_dict(self) -> State:
        """Return where the stream stands, see :meth:`pescador.Epochs.state_dict`."""
        return self.epochs.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Let the next iteration go on from a state, see :meth:`pescador.Epochs.load_state_dict`."""
        self.epochs.load_state_dict(state)

    def close(self) -> None:
        """Close the stream, and the workers of a ParallelStreamer."""
        self.epochs.close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def to_tensors(item: Any) -> Any:
    """Return an item with tensors in place of its arrays of numbers."""
    # Not by default_convert: it warns of read-only arrays, raises for others, and makes lists of tuples.
    if isinstance(item, np.ndarray | np.generic):
        return _to_tensor(np.asarray(item)) if item.dtype.kind in NUMBERS else item
    kind = type(item)
    if kind is dict:
        return {key: to_tensors(value) for key, value in item.items()}
    if isinstance(item, tuple) and hasattr(item, "_fields"):
        return kind(*map(to_tensors, item))
    if kind in (tuple, list):
        return kind(map(to_tensors, item))
    return item


def _to_tensor(array: np.ndarray[Any, Any]) -> Any:
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    return torch.from_numpy(array)
