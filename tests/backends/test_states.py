"""States of streams that run on workers: another process, another backend, another number of workers."""

import json
import signal
from itertools import islice

import pytest

from pescador import RNG, START, ParallelStreamer, RoundRobinMux, StochasticMux, Streamer, buffer_stream

from ..kinds import Script, every_background
from ..streams import noise

SCRIPT = """
import json, os, pathlib, sys
from itertools import islice

import pescador
from pescador import RNG, ParallelStreamer, RoundRobinMux, ShuffledMux, StochasticMux, Streamer
from pescador.backends.worker import open_stream

action, backend, n_workers = sys.argv[1], sys.argv[2], int(sys.argv[3])


def noise(i, rng):
    while True:
        if i % 4 < 2:  # in a mux that is not made again
            with open("made", "a") as file:
                file.write(".")
        yield {"i": i, "x": rng.random()}


def unmarked(stream):
    yield from stream


def hurry():
    # Have the worker that runs this say after each slice where its streams stand.
    open_stream.SNAPSHOT_SECONDS = 0
    open_stream.SNAPSHOT_SHARE = 1e9
    yield


leaves = [Streamer(noise, i, rng=RNG) for i in range(40)]
muxes = [StochasticMux(leaves[i::4], 3, 8) for i in range(2)]
muxes += [Streamer(unmarked, ShuffledMux(leaves[i::4])) for i in (2, 3)]
batches = [Streamer(pescador.buffer_stream, mux, 4) for mux in muxes]
stream = RoundRobinMux(batches, random_state=0)
if backend != "none":
    stream = ParallelStreamer(stream, backend, n_workers, prefetch=4)
    first = ParallelStreamer(RoundRobinMux([Streamer(hurry)] * n_workers), backend, n_workers)
    first._pool = stream._pool
    list(first)


def text(batches):
    return json.dumps([[batch["i"].tolist(), batch["x"].tolist()] for batch in batches])


if action == "run":
    print(text(stream(300)))
else:
    if action == "load":
        stream.load_state_dict(json.loads(pathlib.Path("state").read_text()))
    items = stream.iterate(300)
    if action == "save" or len(sys.argv) > 4:
        print(text(islice(items, 100)))
        pathlib.Path("state").write_text(json.dumps(stream.state_dict()))
    else:
        print(text(items))
    if action == "load":
        print(os.path.getsize("made"))
"""


def run(folder, *arguments):
    (folder / "made").write_text("")
    with Script(folder, SCRIPT, *map(str, arguments)) as script:
        code, output, errors = script.finish()
    assert (code, errors) == (0, "")
    return list(map(json.loads, output.splitlines()))


def test_a_stream_goes_on_in_another_process_on_another_backend(tmp_path):
    (expected,) = run(tmp_path, "run", "none", 0)
    for saving, going_on, again in (
        (("shm", 1), ("zmq", 1), ("none", 0)),
        (("zmq", 1), ("thread", 2), ("shm", 1)),
        (("thread", 1), ("shm", 2), ("zmq", 2)),
        (("none", 0), ("shm", 1), ("shm", 2)),
    ):
        (found,) = run(tmp_path, "save", *saving)
        more, _ = run(tmp_path, "load", *going_on, "save")
        rest, n_made = run(tmp_path, "load", *again)
        assert found + more + rest == expected
        # Of the muxes that are counted, 200 samples are due. Of the 400 that they had given, those of their
        # six open streams are made again; and a worker may be some batches ahead.
        assert n_made <= 200 + 6 * 25 + 64


STREAMS = {
    "mux of leaves": [Streamer(noise, 50, RNG) for _ in range(5)],
    "mux of muxes": [StochasticMux([Streamer(noise, 50, RNG) for _ in range(5)], 2, 4) for _ in range(3)],
}


@pytest.mark.parametrize("streams", STREAMS.values(), ids=STREAMS)
@pytest.mark.parametrize("inner", [None, ("serial", 1), ("thread", 1), ("thread", 2), ("shm", 1)])
@pytest.mark.parametrize("outer", [None, ("thread", 1), ("thread", 2), ("shm", 1), ("shm", 2)])
def test_parallel_streamers_leave_no_trace_wherever_they_are_nested(streams, inner, outer):
    def make(inner, outer):
        members = [StochasticMux(streams, 3, 5) for _ in range(2)]
        if inner:
            members = [ParallelStreamer(member, *inner) for member in members]
        mux = RoundRobinMux(members, random_state=0)
        return members, ParallelStreamer(mux, *outer) if outer else mux

    def close(streams):
        for stream in streams:
            if isinstance(stream, ParallelStreamer):
                stream.close()

    _, plain = make(None, None)
    expected = list(plain(60))
    members, stream = make(inner, outer)
    items = iter(stream)
    found = list(islice(items, 25))
    state = json.loads(json.dumps(items.state_dict()))
    close([stream, *members])
    plain.load_state_dict(state)
    assert found + list(plain(60)) == expected

    members, stream = make(inner, outer)
    stream.load_state_dict(state)
    assert found + list(stream(60)) == expected
    close([stream, *members])


