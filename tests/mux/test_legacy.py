import pickle
import warnings

import pytest

import pescador
from pescador import PescadorError, StochasticMux

from ..streams import letters


def mux(*args, **kwargs):
    with pytest.warns(DeprecationWarning, match="StochasticMux"):
        return pescador.Mux(*args, **kwargs)


def test_the_warning_points_at_the_line_of_the_caller():
    with pytest.warns(DeprecationWarning, match="StochasticMux") as caught:
        pescador.Mux(["a"], 1)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ({}, "with_replacement"),
        ({"with_replacement": False, "revive": True}, "single_active"),
        ({"with_replacement": False}, "exhaustive"),
    ],
)
def test_its_parameters_are_modes_of_stochastic_mux(options, mode):
    old = mux(letters(6, 3, 5), 2, rate=3, weights=[1, 2, 3], random_state=0, **options)
    new = StochasticMux(letters(6, 3, 5), 2, 3, weights=[1, 2, 3], mode=mode, random_state=0)
    assert old.mode == mode
    assert "".join(old(40)) == "".join(new(40))


def test_its_defaults_are_those_from_before_version_2():
    made = mux(["a"], 1)
    assert (made.rate, made.mode, made.prune_empty_streams, made.weights) == (
        256.0,
        "with_replacement",
        True,
        None,
    )


def test_bad_parameters_raise_as_those_of_stochastic_mux():
    with pytest.warns(DeprecationWarning, match="StochasticMux"), pytest.raises(PescadorError, match="got 0"):
        pescador.Mux(["a"], 0)


def test_using_copying_and_pickling_it_warns_no_more():
    made = mux(letters(3, 3), 1, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "".join(pickle.loads(pickle.dumps(made))(9)) == "".join(made(9))
