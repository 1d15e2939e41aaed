import subprocess
import sys

import pytest

from pescador.backends.system.owner import parse

from ..kinds import ROOT


@pytest.fixture(scope="module")
def dead():
    """Return a process that has ended, as an owner."""
    code = "from pescador.backends.system.owner import this_owner; print(this_owner())"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT
    )
    return parse(done.stdout.strip())
