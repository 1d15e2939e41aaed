"""Recipes: what is sent, what is shared, what is made anew, and what is given up."""

import gc
import os
import pickle
import resource
import threading

import numpy as np
import psutil
import pytest

from pescador import RNG, START, ChainMux, ParallelStreamer, PescadorError, RoundRobinMux, Streamer
from pescador.backends.consumer.recipes import MAX_PARTS, MAX_SEGMENTS, Part, Recipes
from pescador.backends.consumer.segments import Segment
from pescador.backends.system.shared_memory import copies_of
from pescador.backends.worker.loading import Shelf
from tests.kinds import process_backends

N_WORKERS = 8
LARGE = 20_000  # elements of 8 bytes: more than SHARED_BYTES


def totals(array):
    while True:
        yield float(array[:: 4096 // 8].sum())  # reads each page


def memory(array, backend, n_workers):
    """Return bytes of all processes while workers use an array; what they share is counted once."""
    mux = RoundRobinMux([Streamer(totals, array)] * N_WORKERS)
    with ParallelStreamer(mux, backend, n_workers) as stream:
        items = iter(stream)
        assert len({next(items) for _ in range(10 * N_WORKERS)}) == 1
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        return sum(process.memory_full_info().pss for process in processes)


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="needs /proc")
@process_backends
def test_eight_workers_have_one_copy_of_an_array(backend):
    large, small = np.ones(1 << 24), np.ones(1000)
    growth = [memory(array, backend, N_WORKERS) - memory(array, backend, 1) for array in (large, small)]
    assert growth[0] - growth[1] < 0.1 * large.nbytes


# Without workers


class Worker:
    """Receives what a consumer would send, and loads recipes."""

    def __init__(self, recipes):
        self.recipes = recipes
        self.shelf = Shelf()
        self.has = {}  # number -> kind

    def load(self, made):
        """Load a recipe, and return its stream."""
        self.drop()
        self._supply(made.needs)
        return self.shelf.load(made.data)

    def _supply(self, needs):
        for need in needs:
            if need.number not in self.has:
                self._supply(need.needs)
                name, *arguments = need.command
                handles = copies_of(need.handles)
                getattr(self.shelf, f"add_{name}")(*arguments, *handles)
                self.has[need.number] = type(need)

    def drop(self):
        numbers = [self.recipes.given_up.popleft() for _ in range(len(self.recipes.given_up))]
        self.shelf.drop(numbers)
        for number in numbers:
            self.has.pop(number, None)

    def count(self, kind):
        self.drop()
        return list(self.has.values()).count(kind)


@pytest.fixture
def recipes():
    recipes = Recipes()
    recipes.begin()
    yield recipes
    recipes.close()


@pytest.fixture
def worker(recipes):
    worker = Worker(recipes)
    yield worker
    worker.shelf.clear()


def source(*args, **kwargs):
    yield args, kwargs


WORDS = [f"word {i}" for i in range(5000)]


class Holder:
    def __init__(self, value):
        self.value = value


@pytest.mark.parametrize(
    "value", [1, "text", WORDS, {i: [i] for i in range(300)}, "x" * 100_000, b"y" * 9000, set(range(999))]
)
def test_a_recipe_is_loaded_as_it_was(recipes, worker, value):
    for _ in range(2):
        stream = worker.load(recipes.make(Streamer(source, value, key=[value])))
        assert (*stream.args, stream.kwargs) == (value, {"key": [value]})
        assert stream.kwargs["key"][0] is stream.args[0]


def test_what_many_recipes_have_in_common_is_pickled_and_loaded_once(recipes, worker):
    holder, sizes = Holder(WORDS), []
    for i in range(50):
        made = recipes.make(Streamer(source, WORDS, i, nested={"words": WORDS, "holder": holder}))
        sizes.append(len(made.data))
        stream = worker.load(made)
        assert stream.args[0] is stream.kwargs["nested"]["words"] is stream.kwargs["nested"]["holder"].value
        assert stream.args[0] == WORDS
    assert worker.count(Part) == 1
    assert max(sizes) < 1000


def test_a_recipe_of_a_function_and_atoms_needs_no_pickle_of_its_own(recipes, worker):
    arguments, keywords = (1, "text", None, 2.5, True, b"bytes", 1j, START), {"rng": RNG, "n": 2**80}
    for _ in range(2):
        made = recipes.make(Streamer(source, *arguments, **keywords))
        assert made.data == (made.needs[0].number, arguments, keywords)
        data, needs = pickle.loads(pickle.dumps(made.data)), made.needs
        stream = worker.load(made._replace(data=data))
        assert (stream.streamer, stream.args, stream.kwargs) == (source, arguments, keywords)
        assert stream.args[-1] is START
        assert stream.kwargs["rng"] is RNG
        assert len(needs) == 1


class Number(int):
    pass


@pytest.mark.parametrize(
    "value", ["x" * 5000, Number(1), np.float64(1), [1], (1,), np.zeros(2), Streamer([])]
)
def test_a_recipe_of_anything_else_does(recipes, worker, value):
    for made in (recipes.make(Streamer(source, value)), recipes.make(Streamer(source, value=value))):
        assert type(made.data) is bytes
        worker.load(made)


def test_a_function_may_refer_to_its_own_stream(recipes, worker):
    def local(i):
        yield i, stream

    stream = Streamer(local, 3)
    number, inner = next(iter(worker.load(recipes.make(stream))))
    assert (number, inner.args) == (3, (3,))


def test_a_function_that_is_sent_with_its_code_is_sent_once(recipes, worker):
    def local(i):
        yield i

    parts = [recipes.make(Streamer(local, i)).needs for i in range(10)]
    assert len(set(parts)) == 1
    assert len(parts[0]) == 1


def test_what_refers_to_itself_through_another_part_is_sent_in_one_piece(recipes, worker):
    first, second = list(range(100)), list(range(100))
    first.append(second)
    second.append(first)
    made = recipes.make(Streamer(source, first, second))
    assert not made.needs
    loaded = worker.load(made).args
    assert loaded[0][-1] is loaded[1]
    assert loaded[1][-1] is loaded[0]
    itself = list(range(100))
    itself.append(itself)
    loaded = worker.load(recipes.make(Streamer(source, itself))).args[0]
    assert loaded[-1] is loaded


def test_arrays_of_a_recipe_share_a_segment_and_each_array_is_there_once(recipes, worker):
    arrays = [np.full(LARGE, i, float) for i in range(20)]
    made = recipes.make(Streamer(source, *arrays, again=arrays, nested={"holder": Holder(arrays[3])}))
    assert [type(need) for need in made.needs] == [Segment]
    assert made.needs[0].n_bytes == sum(array.nbytes for array in arrays)
    stream = worker.load(made)
    for array, there, again in zip(arrays, stream.args, stream.kwargs["again"], strict=True):
        np.testing.assert_array_equal(array, there)
        assert there is again
    assert stream.kwargs["nested"]["holder"].value is stream.args[3]
    assert recipes.make(Streamer(source, arrays[7])).needs == made.needs


TWO_ROWS = np.arange(4.0 * LARGE).reshape(2, -1)


@pytest.mark.parametrize(
    "array",
    [
        TWO_ROWS.T,
        TWO_ROWS[:, ::2],
        TWO_ROWS[::-1],
        np.asfortranarray(TWO_ROWS),
        np.zeros(LARGE, [("a", "f8"), ("b", "U3")]),
        np.arange(LARGE).astype(">M8[s]"),
        np.broadcast_to(np.arange(3.0), (1 << 40, 3)),
        np.broadcast_to(np.arange(1.0 * LARGE)[:, None], (LARGE, 5)),
    ],
    ids=range(8),
)
def test_arrays_of_all_layouts_arrive_as_they_are(recipes, worker, array):
    there = worker.load(recipes.make(Streamer(source, array))).args[0]
    assert (there.dtype, there.shape) == (array.dtype, array.shape)
    if array.nbytes < 1 << 30:
        np.testing.assert_array_equal(there, array)
    else:
        np.testing.assert_array_equal(there[-2:], array[-2:])


def test_a_large_number_of_recipes_needs_a_bounded_number_of_segments_and_parts(recipes, worker):
    kept = [(np.full(LARGE, i), list(range(i, i + 200))) for i in range(4 * MAX_SEGMENTS)]
    for i, (array, numbers) in enumerate(kept):
        stream = worker.load(recipes.make(Streamer(source, array, numbers)))
        assert stream.args[0][0] == i
        assert stream.args[1] == numbers
        assert worker.count(Segment) <= MAX_SEGMENTS + 1
        assert worker.count(Part) <= MAX_PARTS + 1
    stream = worker.load(recipes.make(Streamer(source, *kept[0])))  # what was given up is sent again
    assert stream.args[0][0] == 0
    del stream


def test_what_nobody_can_open_again_is_given_up(recipes, worker):
    array, numbers = np.ones(LARGE), list(range(1000))
    made = recipes.make(Streamer(source, array, numbers))
    worker.load(made)
    assert (worker.count(Segment), worker.count(Part)) == (1, 1)
    del made, array
    gc.collect()
    recipes.make(Streamer(source))
    assert (worker.count(Segment), worker.count(Part)) == (0, 1)
    recipes.begin()
    recipes.begin()
    assert worker.count(Part) == 0


def test_memory_that_is_used_again_is_not_taken_for_what_was_there(recipes, worker):
    memory = np.zeros(LARGE)
    recipes.make(Streamer(source, memory.view()))
    memory[:] = 5
    recipes.begin()
    there = worker.load(recipes.make(Streamer(source, memory.view()))).args[0]
    assert (there == 5).all()


def test_a_large_piece_of_data_that_cannot_be_pickled_leaves_nothing_half_done(recipes, worker):
    array = np.ones(LARGE)
    with pytest.raises(PescadorError, match=r"cannot be sent.*cannot pickle.*backend='thread'"):
        recipes.make(Streamer(source, array, list(range(100)), threading.Lock()))
    gc.collect()
    assert (worker.load(recipes.make(Streamer(source, array))).args[0] == 1).all()


class Ends:
    def __reduce__(self):
        raise StopIteration


@process_backends
def test_a_recipe_whose_pickling_raises_stopiteration_does_not_just_end(backend):
    with (
        ParallelStreamer(Streamer(source, Ends()), backend) as stream,
        pytest.raises(PescadorError, match="cannot be sent to a worker process: StopIteration"),
    ):
        list(stream)


# Files


@pytest.fixture
def path(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(8.0 * LARGE).reshape(4, -1))
    return tmp_path / "x.npy"


@pytest.mark.parametrize("mode", ["r", "r+"])
@pytest.mark.parametrize(
    "part", [slice(None), slice(1, 3), (slice(None), slice(7, None, 2)), slice(None, None, -1)], ids=range(4)
)
def test_a_mapped_file_is_mapped_again(recipes, worker, path, mode, part):
    array = np.load(path, mmap_mode=mode)[part]
    made = recipes.make(Streamer(source, array, plain=np.asarray(array)))
    assert not made.needs
    stream = worker.load(made)
    assert type(stream.args[0]) is np.memmap
    assert type(stream.kwargs["plain"]) is np.ndarray
    for there in (stream.args[0], stream.kwargs["plain"]):
        np.testing.assert_array_equal(there, array)
        assert not there.flags.writeable


@pytest.mark.parametrize("change", ["private", "deleted", "replaced"])
def test_what_is_not_in_the_file_is_sent(recipes, worker, path, change):
    array = np.load(path, mmap_mode="c" if change == "private" else "r")
    if change == "private":
        array[0, 0] = 5
    else:
        path.unlink()
    if change == "replaced":
        np.save(path, np.zeros((4, 2 * LARGE)))
    there = worker.load(recipes.make(Streamer(source, array))).args[0]
    np.testing.assert_array_equal(there, array)


# With workers


def counted(words, n):
    for i in range(n):
        yield len(words) + i


@process_backends
@pytest.mark.parametrize("n", [1, 10_000, 100_000])
def test_a_recipe_of_any_size_can_be_opened_again_on_several_workers(backend, n):
    mux = RoundRobinMux([Streamer(counted, [f"word {i}" for i in range(n)], 3)] * 2, mode="cycle")
    with ParallelStreamer(mux, backend, 2) as stream:
        for _ in range(2):
            assert list(stream(14)) == list(mux(14))
    with ParallelStreamer(mux, backend, 2) as stream:
        assert list(stream.cycle(14)) == list(mux.cycle(14))


def first_of(array, i):
    yield float(array[0]), i


def endless():
    for i in range(300):
        yield Streamer(first_of, np.full(LARGE, i, float), i)


@process_backends
def test_an_endless_chain_of_new_recipes_takes_few_descriptors(backend):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    n_open = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 64
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, n_open + 150), hard))
    try:
        with ParallelStreamer(ChainMux(endless()), backend, 2) as stream:
            assert list(stream) == [(i, i) for i in range(300)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
