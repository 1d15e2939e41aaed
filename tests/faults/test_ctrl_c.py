"""Ctrl-C in the consumer, wherever it is."""

import itertools
import signal

import pytest

from pescador import ParallelStreamer, Streamer, WorkerError
from pescador.backends.protocol import messages
from pescador.backends.shm.receiver import RingReceiver
from pescador.backends.zmq.receiver import ZMQReceiver

from ..kinds import KINDS, PROCESSES, every_process, process_backends
from .scripts import run

# Each says "ready" when it is time for Ctrl-C.
PHASES = {
    "start": """
def started(function):
    def start(*args, **kwargs):
        result = function(*args, **kwargs)
        if result != 0:
            say("ready")
        return result
    return start

subprocess.Popen.__init__, os.fork = started(subprocess.Popen.__init__), started(os.fork)

def phase():
    list(ParallelStreamer(Streamer(blocked), **options))
""",
    "recipe": """
class Recipe:
    def __reduce__(self):
        say("ready")
        idle()

def phase():
    list(ParallelStreamer(Streamer([Recipe()]), **options))
""",
    "wait": """
def phase():
    for item in ParallelStreamer(Streamer(blocked), timeout=0.1, **options):
        say("ready")
""",
    "body": """
def phase():
    for item in ParallelStreamer(Streamer(blocked), timeout=0.1, **options):
        say("ready")
        idle()
""",
    "close": """
def phase():
    stream = ParallelStreamer(Streamer(blocked), timeout=1000, **options)
    items = iter(stream)
    next(items)
    wait_until_blocked()
    say_when_waiting("ready")
    stream.close()
""",
}

INTERRUPTED = """
import gc, psutil, subprocess
from pescador.backends.processes.forkserver import Forkserver
{phase}
try:
    phase()
except KeyboardInterrupt:
    print("interrupted")
gc.collect()
kept = [] if Forkserver.current is None else [Forkserver.current.pid]
others = [child for child in psutil.Process().children(recursive=True) if child.pid not in kept]
assert not psutil.wait_procs(others, 10)[1]
print(list(ParallelStreamer(Streamer(range, 3), **options)))
"""


@every_process
@pytest.mark.parametrize("phase", PHASES)
def test_ctrl_c_leaves_nothing_of_what_it_interrupts_and_the_program_may_go_on(kind, phase, tmp_path):
    with run(tmp_path, kind, INTERRUPTED.format(phase=PHASES[phase])) as script:
        script.wait_for("ready")
        script.signal_group(signal.SIGINT)
        code, output, errors = script.finish()
    output = output.replace("ready\n", "")  # of the workers that start after that
    assert (code, output, errors) == (0, "interrupted\n[0, 1, 2]\n", "")


UNHEARD = """
# No system call is interrupted by a signal that comes just before it, or that another thread takes.
threading.Thread(target=idle, daemon=True).start()

def wait_until_reading(thread):
    while sys._current_frames()[thread.ident].f_code.co_name not in ("wait", "poll"):
        time.sleep(0.001)

def say_when_reading(text):
    wait_until_reading(threading.main_thread())
    time.sleep(0.1)  # the first wait, until the wakeup is rung, is a short one
    say(text)

def read(items):
    with contextlib.suppress(Exception):
        next(items)

def phase():
    with ParallelStreamer(Streamer(blocked), timeout=0.1, **options) as stream:
        items = iter(stream)
        next(items)
        wait_until_blocked()
        if {second}:
            other = threading.Thread(target=read, args=[iter(stream)])
            other.start()
            wait_until_reading(other)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        threading.Thread(target=say_when_reading, args=["ready"]).start()
        next(items)
"""


@pytest.mark.parametrize("second", [False, True], ids=["first thread", "second thread"])
@pytest.mark.parametrize("kind", [KINDS["thread"], *PROCESSES.values()], ids=["thread", *PROCESSES])
def test_a_ctrl_c_that_interrupts_no_system_call_is_heard(kind, second, tmp_path):
    with run(tmp_path, kind, INTERRUPTED.format(phase=UNHEARD.format(second=second))) as script:
        script.wait_for("ready")
        script.signal_group(signal.SIGINT)
        code, output, errors = script.finish()
    assert (code, output, errors) == (0, "interrupted\n[0, 1, 2]\n", "")


AT_EXIT = """
import atexit
stream = ParallelStreamer(Streamer(blocked), timeout=1000, **options)
items = iter(stream)
next(items)
wait_until_blocked()
atexit.register(say_when_waiting, "ready")  # and after that the stream is closed
"""


@every_process
def test_ctrl_c_while_the_interpreter_waits_for_workers_at_its_end(kind, tmp_path):
    with run(tmp_path, kind, AT_EXIT) as script:
        script.wait_for("ready")
        offspring = script.offspring()
        script.signal_group(signal.SIGINT)
        _, output, errors = script.finish()
        assert not offspring.wait(0.2)
    assert output == ""
    assert errors.count("KeyboardInterrupt") == 1


@process_backends
@pytest.mark.parametrize("is_sent", [False, True])
def test_a_command_that_may_be_lost_to_ctrl_c_is_not_missing_in_silence(backend, is_sent):
    with ParallelStreamer(Streamer(itertools.count), backend) as stream:
        items, others = stream.iterate(), stream.iterate()
        assert [next(items), next(others)] == [0, 0]
        (worker,) = stream._pool._pool.workers

        class Socket:
            def __init__(self):
                self.socket, worker.connection.socket = worker.connection.socket, self

            def send(self, message, flags):
                if is_sent:
                    self.socket.send(message, flags)
                raise KeyboardInterrupt

            def __getattr__(self, name):
                return getattr(self.socket, name)

        Socket()
        with pytest.raises(KeyboardInterrupt):
            list(items)
        with pytest.raises(WorkerError, match="not used any more: a message was lost to a KeyboardInterrupt"):
            assert all(item == i for i, item in enumerate(others, 1))
        assert list(itertools.islice(stream, 100)) == list(range(100))


@process_backends
def test_a_message_that_is_lost_to_ctrl_c_is_not_missing_in_silence(backend, monkeypatch):
    receiver = {"shm": RingReceiver, "zmq": ZMQReceiver}[backend]
    receive = receiver.receive

    def interrupted(self):
        message = receive(self)
        if message is not None and message[0][:1] == messages.ITEMS:
            raise KeyboardInterrupt
        return message

    with ParallelStreamer(Streamer(itertools.count), backend) as stream:
        items, others = stream.iterate(), stream.iterate()
        assert [next(items), next(others)] == [0, 0]
        with monkeypatch.context() as patched:
            patched.setattr(receiver, "receive", interrupted)
            with pytest.raises(KeyboardInterrupt):
                list(items)
        with pytest.raises(WorkerError, match="a message was lost to a KeyboardInterrupt"):
            assert all(item == i for i, item in enumerate(others, 1))
        assert list(itertools.islice(stream, 100)) == list(range(100))
