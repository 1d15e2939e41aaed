"""Who owns something, and whether that is dead: in doubt, it lives."""

import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pescador.backends.system import owner
from pescador.backends.system.owner import Owner, is_dead, parse, start_time, this_owner

from ...worlds import WORLDS, run_in

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no death is ever proven")

numbers = st.integers(0, 10**20 - 1).map(str)
owners = st.builds(
    Owner,
    st.integers(1, 10**9 - 1),
    st.just("") | st.builds("".join, st.tuples(st.sampled_from("tp"), numbers)),
    st.just("") | numbers,
    st.just("") | numbers,
    st.just("") | st.text("0123456789abcdef", min_size=32, max_size=32),
)


# Tokens


@given(owners)
def test_a_token_names_its_owner(some):
    assert parse(str(some)) == some


@given(owners, st.data())
def test_what_is_not_exactly_a_token_names_nobody(some, data):
    """Whatever a text is made of: what parses is the token of what it parses to."""
    token = str(some)
    start = data.draw(st.integers(0, len(token)))
    end = data.draw(st.integers(start, len(token)))
    text = token[:start] + data.draw(st.text("0123456789abcdeftp-\n٣ +", max_size=4)) + token[end:]
    found = parse(text)
    assert found is None or str(found) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4711",
        "4711-123",  # the form of earlier versions
        "4711-123-abcd",
        "0-t1-1-1-" + 32 * "0",  # as a process, that is the whole group
        "-1-t1-1-1-" + 32 * "0",
        "9999999999-t1-1-1-" + 32 * "0",
        "4711-t01-1-1-" + 32 * "0",
        "4711-x1-1-1-" + 32 * "0",
        "4711-t1-1-1-" + 31 * "0",
        "4711-t1-1-1-" + 32 * "0" + "\n",
    ],
)
def test_these_are_no_tokens(text):
    assert parse(text) is None


# Death


@linux
def test_this_process_is_known_completely_and_lives():
    this = this_owner()
    assert this == this_owner() == Owner(os.getpid(), start_time(os.getpid()), *this[2:])
    assert all(this)
    assert not is_dead(this)
    assert not is_dead(this._replace(pid=os.getppid(), started=start_time(os.getppid())))


@linux
def test_a_process_that_has_ended_is_dead(dead):
    assert is_dead(dead)
    assert is_dead(dead._replace(started=""))  # there is no such process at all


@linux
def test_another_process_that_got_its_number_is_not_the_owner():
    this = this_owner()
    assert is_dead(this._replace(started=f"{this.started}0"))


@linux
@pytest.mark.parametrize(
    "change",
    [
        {"pid_namespace": "1"},
        {"time_namespace": "1"},
        {"boot": 32 * "0"},
        {"pid_namespace": ""},
        {"time_namespace": ""},
        {"boot": ""},
    ],
    ids=str,
)
def test_an_owner_of_another_place_is_never_proven_dead(change, dead):
    for some in (dead, this_owner(), this_owner()._replace(started="t1")):
        assert not is_dead(some._replace(**change))


@linux
@pytest.mark.parametrize("started", ["", "p1"])
def test_start_times_of_two_forms_prove_nothing(started):
    assert not is_dead(this_owner()._replace(started=started))


@linux
def test_where_no_place_is_known_nobody_is_dead(dead, monkeypatch):
    nowhere = this_owner()._replace(started="", pid_namespace="", time_namespace="", boot="")
    monkeypatch.setattr(owner, "_this", nowhere)
    assert not is_dead(dead)
    assert not is_dead(dead._replace(pid_namespace="", time_namespace="", boot=""))


@linux
def test_a_process_of_another_user_exists_even_if_it_is_hidden(monkeypatch):
    def refuse(pid, number):
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    hidden = this_owner()._replace(pid=999_999_999, started="t1")
    assert start_time(hidden.pid) == ""
    assert not is_dead(hidden)


SCRIPT = """
import contextlib
from pescador import ParallelStreamer, Streamer
from pescador.backends.system.owner import is_dead, this_owner
from pescador.backends.system.pids import pids_are_ours

nested = ParallelStreamer(Streamer(range, 3), "zmq", start_method="fork")
with contextlib.ExitStack() as stack:
    for method in ("forkserver", "spawn", "fork"):
        stream = stack.enter_context(ParallelStreamer(nested, start_method=method))
        assert list(stream) == list(stream) == [0, 1, 2], method
assert not is_dead(this_owner())
print(pids_are_ours(), this_owner())
"""


@pytest.mark.parametrize("world", WORLDS)
def test_workers_start_and_end_in_every_world(world):
    done = run_in(WORLDS[world], sys.executable, "-c", SCRIPT)
    assert (done.returncode, done.stderr) == (0, "")
    ours, token = done.stdout.split()
    assert ours == str(world not in ("no /proc", "/proc of another pid namespace"))
    same_place = parse(token)[2:] == this_owner()[2:]
    assert same_place == (world == "hidden processes of others")


@pytest.mark.parametrize("world", WORLDS)
def test_owners_seen_from_another_world(world):
    """One lives, and the other has ended, which only those of the same place can know."""
    code = "import sys; from pescador.backends.system.owner import *; "
    code += "print([is_dead(parse(t)) for t in sys.argv[1:]])"
    tokens = [str(this_owner()), str(this_owner()._replace(pid=999_999_999))]
    done = run_in(WORLDS[world], sys.executable, "-c", code, *tokens)
    assert done.stdout.strip() == str([False, world == "hidden processes of others"])
