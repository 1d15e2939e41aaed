"""Whatever rows and patches read, it gives what the same arrays in a dict give, and no file stays open."""

import os
import subprocess
import sys
import warnings
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pytest

from pescador import (
    RNG,
    DataError,
    ParallelStreamer,
    PescadorError,
    Streamer,
    files,
    patches,
    rows,
    skip_errors,
)
from pescador.testing import assert_same

from .conftest import descriptors
from .kinds import every_backend

DATA = {
    "x": np.arange(600, dtype="f4").reshape(30, 20),
    "y": np.arange(30, dtype="u1"),
    "z": np.arange(120, dtype="i2").reshape(30, 2, 2),
}


def needed(name):
    """Return a module, or skip the test if it is not installed; in CI it must be."""
    if find_spec(name) is None:
        assert os.environ.get("CI") != "true", f"{name} is not installed, which the extra 'dev' names"
        pytest.skip(f"{name} is not installed")
    return pytest.importorskip(name)


@pytest.fixture(scope="module", autouse=True)
def threads_of_zarr(tmp_path_factory):
    """Those that zarr starts with its first array, and keeps: they are none of the tests' own."""
    if find_spec("zarr") is not None:
        zarr = pytest.importorskip("zarr")
        if hasattr(zarr, "config"):
            zarr.config.set({"threading.max_workers": 1})
        write_zarr(tmp_path_factory.mktemp("first") / "a.zarr", {"x": np.zeros(3)})


def write_npy(folder, arrays):
    for key, array in arrays.items():
        np.save(folder / f"{key}.npy", array)
    return {key: folder / f"{key}.npy" for key in arrays}


def write_npz(path, arrays):
    np.savez(path, **arrays)
    return path


def write_compressed(path, arrays):
    with path.open("wb") as file:  # whatever its name
        np.savez_compressed(file, **arrays)
    return str(path)


def write_hdf5(path, arrays, **options):
    with needed("h5py").File(path, "w", **options) as file:
        for key, array in arrays.items():
            file[key] = array
        file.create_group("group")["w"] = np.zeros(7)
    return path


def write_zarr(path, arrays):
    group = needed("zarr").open_group(str(path), mode="w")
    for key, array in arrays.items():
        group[key] = array
    group.create_group("group")["w"] = np.zeros(7)
    return path


PATHS = {
    "npy": lambda folder, arrays: write_npy(folder, arrays),
    "npz": lambda folder, arrays: write_npz(folder / "a.npz", arrays),
    "compressed npz": lambda folder, arrays: write_compressed(folder / "a.bin", arrays),
    "hdf5": lambda folder, arrays: write_hdf5(folder / "a.h5", arrays),
    "hdf5 of MATLAB": lambda folder, arrays: write_hdf5(folder / "a.mat", arrays, userblock_size=512),
    "zarr": lambda folder, arrays: write_zarr(folder / "a.zarr", arrays),
}
every_path = pytest.mark.parametrize("write", PATHS.values(), ids=PATHS)
FUNCTIONS = {
    "rows": lambda data, **options: rows(data, rng=0, **options),
    "batches": lambda data, **options: rows(data, 7, rng=0, **options),
    "patches": lambda data, **options: patches(data, 11, rng=0, **options),
    "padded patches": lambda data, **options: patches(data, 31, rng=0, pad=0, **options),
}
every_function = pytest.mark.parametrize("make", FUNCTIONS.values(), ids=FUNCTIONS)


def take(n, stream):
    items = list(islice(stream, n))
    stream.close()
    return items


def open_files(folder):
    """Return how many descriptors refer to files in a folder."""
    return sum(str(folder) in target for _, target in descriptors())


# What is given


@every_path
@every_function
def test_files_give_what_arrays_give(write, make, tmp_path):
    items = take(5, make(write(tmp_path, DATA)))
    for item in items:
        for value in item.values():
            assert not isinstance(value, np.memmap)
            assert not isinstance(value, np.ndarray) or value.flags.writeable
    assert_same(items, take(5, make({key: DATA[key] for key in items[0]})))
    assert items[0].keys() == DATA.keys()


@every_path
def test_writing_into_items_does_not_change_the_files(write, tmp_path):
    data = write(tmp_path, DATA)
    for item in take(40, patches(data, 3, rng=0)):
        item["x"][...] = -1
    for item in take(9, rows(data, 3, rng=0)):
        item["x"][...] = -1
    assert all(item["x"].min() >= 0 for item in take(40, rows(data, rng=0)))


