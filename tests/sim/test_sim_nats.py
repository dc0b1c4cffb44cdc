"""Every two kinds of NAT, also those that no world draws: pairs are direct, relayed or spliced as the oracle says."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from simnat import RANDOM, Behaviour
from simspec import Flow
from simspecs import spec_of
from simworld import World

from meshctl.core.reachability import ADDRESS, ADDRESS_AND_PORT, INDEPENDENT

_KINDS = (INDEPENDENT, ADDRESS, ADDRESS_AND_PORT)
_NATS = [Behaviour(mapping, filtering, RANDOM) for mapping, filtering in itertools.product(_KINDS, _KINDS)]
_TALK = Flow("n0", "n1", 1.0, 1.0, 38.0)


@pytest.mark.parametrize("nat", _NATS, ids=lambda nat: f"{nat.mapping} mapping and {nat.filtering} filtering")
def test_a_nat_of_each_mapping_and_filtering_against_each_other_one(nat: Behaviour) -> None:
    for other in _NATS:
        spec = spec_of(nat, other, flows=(_TALK,))
        silent = replace(spec, sites=tuple(replace(site, speaks=()) for site in spec.sites))
        assert World(silent).run().findings == (), other
