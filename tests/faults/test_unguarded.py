"""Scripts need no guard, and may define what they send."""

from ..kinds import every_process
from .scripts import run

UNGUARDED = """
import pescador
from dataclasses import dataclass
from enum import Enum

print("once")

@dataclass
class Sample:
    x: int
    y: np.ndarray

class Kind(Enum):
    A = 1

class Source:
    offset = 5
    def __call__(self, n):
        for i in range(n):
            yield Sample(i + self.offset, np.full(3, i))

@pescador.streamable
def numbers(n, function):
    for i in range(n):
        yield function(i)

class OfTheScript(Exception):
    pass

def raising():
    yield Kind.A
    raise OfTheScript("here")

scale = 3
mux = pescador.RoundRobinMux([numbers(4, lambda i: i * scale), numbers(4, float)])
samples = list(ParallelStreamer(Streamer(Source(), 3), **options))
assert all(type(sample) is Sample for sample in samples)
assert [(sample.x, list(sample.y)) for sample in samples] == [(5, [0] * 3), (6, [1] * 3), (7, [2] * 3)]
assert list(ParallelStreamer(mux, **options)) == list(mux)
assert list(ParallelStreamer(mux, n_workers=2, **options)) == list(mux)
items = iter(ParallelStreamer(Streamer(raising), **options))
assert next(items) is Kind.A
try:
    next(items)
except OfTheScript as error:
    assert "here" in str(error)
else:
    raise AssertionError
print("done")
"""


@every_process
def test_a_script_without_a_guard_works_with_what_it_defines(kind, tmp_path):
    with run(tmp_path, kind, UNGUARDED) as script:
        assert script.finish() == (0, "once\ndone\n", "")


BIG_SURROUNDINGS = """
os.environ.update({f"VARIABLE_{i}": "x" * 10_000 for i in range(20)})
sys.path += [f"/nowhere/{i}" * 100 for i in range(100)]
assert list(ParallelStreamer(Streamer(range, 3), **options)) == [0, 1, 2]
"""


@every_process
def test_environment_and_path_may_be_large(kind, tmp_path):
    with run(tmp_path, kind, BIG_SURROUNDINGS) as script:
        assert script.finish() == (0, "", "")
