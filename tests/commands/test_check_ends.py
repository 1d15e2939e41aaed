"""What `check` finds where a stream ends, leaves something behind, blocks, or is slow."""

import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from multiprocessing.shared_memory import SharedMemory

import pytest

import pescador
from pescador import Streamer

from .test_check import assert_nothing_else, check, found

# Ends


kept = []


def leaves_a_process():
    kept.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
    while True:
        yield 1


def leaves_a_thread():
    event = threading.Event()
    thread = threading.Thread(target=event.wait, name="left-alone", daemon=True)
    thread.start()
    kept.append((event, thread))
    while True:
        yield 1


def leaves_a_file():
    kept.append(open(__file__))  # noqa: SIM115 -- the defect
    while True:
        yield 1


def leaves_shared_memory(_):
    kept.append(SharedMemory(f"test-{os.getpid()}-{len(kept)}", create=True, size=100))
    while True:
        yield 1


def end(left):
    if isinstance(left, SharedMemory):
        left.close()
        left.unlink()
    elif isinstance(left, subprocess.Popen):
        left.communicate()
    elif isinstance(left, tuple):
        left[0].set()
        left[1].join()
    else:
        left.close()


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (leaves_a_process, "process: "),
        (leaves_a_thread, "thread: left-alone"),
        (leaves_a_file, f"open file: {__file__}"),
    ],
    ids=["process", "thread", "file"],
)
def test_what_is_left_behind(stream, words):
    try:
        report = check(stream)
    finally:
        while kept:
            end(kept.pop())
    found(report, "error", f"leaves something behind when it is closed: {words}")


def test_shared_memory_that_is_left_behind():
    try:
        report = check(
            Streamer(leaves_shared_memory, threading.Lock())
        )  # not on a worker, which would leave it
    finally:
        while kept:
            end(kept.pop())
    found(report, "warning", "leaves something behind when it is closed: shared memory: /dev/shm/")
    found(report, "error", "leaves something behind when it is closed: open file: /dev/shm/")


def leaves_temporary_files():
    tempfile.mkdtemp()
    while True:
        yield 1


def test_temporary_files_that_are_left_behind_may_be_of_others(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    report = check(leaves_temporary_files)
    found(report, "warning", f"leaves something behind when it is closed: temporary file: {tmp_path}/")
    assert_nothing_else(report, "warning")


def opens_once():
    if not kept:
        kept.append(open(__file__))  # noqa: SIM115
    while True:
        yield 1


def test_what_is_left_only_once_is_a_note():
    try:
        report = check(opens_once)
    finally:
        kept.pop().close()
    found(report, "note", "the first opening left something: open file")


def ignores_its_end():
    while True:
        try:  # noqa: SIM105
            yield 1
        except:  # noqa: E722 -- the defect
            pass


def test_a_generator_that_ignores_its_end():
    report = check(ignores_its_end)
    finding = found(report, "error", "ignores its end")
    assert finding.where.startswith(__file__)
    assert finding.remedy.startswith("Catch Exception instead")
    assert_nothing_else(report, "error")


def raises_at_its_end():
    try:
        while True:
            yield 1
    finally:
        raise OSError("disk is full")


def test_a_generator_that_raises_at_its_end():
    report = check(raises_at_its_end)
    found(report, "error", "raises when it is closed", "OSError: disk is full")
    assert_nothing_else(report, "error")


def raises(n):
    yield from range(n)
    raise RuntimeError("disk on fire")


def test_a_stream_that_raises():
    report = check(pescador.ChainMux([range(3), Streamer(raises, 2)]))
    finding = found(report, "error", "raises an exception", "RuntimeError: disk on fire", __file__)
    assert finding.where.startswith("item 5, which is item 2 of stream.streamers[1], ")
    assert_nothing_else(report, "error")


def warns():
    warnings.warn("careful", UserWarning, stacklevel=1)
    yield 1


def test_warnings_of_the_stream_are_notes():
    found(check(warns), "note", "warns: UserWarning: careful")


def test_a_stream_without_items():
    found(check([]), "warning", "gives no items")


# Time


def blocks(n, event=None):
    yield from range(n)
    (event or threading.Event()).wait()


def test_a_stream_that_blocks_at_once_is_ended():
    report = check(Streamer(blocks, 0), seconds=0.5)
    finding = found(report, "error", "item 0 did not come in 0.5 s, on one worker process")
    assert "It was ended" in finding.cause
    assert_nothing_else(report, "error")


def test_of_a_stream_that_blocks_later_is_checked_what_came():
    report = check(Streamer(blocks, 3), seconds=4)
    found(report, "warning", "item 3 did not come in 4 s")
    found(report, "note", "3 of 12 items were compared")
    assert_nothing_else(report, "warning")


def test_a_stream_that_blocks_in_this_process_is_given_up():
    event = threading.Event()
    try:
        report = check(Streamer(blocks, 3, event), seconds=0.2)
    finally:
        event.set()
    found(report, "error", "item 3 did not come in 0.2 s, serially")
    found(report, "error", "cannot be sent to a worker process: stream.args[1]")


def sleeps(seconds):
    while True:
        time.sleep(seconds)
        yield 1


def test_making_items_is_said_to_be_the_bottleneck():
    report = check(Streamer(sleeps, 0.02))
    found(
        report, "note", "throughput", "in a thread", "on one worker process", "making items is the bottleneck"
    )
    assert_nothing_else(report)


def test_a_slow_stream_is_bounded():
    report = check(Streamer(sleeps, 0.1), 1000, seconds=2.5)
    found(report, "note", "of 1000 items were compared")
    assert_nothing_else(report)
