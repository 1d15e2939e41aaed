"""Maps: generators that batch and reformat the items of a stream.

Each takes any iterable of items that have keys: dicts, other mappings, rows of a table. To get a Streamer
again, hand the map to one: ``Streamer(buffer_stream, stream, 128)``.
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from .arguments import stateless
from .checks import whole_number
from .describe import describe
from .exceptions import DataError, MissingKeyError, ParameterError
from .memory import empty
from .sampling import blocks
from .seeding import RandomState, Seed, SeedSource

__all__ = ["buffer_stream", "cache", "keras_tuples", "tuples"]

T = TypeVar("T")
Item = Mapping[str, Any]
Array = npt.NDArray[Any]

_NOTHING: Array = np.empty(0)


@stateless
def buffer_stream(
    stream: Iterable[Item], buffer_size: int, partial: bool = False, axis: int | None = None
) -> Generator[dict[str, Array], None, None]:
    """Collect the items of a stream into batches.

    Parameters
    ----------
    stream : iterable of dict
        Every item has the same keys, and anything that has keys is an item. The values of a key are arrays
        (or scalars) of one shape; their dtypes are promoted as by :func:`numpy.stack`.
    buffer_size : int
        Number of items in a batch.
    partial : bool
        Whether the items left at the end of the stream are yielded as a smaller batch.
    axis : int, optional
        Axis along which the values are concatenated; they may differ in length along it. If not
        given, they are stacked along a new first axis.

    Yields
    ------
    batch : dict of numpy.ndarray
        Values of shape (buffer_size, ...), or with `axis` as :func:`numpy.concatenate` gives them.

    Raises
    ------
    DataError
        If an item does not fit those before it.

    Examples
    --------
    >>> import numpy as np, pescador
    >>> samples = ({'X': np.zeros((4, 5)), 'Y': i} for i in range(10))
    >>> for batch in pescador.buffer_stream(samples, 4):
    ...     print(batch['X'].shape, batch['Y'])
    (4, 4, 5) [0 1 2 3]
    (4, 4, 5) [4 5 6 7]
    """
    size = whole_number(buffer_size, "buffer_size", 1)
    if axis is not None and not isinstance(axis, int | np.integer):
        raise ParameterError(f"axis must be None or a whole number, got {axis!r}")
    if not isinstance(stream, Iterable):
        raise ParameterError(f"buffer_stream takes a stream of dicts, not a {type(stream).__name__}")
    return _batches(stream, size, partial, None if axis is None else int(axis))


def _batches(
    stream: Iterable[Item], size: int, partial: bool, axis: int | None
) -> Generator[dict[str, Array], None, None]:
    columns: dict[str, _Column] = {}
    keys = columns.keys()  # always those of the batch
    n_items = 0
    for item in stream:
        if type(item) is not dict:
            item = _as_dict(item)
        if not n_items:
            columns.update({key: _Column(size, axis) for key in item})
        elif item.keys() != keys:
            raise DataError(f"a batch with keys {list(keys)} cannot take an item {describe(item)}")
        for key, value in item.items():
            try:
                columns[key].append(value)
            except (TypeError, ValueError) as error:
                raise DataError(f"{key!r} cannot be batched: {error}; the item is {describe(item)}") from None
        n_items += 1
        if n_items == size:
            n_items = 0
            yield _finished(columns)
    if partial and n_items:
        yield _finished(columns)


def _as_dict(item: Any) -> dict[Any, Any]:
    """Return the values of an item by their keys."""
    try:
        return {key: item[key] for key in item.keys()}  # noqa: SIM118 -- as in describe
    except Exception as error:
        raise DataError(f"buffer_stream takes dicts, but got {describe(item)}") from error


def _finished(columns: dict[str, _Column]) -> dict[str, Array]:
    """Return a batch, and keep nothing of it: a worker may then deliver its arrays without a copy."""
    batch = {key: column.array() for key, column in columns.items()}
    columns.clear()
    return batch


class _Column:
    """The values of one key of a batch, in an array allocated when the first one comes."""

    __slots__ = ("_array", "_axis", "_filled", "_row", "_size", "_stacked")

    def __init__(self, size: int, axis: int | None) -> None:
        self._size = size
        self._stacked = axis is None
        self._axis = axis or 0
        self._filled = 0  # along the axis
        self._row: tuple[int, ...] | None = None  # shape of each value of a stack, once known
        self._array: Array = _NOTHING

    def append(self, value: Any) -> None:
        value, array = np.asarray(value), self._array
        if value.shape == self._row and value.dtype == array.dtype:  # nearly all, so this must be fast
            array[self._filled, ...] = value
            self._filled += 1
        else:
            self._extend(value[np.newaxis] if self._stacked else value)

    def _extend(self, value: Array) -> None:
        if not -value.ndim <= self._axis < value.ndim:
            raise ValueError(f"it has no axis {self._axis}, for its shape is {value.shape}")
        if self._array is _NOTHING:
            self._axis %= value.ndim
            dtype = value.dtype if self._stacked else np.result_type(value.dtype)  # as NumPy does
            self._array = empty(self._shape(value, self._size * value.shape[self._axis]), dtype)
            self._row = value.shape[1:] if self._stacked else None
        else:
            self._make_fit(value)
        end = self._filled + value.shape[self._axis]
        self._array[(slice(None),) * self._axis + (slice(self._filled, end),)] = value
        self._filled = end

    def array(self) -> Array:
        """Return what was collected."""
        if self._filled == self._array.shape[self._axis]:
            return self._array
        return self._array[(slice(None),) * self._axis + (slice(self._filled),)].copy()

    def _shape(self, value: Array, length: int) -> tuple[int, ...]:
        return (*value.shape[: self._axis], length, *value.shape[self._axis + 1 :])

    def _make_fit(self, value: Array) -> None:
        """Replace the array if `value` needs a wider dtype or more room."""
        array = self._array
        if value.ndim != array.ndim or self._shape(value, 0) != self._shape(array, 0):
            first = int(self._stacked)
            raise ValueError(
                f"its shape is {value.shape[first:]}, that of the batch so far {array.shape[first:]}"
            )
        dtype = np.result_type(array.dtype, value.dtype)
        length = array.shape[self._axis]
        needed = self._filled + value.shape[self._axis]
        if dtype != array.dtype or needed > length:
            self._array = empty(self._shape(array, max(length, 2 * needed if needed > length else 0)), dtype)
            kept = (slice(None),) * self._axis + (slice(self._filled),)
            self._array[kept] = array[kept]


@stateless
def tuples(stream: Iterable[Item], *keys: str) -> Generator[tuple[Any, ...], None, None]:
    """Reformat items as tuples of some of their values.

    Parameters
    ----------
    stream : iterable of dict
        What to reformat. Anything that has keys is an item.
    *keys : str
        Keys of the values, in the order of the tuple.

    Yields
    ------
    values : tuple

    Raises
    ------
    DataError
        If an item lacks a key, which is also a KeyError.

    Examples
    --------
    >>> import pescador
    >>> list(pescador.tuples([{'X': 1, 'Y': 2, 'Z': 3}], 'X', 'Z'))
    [(1, 3)]
    """
    if not keys:
        raise ParameterError("tuples needs at least one key")
    return (tuple([_value(item, key) for key in keys]) for item in stream)


@stateless
def keras_tuples(
    stream: Iterable[Item],
    inputs: str | Iterable[str] | None = None,
    outputs: str | Iterable[str] | None = None,
    weights: str | Iterable[str] | None = None,
) -> Generator[tuple[Any, ...], None, None]:
    """Reformat items as tuples of inputs, outputs and sample weights, as Keras takes them.

    Parameters
    ----------
    stream : iterable of dict
        What to reformat. Anything that has keys is an item.
    inputs, outputs, weights : str, iterable of str, or None
        A key gives its value, several keys give a tuple of their values, None gives None.

    Yields
    ------
    x, y : tuple
        The values of `inputs` and of `outputs`; with `weights`, (x, y, w).

    Raises
    ------
    DataError
        If an item lacks a key, which is also a KeyError.

    Examples
    --------
    >>> import pescador
    >>> list(pescador.keras_tuples([{'X': 1, 'Y': 2, 'Z': 3}], ['X', 'Y'], 'Z'))
    [((1, 2), 3)]
    """
    keys = [
        keys if keys is None or isinstance(keys, str) else list(keys) for keys in (inputs, outputs, weights)
    ]
    if not keys[0] and not keys[1]:
        raise ParameterError("keras_tuples needs at least one key, for inputs or for outputs")

    def values(item: Item, keys: str | list[str] | None) -> Any:
        if keys is None or isinstance(keys, str):
            return None if keys is None else _value(item, keys)
        return tuple([_value(item, key) for key in keys])

    given = keys if weights is not None else keys[:2]
    return (tuple([values(item, one) for one in given]) for item in stream)


def cache(
    stream: Iterable[T], n_cache: int, prob: float = 0.5, random_state: RandomState = None
) -> Generator[T, None, None]:
    """Replay earlier items between those of a slow stream.

    The first `n_cache` items come in order, and fill the cache. After that, each item is a new one of the
    stream with probability `prob`, which takes the place of a random one in the cache; or else a random one
    of the cache.

    Parameters
    ----------
    stream : iterable
        Items of any kind that can be copied.
    n_cache : int
        Number of items in the cache.
    prob : float
        Probability that an item is new: above 0, and 1 is no caching.
    random_state : int, SeedSequence, Generator, RandomState or None
        In a recipe, pass :data:`pescador.RNG`: ``Streamer(cache, stream, 100, random_state=RNG)``.

    Yields
    ------
    item
        An item of the stream, or a copy of an earlier one. Ends when a new one is due and there is none.

    Raises
    ------
    DataError
        If an item cannot be copied.

    Examples
    --------
    >>> import pescador
    >>> ''.join(pescador.cache('abcdef', 2, prob=0.5, random_state=3))
    'abcbdeef'
    """
    size = whole_number(n_cache, "n_cache", 1)
    if not isinstance(prob, int | float | np.integer | np.floating) or not 0 < prob <= 1:
        raise ParameterError(f"prob is the probability of a new item, above 0 and up to 1, got {prob!r}")
    if not isinstance(stream, Iterable):
        raise ParameterError(f"cache takes a stream, not a {type(stream).__name__}")
    return _cached(stream, size, prob, SeedSource(random_state))


def _cached(stream: Iterable[T], size: int, prob: float, source: SeedSource) -> Generator[T, None, None]:
    kept: list[T] = []
    new = islice(stream, None)  # which has no close(), so that a generator of the caller stays open
    if prob == 1:
        yield from new
        return
    uniforms: Iterator[float] = chain.from_iterable(
        block.tolist() for block in blocks(source.resolve(Seed()).generator().random)
    )
    # What is kept is a copy, and so is what is given of it, because a consumer may write into what it gets.
    for item in islice(new, size):
        kept.append(_copied(item))
        yield item
    while len(kept) == size:  # or the stream has ended
        if next(uniforms) >= prob:
            yield _copied(kept[int(next(uniforms) * size)])
            continue
        try:
            item = next(new)
        except StopIteration:
            return
        kept[int(next(uniforms) * size)] = _copied(item)
        yield item


def _copied(item: T) -> T:
    try:
        return copy.deepcopy(item)
    except Exception as error:
        raise DataError(
            f"cache gives copies of earlier items, but {describe(item)} cannot be copied: "
            f"{type(error).__name__}: {error}"
        ) from error


def _value(item: Any, key: str) -> Any:
    try:
        return item[key]
    except (KeyError, TypeError, IndexError):
        raise MissingKeyError(f"there is no {key!r} in {describe(item)}") from None
