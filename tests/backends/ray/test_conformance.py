"""The conformance suite, on a cluster of two nodes on this machine."""

from pescador.testing import BackendConformance


class TestRay(BackendConformance):
    backend = "ray"
