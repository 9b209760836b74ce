"""Environment variables are set within a block only."""

import os

import pytest

from z1_ros.environ import environment


def test_variables_are_set_within_a_block_only(monkeypatch):
    monkeypatch.setenv("Z1_A", "1")
    monkeypatch.delenv("Z1_B", raising=False)
    with environment({"Z1_A": "2", "Z1_B": "3"}):
        assert (os.environ["Z1_A"], os.environ["Z1_B"]) == ("2", "3")
    assert os.environ["Z1_A"] == "1" and "Z1_B" not in os.environ


def test_they_are_as_before_after_an_error(monkeypatch):
    monkeypatch.delenv("Z1_B", raising=False)
    with pytest.raises(KeyError), environment({"Z1_B": "3"}):
        raise KeyError
    assert "Z1_B" not in os.environ
