"""What programs take for granted of where they run: names, files, folders, variables, seeds, hashes."""

import sys

import pytest

from ..kinds import KINDS, PROCESSES, Script, every_process

PRELUDE = """
import contextlib, os, pickle, random, sys, tempfile, traceback
from dataclasses import dataclass
import numpy as np
import pescador
from pescador import ParallelStreamer, RoundRobinMux, Streamer

options = {options!r}
"""


def run(folder, kind, text):
    """Run a script, which prints nothing but 'done'."""
    with Script(folder, PRELUDE.format(options=kind) + text + "\nprint('done')\n") as script:
        code, output, errors = script.finish()
    assert (output, errors, code) == ("done\n", "", 0)


NAMES = """
import multiprocessing

@dataclass
class Sample:
    x: int

@dataclass
class Node(Sample):
    def twin(self):
        return Node(self.x)

def square(v):
    return v * v

def cube(v):
    return v * square(v)

def load(data):
    yield pickle.loads(data).x

def dump():
    yield pickle.dumps(Sample(1)) == pickle.dumps(Sample(1))
    yield pickle.loads(pickle.dumps(Node(3))).twin() == Node(3)
    yield pickle.loads(pickle.dumps(square)) is square

def by_name(name):
    yield getattr(sys.modules["__main__"], name)(2)

def map_on(context):
    with multiprocessing.get_context(context).Pool(2) as pool:
        yield pool.map(square, range(3))

def items():
    yield Sample(5)
    yield Node(6).twin()
    yield cube

with ParallelStreamer(RoundRobinMux([
    Streamer(load, pickle.dumps(Sample(7))),
    Streamer(dump),
    Streamer(by_name, "cube"),
    Streamer(map_on, "fork"),
]), n_workers=2, **options) as stream:
    assert list(stream) == [7, True, 8, [0, 1, 4], True, True]
with ParallelStreamer(Streamer(items), **options) as stream:
    assert list(stream) == [Sample(5), Node(6), cube]
"""


@every_process
def test_names_of_a_script_are_found_in_workers(kind, tmp_path):
    run(tmp_path, kind, NAMES)


CHANGED = """
SCALE = 1

def scaled(i):
    return i * SCALE

def numbers(gain):
    for i in range(3):
        yield scaled(i) * gain

mux = RoundRobinMux([Streamer(numbers, 1), Streamer(lambda: (i * SCALE for i in range(2)))])
for n_workers in (1, 2):
    with ParallelStreamer(mux, n_workers=n_workers, **options) as stream:
        for SCALE in (1, 5, 5, 2):
            assert list(stream) == list(mux), SCALE

        def scaled(i):
            return -i

        assert list(stream) == list(mux) == [0, 0, -1, 2, -2]

        def scaled(i):
            return i * SCALE
"""


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_globals_and_functions_of_a_script_that_are_changed_hold_in_the_next_epoch(kind, tmp_path):
    run(tmp_path, kind, CHANGED)


TRACEBACK = """
def helper(x):
    return 1 / x

def generate(n):
    for i in range(n, -1, -1):
        yield helper(i)

lines = ["def cell(n):\\n", "    yield 1 // n  # of a notebook\\n"]
import linecache
linecache.cache["<cell 1>"] = (1, None, lines, "<cell 1>")
exec(compile("".join(lines), "<cell 1>", "exec"))

os.chdir("/")
for function, file, line in ((generate, "script.py", "return 1 / x"), (cell, "<cell 1>", "# of a notebook")):
    try:
        list(ParallelStreamer(Streamer(function, 0), **options))
    except ZeroDivisionError as error:
        cause = "".join(traceback.format_exception(error)).partition("direct cause")[0]
        assert file in cause and line in cause, cause
    else:
        raise AssertionError
"""


@every_process
def test_tracebacks_show_file_and_line_of_a_script(kind, tmp_path):
    run(tmp_path, kind, TRACEBACK)


STARTED = """
import multiprocessing

@dataclass
class Sample:
    x: int

def numbers(rank):
    for i in range(3):
        yield Sample(10 * rank + i)

def train(rank, queue):
    try:
        with ParallelStreamer(Streamer(numbers, rank), **options) as stream:
            assert [sample.x for sample in stream] == [10 * rank + i for i in range(3)]
        mux = RoundRobinMux([Streamer(lambda i: iter([Sample(i)]), i) for i in range(3)])
        with ParallelStreamer(mux, n_workers=2, **options) as stream:
            assert list(stream) == [Sample(0), Sample(1), Sample(2)]
        queue.put("")
    except BaseException as error:
        queue.put(repr(error))

if __name__ == "__main__":
    for method in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context(method)
        queue = context.SimpleQueue()
        process = context.Process(target=train, args=(1, queue))
        process.start()
        error = queue.get()
        process.join()
        assert not error, (method, error)
    print("done")
"""


@every_process
def test_a_script_may_stream_in_a_process_of_multiprocessing(kind, tmp_path):
    with Script(tmp_path, PRELUDE.format(options=kind) + STARTED) as script:
        code, output, errors = script.finish()
    assert (output, errors, code) == ("done\n", "", 0)


