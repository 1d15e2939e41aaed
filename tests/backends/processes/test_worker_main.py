"""What a worker makes of its consumer."""

import os
import sys

import pytest

from pescador.backends.processes.worker_main import _watch
from pescador.backends.system.owner import this_owner

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no death is ever proven")


def test_a_worker_of_a_dead_consumer_does_not_start(dead):
    with pytest.raises(EOFError):
        _watch(dead)


@pytest.mark.parametrize("change", [{"started": ""}, {"time_namespace": "1"}, {"boot": ""}], ids=str)
def test_a_worker_that_cannot_tell_watches_its_consumer(change):
    descriptor = _watch(this_owner()._replace(**change))
    assert descriptor is not None
    os.close(descriptor)


def test_a_worker_in_another_pid_namespace_watches_no_stranger():
    assert _watch(this_owner()._replace(pid_namespace="1")) is None
