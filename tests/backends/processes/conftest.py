import pytest

from pescador.backends.processes.forkserver import Forkserver


@pytest.fixture
def own_forkserver():
    """Have the pools of a test start a forkserver that is theirs."""
    end_forkserver()
    yield
    end_forkserver()


def end_forkserver():
    forkserver, Forkserver.current = Forkserver.current, None
    if forkserver is not None:
        forkserver._end()
