"""ROS domains: what the environment names, and free ones that nobody else gets."""

import socket

import pytest

from z1_ros.errors import ConfigError, GraphError
from z1_ros.graph import domains
from z1_ros.graph.domains import FreeDomain, environment_domain_id


@pytest.mark.parametrize("domain", ["abc", "-1", "233"])
def test_a_domain_that_is_none_is_a_sentence(domain, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", domain)
    with pytest.raises(ConfigError, match=f"ROS_DOMAIN_ID is '{domain}', expected a number from"):
        environment_domain_id()


@pytest.mark.parametrize(("domain", "number"), [("", 0), ("7", 7)])
def test_an_empty_domain_is_the_default_one_as_for_ros(domain, number, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", domain)
    assert environment_domain_id() == number


def test_a_free_domain_is_nobodys_and_is_free_again_when_it_is_closed(monkeypatch):
    first, second = FreeDomain(), FreeDomain()
    assert first.id != second.id
    taken = [first.id, second.id]
    monkeypatch.setattr(domains.random, "sample", lambda *_: taken)
    with pytest.raises(GraphError, match="all ROS domains"):
        FreeDomain()
    second.close()
    again = FreeDomain()
    assert again.id == second.id
    first.close(), again.close()


@pytest.mark.parametrize("address", ["127.0.0.1", ""])
def test_a_domain_with_a_participant_is_not_free(monkeypatch, address):
    """On whatever interface it listens."""
    monkeypatch.setattr(domains.random, "sample", lambda *_: [57])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as participant:
        participant.bind((address, 7400 + 250 * 57 + 10))
        with pytest.raises(GraphError, match="all ROS domains"):
            FreeDomain()