SURROUNDINGS = """
def here(name):
    yield os.getcwd(), os.environ.get(name), os.environ.get("PYTHONHASHSEED")

def imported():
    import of_the_user
    yield of_the_user.__file__

os.environ.pop("PYTHONHASHSEED", None)
for n_workers in (1, 2):
    mux = RoundRobinMux([Streamer(here, "PESCADOR_TEST"), Streamer(here, "PESCADOR_TEST")])
    with ParallelStreamer(mux, n_workers=n_workers, **options) as stream:
        for value in ("a", None, "b"):
            folder = os.path.realpath(tempfile.mkdtemp(dir="."))
            os.chdir(folder)
            os.environ.pop("PESCADOR_TEST", None)
            if value is not None:
                os.environ["PESCADOR_TEST"] = value
            assert list(stream) == [(folder, value, None)] * 2
            os.chdir("..")
with ParallelStreamer(Streamer(imported), **options) as stream:
    for _ in range(2):
        folder = tempfile.mkdtemp(dir=".")
        sys.path.insert(0, os.path.abspath(folder))
        path = os.path.join(sys.path[0], "of_the_user.py")
        open(path, "w").close()
        assert list(stream) == [path]
        stream.close()
"""


@every_process
def test_folder_environment_and_search_path_are_those_of_each_opening(kind, tmp_path):
    run(tmp_path, kind, SURROUNDINGS)


HASHES = """
names = [f"file{i}.npy" for i in range(300)]

def shard(k):
    for name in names:
        if hash(name) % 2 == k:
            yield name

if "PYTHONHASHSEED" in os.environ:
    expected = [list(shard(0)), list(shard(1))]
else:
    expected = None
for _ in range(2):
    mux = RoundRobinMux([Streamer(shard, 0), Streamer(shard, 1)])
    with ParallelStreamer(mux, n_workers=2, **options) as stream:
        assert sorted(stream) == sorted(names)
    if expected is not None:
        for k in range(2):
            with ParallelStreamer(Streamer(shard, k), **options) as stream:
                assert list(stream) == expected[k]
"""


@every_process
@pytest.mark.parametrize("seed", [None, "0", "123"])
def test_strings_hash_alike_in_all_workers(kind, seed, tmp_path, monkeypatch):
    if seed is None:
        monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    else:
        monkeypatch.setenv("PYTHONHASHSEED", seed)
    run(tmp_path, kind, HASHES)


SEARCH_PATH = """
import pathlib
sys.path.insert(0, pathlib.Path("/tmp"))
sys.path.insert(0, b"bytes")
sys.path += [f"/opt/a/long/folder/number/{i:05d}/{'x' * 150}" for i in range(1200)]
os.environ["PESCADOR_LONG"] = "x" * 100_000

def path():
    yield len(sys.path), len(os.environ["PESCADOR_LONG"])

with ParallelStreamer(Streamer(path), **options) as stream:
    ((n, length),) = stream
assert n >= 1200 and length == 100_000
"""


@every_process
def test_what_python_tolerates_in_its_search_path_keeps_no_worker_from_starting(kind, tmp_path):
    run(tmp_path, kind, SEARCH_PATH)


SEEDED = """
def patches(n):
    for _ in range(n):
        yield int(np.random.randint(10**6)), random.randrange(10**6)

def epoch(stream, number):
    np.random.seed(number)
    random.seed(0)
    return list(stream)

for again in (False, True):
    stream = ParallelStreamer(Streamer(patches, 3), **options)
    run = [epoch(stream, number) for number in (0, 1, 2)]
    assert len({tuple(items) for items in run}) == 3
    assert len({item for items in run for item in items}) == 9
    for number in (2, 0, 1):
        if again:
            stream.close()
        assert epoch(stream, number) == run[number]
    stream.close()
"""


@every_process
def test_numpys_seed_before_each_epoch_governs_that_epoch(kind, tmp_path):
    run(tmp_path, kind, SEEDED)


def test_torchs_generator_is_seeded_where_torch_is_loaded(tmp_path):
    pytest.importorskip("torch", reason="needs torch")
    run(
        tmp_path,
        PROCESSES["shm-forkserver"],
        """
def drawn():
    import torch
    for _ in range(2):
        yield float(torch.rand(1))

stream = ParallelStreamer(Streamer(drawn), **options)
list(stream)  # from the second opening on it is loaded when the seed comes
found = []
for seed in (1, 2, 1):
    np.random.seed(seed)
    found.append(list(stream))
stream.close()
assert found[0] == found[2] != found[1]
""",
    )


FILE_SIZE = """
import resource
os.environ["PESCADOR_LONG"] = "x" * 100_000
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, 1 << 14))

def numbers(words):
    yield len(words), len(os.environ["PESCADOR_LONG"])

def arrays():
    yield {"x": np.zeros(100_000)}

with ParallelStreamer(Streamer(numbers, [str(i) for i in range(20_000)]), **options) as stream:
    assert list(stream) == [(20_000, 100_000)]
with ParallelStreamer(Streamer(arrays), **options) as stream:
    try:
        assert len(list(stream)) == 1
    except pescador.PescadorError as error:
        assert options["backend"] == "shm" and "ulimit -f" in str(error), error
    else:
        assert options["backend"] != "shm"
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit that Linux keeps")
@every_process
def test_a_limit_on_the_size_of_files_loses_no_message_and_is_named_where_it_matters(kind, tmp_path):
    run(tmp_path, kind, FILE_SIZE)
