"""Recipes that refer to something that did not come, which is no error of the user."""

import numpy as np
import pytest

from pescador import Streamer, WorkerError
from pescador.backends.consumer.recipes import Recipes
from pescador.backends.worker.loading import Shelf


@pytest.mark.parametrize(("argument", "kind"), [(list(range(100)), "part"), (np.zeros(1 << 14), "segment")])
def test_what_is_missing_is_said_to_be_an_error_of_pescador(argument, kind):
    recipes = Recipes()
    recipes.begin()
    recipe = recipes.make(Streamer(iter, argument))
    with pytest.raises(WorkerError, match=f"{kind} {recipe.needs[0].number}, .* error in pescador"):
        Shelf().load(recipe.data)
    recipes.close()
