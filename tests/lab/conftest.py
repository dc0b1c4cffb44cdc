"""One lab for most tests of this folder, with every kind of place that a node can have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Labs

INVENTORY = """
version: 1
networks:
  corp: {cidr: [10.42.0.0/16, "fd42:42::/48"]}
lab:
  routers:
    flat:    {nat: easy}
    carrier: {nat: symmetric}
nodes:
  fra1:   {roles: [anchor], endpoint: "203.0.113.10:51820", lab: {ipv6: native}}
  nyc1:   {roles: [anchor], endpoint: "nyc1.example.net:51820"}
  server: {endpoint: "198.51.100.7:443", lab: {nat: easy}}
  home:   {roles: [gateway], routes: [192.168.10.0/24, "fd00:10::/64", 10.99.0.1/32]}
  mobile: {lab: {nat: cgnat}}
  kid1:   {lab: {behind: flat}}
  kid2:   {lab: {behind: flat}}
  hotel:  {lab: {behind: carrier, nat: full-cone}}
  slow:   {lab: {nat: none, delay: 20ms, loss: 0%}}
  lossy:  {lab: {nat: none, loss: 10%}}
  shaky:  {lab: {nat: none, jitter: 40ms}}
  box:    {lab: {nat: easy, upnp: true, ipv6: native}}
policies:
  - {name: all, from: ["*"], to: ["*"], allow: [any]}
"""


@pytest.fixture(scope="session")
def place(labs: Labs) -> str:
    """The lab's name."""
    return labs("place", INVENTORY)