@every_background
@pytest.mark.parametrize("n_workers", [1, 2])
def test_what_a_worker_has_made_ahead_does_not_count(backend, n_workers):
    stream = RoundRobinMux([Streamer(range, 10**6), Streamer(range, 10**6)])
    with ParallelStreamer(stream, backend, n_workers) as parallel:
        items = iter(parallel)
        for n in range(1, 2000):
            next(items)
            assert items.state_dict()["state"]["n"] == n
        state = items.state_dict()
        items.close()
    stream.load_state_dict(state)
    assert next(iter(stream)) == 999


@every_background
def test_a_parallel_streamer_is_asked_at_once(backend):
    """Before its worker has said anything, and for what the worker cannot tell."""
    stream = Streamer(buffer_stream, Streamer(map, lambda i: {"i": i}, Streamer(range, 10**6)), 2)
    with ParallelStreamer(stream, backend) as parallel:
        for n in (0, 1, 5):
            items = iter(parallel)
            list(islice(items, n))
            stream.load_state_dict(items.state_dict())
            assert next(iter(stream))["i"].tolist() == [2 * n, 2 * n + 1]
            items.close()


def test_a_source_in_a_worker_is_not_made_again_with_start():
    def source(start):
        for i in range(start, 10**6):
            yield i, start

    with ParallelStreamer(Streamer(source, START), "shm") as stream:
        items = iter(stream)
        assert list(islice(items, 100))[-1] == (99, 0)
        stream.load_state_dict(items.state_dict())
        items.close()
        assert next(iter(stream)) == (100, 100)


INTERRUPTED = """
import json, pathlib, signal, sys, threading, time
from pescador import ParallelStreamer, Streamer

signal.signal(signal.SIGINT, signal.default_int_handler)


def source(pauses):
    for i in range(10):
        if i == 5 and pauses:
            time.sleep(1000)
        yield i


def say_when_waiting():
    main = threading.main_thread().ident
    names = []
    while len(found) < 5 or "_wait" not in names:
        time.sleep(0.001)
        frame, names = sys._current_frames()[main], []
        while frame:
            names.append(frame.f_code.co_name)
            frame = frame.f_back
    print("ready", flush=True)


where, backend = sys.argv[1:]
stream = ParallelStreamer(Streamer(source, where == "wait"), backend, timeout=0.1)
path = pathlib.Path("state")
found = []
if path.exists():
    stream.load_state_dict(json.loads(path.read_text()))
    print(list(stream))
    sys.exit()
if where == "wait":
    threading.Thread(target=say_when_waiting).start()
try:
    for item in stream:
        found.append(item)
        if item == 4 and where == "body":
            print("ready", flush=True)
            while True:
                time.sleep(0.01)
except KeyboardInterrupt:
    try:
        path.write_text(json.dumps(stream.state_dict()))
        print(found)
    except Exception as error:
        print(type(error).__name__, error)
"""


@every_background
def test_after_a_ctrl_c_in_the_loop_a_stream_goes_on(backend, tmp_path):
    with Script(tmp_path, INTERRUPTED, "body", backend) as script:
        script.wait_for("ready")
        script.process.send_signal(signal.SIGINT)
        assert script.finish()[:2] == (0, "[0, 1, 2, 3, 4]\n")
    with Script(tmp_path, INTERRUPTED, "body", backend) as script:
        assert script.finish() == (0, "[5, 6, 7, 8, 9]\n", "")


def test_after_a_ctrl_c_while_an_item_is_made_there_is_no_state(tmp_path):
    with Script(tmp_path, INTERRUPTED, "wait", "shm") as script:
        script.wait_for("ready")
        script.process.send_signal(signal.SIGINT)
        code, output, errors = script.finish()
    assert (code, errors) == (0, "")
    assert "PescadorError this stream has raised, or was interrupted while it made an item" in output
