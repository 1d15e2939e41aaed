"""Scripts of a user, for tests of what ends or interrupts one."""

from ..kinds import Script

PRELUDE = '''
import contextlib, os, signal, sys, threading, time
import numpy as np
from pescador import ParallelStreamer, Streamer

options = {options!r}

# Where the tests run in the background of a shell, Ctrl-C is ignored, and that is inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)

def endless():
    while True:
        yield dict(x=np.zeros(20_000))

def blocked():
    yield 0
    open("blocked", "w").close()
    time.sleep(1000)

def wait_until_blocked():
    """Its worker may still be told to end after the first item, and would."""
    while not os.path.exists("blocked"):
        time.sleep(0.001)

def say(text):
    print(text, flush=True)

def idle():
    while True:  # one long sleep does not see a signal that comes just before it
        time.sleep(0.01)

def say_when_waiting(text):
    """Say something when the main thread waits for a process to end."""
    main = threading.main_thread().ident

    def look():
        while sys._current_frames()[main].f_code.co_name != "_wait":
            time.sleep(0.001)
        say(text)

    threading.Thread(target=look, daemon=True).start()
'''


def run(folder, kind, text):
    return Script(folder, PRELUDE.format(options=kind) + text)