@every_function
@pytest.mark.parametrize("library", ["h5py", "zarr"])
def test_open_groups_and_arrays_give_what_their_files_give(library, make, tmp_path):
    if library == "h5py":
        path = write_hdf5(tmp_path / "a.h5", DATA)
        with needed("h5py").File(path) as group:
            items, single = take(3, make(group)), take(3, make(group["x"]))
            assert group["x"].shape  # it is still open
    else:
        path = write_zarr(tmp_path / "a.zarr", DATA)
        group = needed("zarr").open(str(path), mode="r")
        items, single = take(3, make(group)), take(3, make(group["x"]))
        assert_same(take(3, make(path / "x")), single)
    assert_same(items, take(3, make(path)))
    assert_same(single, [item["x"] for item in items])


def test_a_single_npy_file_gives_arrays(tmp_path):
    paths = write_npy(tmp_path, DATA)
    assert_same(take(3, rows(str(paths["x"]), rng=0)), take(3, rows(DATA["x"], rng=0)))


def test_keys_choose_arrays_also_of_groups_within(tmp_path):
    path = write_npz(tmp_path / "a.npz", DATA)
    assert list(next(rows(path, rng=0, keys=["z", "x"]))) == ["z", "x"]
    path = write_hdf5(tmp_path / "a.h5", DATA)
    assert list(next(rows(path, rng=0, keys="group/w"))) == ["group/w"]
    path = write_zarr(tmp_path / "a.zarr", DATA)
    assert list(next(rows(path, rng=0, keys="group/w"))) == ["group/w"]


@every_path
def test_a_key_that_is_missing_raises_and_closes(write, tmp_path):
    data = write(tmp_path, DATA)
    with pytest.raises(KeyError, match=r"there is no 'w' in .*'x', 'y', 'z'\]"):
        next(rows(data, rng=0, keys=["x", "w"]))
    assert open_files(tmp_path) == 0


def test_strings_and_records_come_as_they_are_stored(tmp_path):
    with needed("h5py").File(tmp_path / "a.h5", "w") as file:
        file["text"] = ["a", "bc"]
        file["record"] = np.array([(1, 2.5), (3, 4.5)], [("a", "i4"), ("b", ">f8")])
    for row in take(4, rows(tmp_path / "a.h5", rng=0)):
        assert (row["text"], row["record"].tolist()) in [(b"a", (1, 2.5)), (b"bc", (3, 4.5))]
        assert row["record"].dtype["b"] == ">f8"
    batch = next(rows(tmp_path / "a.h5", 3, rng=0))
    assert batch["text"].tolist() == [{1: b"a", 3: b"bc"}[record["a"]] for record in batch["record"]]


def test_columns_of_a_data_frame_are_arrays():
    frame = pytest.importorskip("pandas").DataFrame({"x": [1, 2], "y": [10.0, 20.0]})
    row = next(rows(frame, rng=0))
    assert row["y"] == 10 * row["x"]


def test_rows_of_tensors_are_arrays_of_their_own():
    torch = pytest.importorskip("torch")
    data = {"x": torch.zeros(5, 2)}
    next(rows(data, rng=0))["x"][:] = 1
    next(patches(data, 3, rng=0))["x"][:] = 1
    assert data["x"].sum() == 0


# Opening and closing


def test_nothing_is_opened_before_the_first_item(tmp_path):
    stream = rows(tmp_path / "a.npy", rng=0)
    np.save(tmp_path / "a.npy", DATA["y"])
    next(stream)
    with pytest.raises(FileNotFoundError):
        next(rows(tmp_path / "b.npy", rng=0))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts the descriptors in /proc")
@pytest.mark.parametrize(("name", "n_open"), [("npy", 3), ("npz", 0), ("hdf5", 1), ("zarr", 0)])
@pytest.mark.parametrize("end", ["close", "throw", "drop"])
def test_files_are_closed_when_the_stream_ends(name, n_open, end, tmp_path):
    data = PATHS[name](tmp_path, DATA)
    stream, other = rows(data, rng=0), patches(data, 3, rng=0)
    kept = [next(stream), next(other)]
    assert open_files(tmp_path) in (2 * n_open, n_open)  # HDF5 opens the same file once
    if end == "close":
        stream.close()
    elif end == "throw":
        with pytest.raises(RuntimeError, match="stop"):
            stream.throw(RuntimeError("stop"))
    del stream
    assert open_files(tmp_path) == n_open
    next(other)  # is not affected
    other.close()
    assert open_files(tmp_path) == 0
    assert kept[0]["x"].tolist() in DATA["x"].tolist()


