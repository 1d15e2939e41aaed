"""Law 2, parallel equals sequential, on Ray: random trees of muxes, item by item, with 1, 2 and 3 workers.

PESCADOR_LAW_EXAMPLES sets the number of trees for each number of workers.
"""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.laws.test_laws_workers import assert_same, rooted, run, workers

pytest.importorskip("ray", reason="Ray is not installed: pip install 'pescador[ray]'")

EXAMPLES = int(os.environ.get("PESCADOR_LAW_EXAMPLES", 0))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_trees_give_the_same_items_with_any_number_of_workers(n):
    with workers("ray", n) as parallel:

        @settings(max_examples=EXAMPLES or 25)
        @given(rooted, st.sampled_from([None, 1, 2, 7, 1000]), st.sampled_from([None, 0, 1]))
        def same(tree, prefetch, open_ahead):
            assert_same(run(parallel(tree, prefetch, open_ahead)), run(tree))

        same()
