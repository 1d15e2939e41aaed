import pytest

from pescador.backends.processes.forkserver import Forkserver


@pytest.fixture
def own_forkserver(forkserver):
    """Have the pools of a test start a forkserver that is theirs."""
    forkserver.close()
    assert Forkserver.current is None