@pytest.mark.parametrize("name", PATHS)
def test_files_are_closed_when_data_do_not_fit(name, tmp_path):
    data = PATHS[name](tmp_path, {"x": np.zeros(3), "y": np.zeros(4)})
    with pytest.raises(DataError, match="same length"):
        next(rows(data, rng=0))
    with pytest.raises(DataError, match="shorter"):
        next(patches(data, 9, rng=0, keys="x"))
    assert open_files(tmp_path) == 0


@every_backend
@pytest.mark.parametrize("name", ["npy", "npz", "hdf5", "zarr"])
def test_every_backend_gives_the_same(backend, name, tmp_path):
    data = PATHS[name](tmp_path, DATA)
    stream = Streamer(patches, data, 5, rng=RNG)
    np.random.seed(0)  # noqa: NPY002 -- it governs the openings
    expected = list(stream(6))
    with ParallelStreamer(stream, backend) as parallel:
        np.random.seed(0)  # noqa: NPY002 -- as above
        assert_same(list(parallel(6)), expected)


# What cannot be read


def test_what_is_no_file_of_arrays_raises(tmp_path):
    for name, content in [("a.txt", b"hello"), ("b.npz", b""), ("c.h5", b"x" * 600)]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name}' is neither"):
            next(rows(tmp_path / name, rng=0))
    np.savez(tmp_path / "d.npz")
    with pytest.raises(DataError, match=r"no arrays in .*d\.npz"):
        next(rows(tmp_path / "d.npz", rng=0))
    write_npz(tmp_path / "e.npz", DATA)
    with pytest.raises(DataError, match=r"e\.npz' holds arrays by their keys"):
        next(rows({"x": tmp_path / "e.npz"}, rng=0))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_small_archives_give_what_large_ones_do(save, tmp_path, monkeypatch):
    arrays = {
        "fortran": np.asfortranarray(np.arange(24.0).reshape(4, 3, 2)),
        "big-endian": np.arange(4, dtype=">i2"),
        "fields": np.zeros(4, [("a", "f4"), ("b", "u1", (2,))]),
        "no ascii": np.ones(4, [("ä", "f4")]),  # in a later version of the format
        "no columns": np.empty((4, 0)),
        "text": np.array(["a", "bc", "", "d"]),
        "time": np.arange(4).astype("M8[s]"),
        "folder/x": np.arange(4),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the later version
        save(tmp_path / "a.npz", **arrays)
    small = take(5, rows(tmp_path / "a.npz", rng=0))
    assert_same(small, take(5, rows(arrays, rng=0)))
    monkeypatch.setattr(files, "SMALL_ARCHIVE", 0)
    assert_same(take(5, rows(tmp_path / "a.npz", rng=0)), small)


def test_a_small_archive_is_never_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([None, {}]))
    with pytest.raises(ValueError, match="allow_pickle"):
        next(rows(tmp_path / "a.npz", rng=0))


def test_a_damaged_archive_is_skipped_by_name(tmp_path, caplog):
    path = write_npz(tmp_path / "a.npz", DATA)
    path.write_bytes(path.read_bytes()[:1000])
    stream = Streamer(rows, path, rng=RNG)
    assert list(skip_errors(stream, BadZipFile)) == []
    assert "a.npz" in caplog.text
    assert "BadZipFile" in caplog.text


@pytest.mark.parametrize(("name", "library", "extra"), [("hdf5", "h5py", "hdf5"), ("zarr", "zarr", "zarr")])
def test_a_library_that_is_missing_is_named_with_its_extra(name, library, extra, tmp_path, monkeypatch):
    if name == "hdf5":
        path = tmp_path / "a.h5"
        path.write_bytes(b"\x89HDF\r\n\x1a\n")
    else:
        path = tmp_path
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(PescadorError, match=rf'{library}.*pip install "pescador\[{extra}\]"'):
        next(rows(path, rng=0))


def test_importing_pescador_imports_neither():
    code = "import pescador, sys; assert not {'h5py', 'zarr'} & set(sys.modules)"
    root = str(Path(__file__).parents[1])
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": root})
