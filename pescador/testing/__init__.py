"""Tests for authors of backends.

conformance.py   BackendConformance: what every backend guarantees
items.py         items of all kinds, and what it means that two are the same
sources.py       generator functions that tell what was asked of them

Whoever writes a backend subclasses :class:`BackendConformance` in a test module, and pytest does the
rest. pytest is imported where it is used, so this package can be imported without it.
"""

from .conformance import BackendConformance
from .items import Sample, Tagged, assert_same, sample_items

__all__ = ["BackendConformance", "Sample", "Tagged", "assert_same", "sample_items"]
