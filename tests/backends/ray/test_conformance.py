"""The conformance suite, on a cluster of two nodes on this machine."""

import pytest

from pescador.testing import BackendConformance

pytest.importorskip("ray", reason="Ray is not installed: pip install 'pescador[ray]'")


class TestRay(BackendConformance):
    backend = "ray"
