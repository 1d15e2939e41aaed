"""What docs/class_balance.md shows works."""

import re
from collections import Counter
from itertools import islice

import numpy as np
import pytest

import pescador

from .kinds import ROOT

PAGE = (ROOT / "docs" / "class_balance.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=["arrays", "files"])
def test_a_recipe_draws_from_all_classes_alike(block, tmp_path):
    labels = np.repeat([0, 1, 2], [1000, 100, 10])
    samples = {"X": np.arange(len(labels)), "Y": labels}
    paths = [[tmp_path / f"{label}_{i}.npz" for i in range(25)] for label in range(3)]
    for label, paths_of_class in enumerate(paths):
        for path in paths_of_class:
            np.savez(path, **{key: array[labels == label] for key, array in samples.items()})
    names = {"np": np, "pescador": pescador, "paths": paths, **samples}
    exec(block, names)
    drawn = Counter(int(sample["Y"]) for sample in islice(names["mux"], 3000))
    # A class is drawn 1000 times with a deviation of 26; the seed is fixed.
    assert all(abs(drawn[label] - 1000) < 80 for label in range(3))
