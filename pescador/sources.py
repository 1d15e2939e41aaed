"""Sources: ready-made generators of random rows and crops, and one that leaves out what fails.

``Streamer(rows, data, rng=RNG)`` is a stream of one source, for a mux to mix with others. Positions are drawn
in blocks, from a generator that nobody else uses, so the sequence depends on it and the lengths alone.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain, islice
from typing import Any, TypeAlias, TypeVar

import numpy as np

from .arguments import stateless
from .checks import whole_number
from .core import Streamer
from .describe import describe, shown
from .exceptions import DataError, ParameterError
from .files import Data, Keys, Readable, Source, part, stacked
from .sampling import blocks

__all__ = ["patches", "rows", "skip_errors"]

T = TypeVar("T")
Random: TypeAlias = "int | np.random.SeedSequence | np.random.BitGenerator | np.random.Generator | None"
Pad = float | str | Mapping[str, Any] | None

MODES = ("edge", "reflect", "symmetric", "wrap")  # of numpy.pad, that need no more parameters


def rows(
    data: Data, n: int | None = None, *, rng: Random, keys: str | Iterable[str] | None = None
) -> Generator[Any, None, None]:
    """Draw random rows of arrays, without end.

    Each row is drawn independently of the others, and all rows are equally likely.

    Parameters
    ----------
    data : dict of arrays, path, or group
        Arrays that have the same length along their first axis:

        - a dict of arrays, or of paths of NPY files, which are memory-mapped;
        - the path of an NPZ archive, which is loaded when the stream opens, of an NPY file, an HDF5 file or a
          folder of Zarr;
        - an open group of h5py or Zarr, whose datasets are read and whose groups are not. (That of h5py
          cannot be sent to a worker process; a path can.)

        A single array, such as that of an NPY file, gives arrays instead of dicts.
    n : int, optional
        Number of rows in a batch. If not given, each item is one row.
    rng : numpy.random.Generator, int or None
        In a recipe, pass :data:`pescador.RNG`. Otherwise what :func:`numpy.random.default_rng` takes. Numbers
        are drawn ahead, so a generator should not be used for anything else.
    keys : str or iterable of str, optional
        Keys of the arrays to be read; all of them if not given. In HDF5 and Zarr, ``'group/name'`` is one.

    Yields
    ------
    row : dict
        ``data[key][i]`` for each key, as a new array or a scalar; with `n`, an array of shape (n, ...).
        Data that have no row give nothing.

    Raises
    ------
    DataError
        If the arrays differ in length, or there is no array of a key (which is also a KeyError).
    PescadorError
        If h5py or Zarr is needed and not installed.

    Examples
    --------
    >>> import numpy as np, pescador
    >>> data = {'X': np.arange(12).reshape(4, 3), 'Y': np.array(['a', 'b', 'c', 'd'])}
    >>> row = next(pescador.rows(data, rng=0))
    >>> row['X'], str(row['Y'])
    (array([ 9, 10, 11]), 'd')
    >>> stream = pescador.Streamer(pescador.rows, data, 2, rng=pescador.RNG)
    >>> for batch in stream(max_iter=2):
    ...     print(batch['X'].shape, batch['Y'].shape)
    (2, 3) (2,)
    (2, 3) (2,)
    """
    size = None if n is None else whole_number(n, "n", 1, "None or ")
    return _rows(data, size, _generator(rng), _keys(keys))


def _rows(data: Data, n: int | None, rng: np.random.Generator, keys: Keys) -> Generator[Any, None, None]:
    with Source(data, keys) as source:
        length = source.length(0)
        if not length:
            return
        if n is None:
            for i in _positions(rng, length):
                yield source.item(part, (i, ...))
            return
        for block in blocks(lambda size: rng.integers(0, length, (max(1, size // n), n))):
            for indices in block:
                yield source.item(stacked, indices)


def patches(
    data: Data,
    length: int,
    axis: int = 0,
    *,
    rng: Random,
    keys: str | Iterable[str] | None = None,
    pad: Pad = None,
    skip_short: bool = False,
) -> Generator[Any, None, None]:
    """Cut random patches of one length out of arrays, without end.

    All arrays are cut at the same position. Each position is drawn independently of the others, and all at
    which a whole patch begins are equally likely.

    Parameters
    ----------
    data : dict of arrays, path, or group
        As for :func:`rows`, but what must be equal is the length along `axis`.
    length : int
        Length of a patch along `axis`.
    axis : int
        Axis along which all arrays are cut. Negative ones count from the last: -1 cuts a spectrogram of shape
        (bands, frames) and a signal of shape (frames,) alike.
    rng, keys
        As for :func:`rows`.
    pad : number, str or dict, optional
        What to do with data that are shorter than `length`, which otherwise raise: they are filled up at the
        end with this number (such as 0 for silence), or as :func:`numpy.pad` does in mode ``'wrap'`` (they
        are repeated), ``'reflect'``, ``'symmetric'`` or ``'edge'``. A dict gives one of these for each key.
    skip_short : bool
        Whether data that are shorter than `length` give nothing instead, so that a mux drops them.

    Yields
    ------
    patch : dict
        A new array for each key, as long as `length` along `axis`.

    Raises
    ------
    DataError
        If the data are shorter than `length`; or as for :func:`rows`.

    Examples
    --------
    >>> import numpy as np, pescador
    >>> data = {'sound': np.arange(1000.0), 'is_speech': np.arange(1000) > 500}
    >>> patch = next(pescador.patches(data, 4, rng=0))
    >>> patch['sound'], patch['is_speech']
    (array([848., 849., 850., 851.]), array([ True,  True,  True,  True]))
    >>> next(pescador.patches(np.ones(3), 5, rng=0, pad=0))
    array([1., 1., 1., 0., 0.])

    What belongs to a whole file is added in a generator function:

    >>> def excerpts(signal, label, rng):
    ...     for patch in pescador.patches({'X': signal}, 100, rng=rng):
    ...         yield {**patch, 'Y': label}
    >>> stream = pescador.Streamer(excerpts, np.zeros(1000), 'silence', rng=pescador.RNG)
    """
    size = whole_number(length, "length", 1)
    if isinstance(axis, bool) or not isinstance(axis, int | np.integer):
        raise ParameterError(f"axis must be a whole number, got {axis!r}")
    if pad is not None and skip_short:
        raise ParameterError("short data are either filled up (pad) or left out (skip_short), not both")
    for mode in pad.values() if isinstance(pad, Mapping) else [pad]:
        if isinstance(mode, str) and mode not in MODES:
            raise ParameterError(f"pad must be a number or one of {MODES}, got {mode!r}")
    return _patches(data, size, int(axis), _generator(rng), _keys(keys), pad, skip_short)


def _patches(
    data: Data,
    length: int,
    axis: int,
    rng: np.random.Generator,
    keys: Keys,
    pad: Pad,
    skip_short: bool,
) -> Generator[Any, None, None]:
    with Source(data, keys) as source:
        total = source.length(axis)
        if pad is not None:
            source.change(partial(_padded, source.name, axis, max(0, length - total), pad))
        elif total < length:
            if skip_short:
                return
            raise DataError(
                f"{source.name} has length {total} along axis {axis}, which is shorter than the patches of "
                f"length {length}: pad=0 fills it up, skip_short=True leaves it out"
            )
        before = (slice(None),) * axis if axis >= 0 else (...,)
        after = (slice(None),) * (-axis - 1)
        for start in _positions(rng, max(1, total - length + 1)):
            yield source.item(part, (*before, slice(start, start + length), *after))


def _padded(name: str, axis: int, missing: int, pad: Pad, key: Any, array: Readable) -> Readable:
    """Return an array that is longer by `missing`. Whether `pad` fits is checked even if nothing is."""
    if isinstance(pad, Mapping) and key not in pad:
        raise ParameterError(f"pad must have a value for each key, but {pad!r} has none for {key!r}")
    value: Any = pad[key] if isinstance(pad, Mapping) else pad
    is_mode = isinstance(value, str)
    if not is_mode and not _fits(value, np.dtype(array.dtype)):
        raise ParameterError(f"{name} cannot be filled up with {value!r}: {describe({key: array})}")
    if not missing:
        return array
    widths = [(0, 0)] * len(array.shape)
    widths[axis] = (0, missing)
    try:
        if is_mode:
            return np.pad(array[...], widths, mode=value)
        return np.pad(array[...], widths, constant_values=value)
    except ValueError as error:  # of modes that need at least one value
        raise DataError(f"{name} cannot be filled up: {error}") from None


def _fits(value: Any, dtype: np.dtype[Any]) -> bool:
    """Whether an array can hold a value; a number is rounded by floats, but not by integers."""
    try:
        with np.errstate(invalid="ignore"):
            held = np.full((), value, dtype)
    except (TypeError, ValueError, OverflowError):
        return False
    return dtype.kind not in "biu" or bool(held == value)


@stateless
def skip_errors(stream: Iterable[T], *exceptions: type[Exception]) -> Generator[T, None, None]:
    """Let a stream end where it raises one of some exceptions, and go on without it.

    The logger ``pescador`` is warned, with the stream and the error. In a worker process, where your handlers
    are not, the warning is printed.

    Parameters
    ----------
    stream : iterable
        What may fail. Of a mux, wrap the streams that it mixes, not the mux, which would end as a whole:
        ``Streamer(skip_errors, stream, OSError)`` for each.
    *exceptions : type
        Classes of exceptions, such as OSError, ValueError or :class:`pescador.DataError`. Name those that a
        bad file raises, and not Exception, which also hides mistakes in your code.

    Yields
    ------
    item
        The items of the stream, unchanged. A stream that raises before its first item gives none, so a mux
        drops it (unless that was made with ``prune_empty_streams=False``).

    Examples
    --------
    >>> import pescador
    >>> def read(name):
    ...     if name == 'broken':
    ...         raise OSError(f'{name} cannot be read')
    ...     yield name
    >>> streams = [pescador.Streamer(read, name) for name in ['a', 'broken', 'c']]
    >>> safe = [pescador.Streamer(pescador.skip_errors, stream, OSError) for stream in streams]
    >>> list(pescador.ChainMux(safe))
    ['a', 'c']
    """
    if not exceptions:
        raise ParameterError("skip_errors needs at least one class of exceptions, such as OSError")
    for kind in exceptions:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise ParameterError(f"skip_errors takes classes of exceptions, such as OSError, not {kind!r}")
    if not isinstance(stream, Iterable):
        raise ParameterError(f"skip_errors takes a stream, not a {type(stream).__name__}")
    return _skipping(stream, exceptions)


def _skipping(stream: Iterable[T], exceptions: tuple[type[Exception], ...]) -> Generator[T, None, None]:
    try:
        yield from islice(stream, None)  # which has no close(), so that a generator of the caller stays open
    except exceptions as error:
        import logging  # for this alone
        import traceback

        # As a text, because a log record may be kept, and an exception keeps all that its frames hold.
        text = "".join(traceback.format_exception_only(error)).strip()
        name = repr(stream) if isinstance(stream, Streamer) else shown(stream)
        logger = logging.getLogger("pescador")
        logger.warning("%s ends here, and what is left of it is skipped, for it raised %s", name, text)


def _positions(rng: np.random.Generator, n: int) -> Iterator[int]:
    """Return random whole numbers below n, without end."""
    return chain.from_iterable(block.tolist() for block in blocks(lambda size: rng.integers(0, n, size)))


def _generator(rng: Random) -> np.random.Generator:
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError):
        raise ParameterError(
            "rng must be a numpy Generator (for which pescador.RNG stands in a Streamer), or what seeds one: "
            f"a whole number, SeedSequence, BitGenerator or None; got {rng!r}"
        ) from None


def _keys(keys: str | Iterable[str] | None) -> Keys:
    if keys is not None and not isinstance(keys, Iterable):
        raise ParameterError(f"keys must be None, a key or some keys, got {keys!r}")
    return (keys,) if isinstance(keys, str) else None if keys is None else tuple(keys)
