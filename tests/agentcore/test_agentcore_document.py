"""The agent's document: what is written is read, and all that is wrong with one is said at once, without its keys."""

from __future__ import annotations

import base64
import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshctl.core.agent.address import Address, NamedEndpoint
from meshctl.core.agent.config import AgentConfig, InterfaceConfig, PeerConfig
from meshctl.core.agent.document import AgentDocument, DocumentError, encode, load, parse_endpoint
from meshctl.model.keys import PublicKey

SCHEMA = json.loads((Path(__file__).parents[2] / "schemas" / "agent.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def key(number: int) -> PublicKey:
    return PublicKey(base64.b64encode(bytes([number]) * 32).decode())


DOCUMENT = AgentDocument(
    AgentConfig(
        "web1",
        (
            InterfaceConfig(
                "corp", "wg0", key(1), ("10.42.0.1", "fd42::1"), 51820, ("10.42.0.0/16", "fd42::/48"), 20,
                peers=(
                    PeerConfig(
                        "fra1", key(2), ("10.42.0.2",), b"\x52" * 32, kind="anchor",
                        endpoints=(Address("203.0.113.10", 51820), Address("2001:db8::1", 51820)),
                        permitted=False, reaches=frozenset({"pg1"}),
                    ),
                    PeerConfig(
                        "pg1", key(3), ("10.42.0.3", "fd42::3"), b"\x53" * 32, override="relay",
                        endpoints=(NamedEndpoint("pg1.example.net", 51820), NamedEndpoint("pg1.example.net", 0)),
                    ),
                    PeerConfig("phone", key(4), ("10.42.0.4",), b"\x54" * 32, "client", reaches=frozenset({"pg1"})),
                ),
                is_anchor=True,
            ),
        ),
        (NamedEndpoint("stun.example.net", 3478),),
    ),
    40_000, 12_500_000,
)  # fmt: skip


def value() -> dict[str, Any]:
    """The same as JSON has it."""
    made: dict[str, Any] = json.loads(encode(DOCUMENT))
    return made


def findings(wrong: Any) -> dict[str, str]:
    """What is said of a document, by place."""
    with pytest.raises(DocumentError) as caught:
        load(json.dumps(wrong).encode(), "agent.json")
    assert all(str(f).startswith("agent.json: ") for f in caught.value.findings)
    return {f.path: f.message for f in caught.value.findings}


def test_what_is_written_is_read_and_fits_the_schema() -> None:
    assert load(encode(DOCUMENT)) == DOCUMENT
    VALIDATOR.validate(value())


def test_what_may_be_left_out_has_the_defaults_that_the_schema_names() -> None:
    network = {n: value()["networks"][0][n] for n in SCHEMA["$defs"]["network"]["required"]}
    peer = {n: value()["networks"][0]["peers"][0][n] for n in SCHEMA["$defs"]["peer"]["required"]}
    least = {"version": 1, "node": "web1", "networks": [{**network, "peers": [peer]}]}
    VALIDATOR.validate(least)
    written = json.loads(encode(load(json.dumps(least).encode())))
    for part, schema in (
        (written, SCHEMA),
        (written["networks"][0], SCHEMA["$defs"]["network"]),
        (written["networks"][0]["peers"][0], SCHEMA["$defs"]["peer"]),
    ):
        defaults = {n: s["default"] for n, s in schema["properties"].items() if "default" in s and n != "peers"}
        assert {n: part[n] for n in defaults} == defaults


def test_everything_that_is_wrong_is_said_at_once_with_its_place() -> None:
    wrong = value()
    network = wrong["networks"][0]
    wrong["signaling_port"] = wrong.pop("signalling_port")
    del wrong["node"]
    network["listen_port"] = 70_000
    network["mesh_ranges"] = ["10.42.0.1/16"]
    network["peers"][0]["public_key"] = "short"
    network["peers"][1]["endpoints"][0] = "pg1.example.net:port"
    network["peers"][2]["kind"] = "phone"
    assert findings(wrong) == {
        "": "`node` is missing",
        "networks[0].listen_port": "networks[0].listen_port: a whole number from 1 to 65535 is expected",
        "networks[0].mesh_ranges[0]": "networks[0].mesh_ranges[0]: a prefix is expected, such as 10.42.0.0/16",
        "networks[0].peers[0].public_key": "networks[0].peers[0].public_key: a WireGuard public key is expected",
        "networks[0].peers[1].endpoints[0]": "networks[0].peers[1].endpoints[0]: an endpoint is expected: "
        "ADDRESS:PORT, [ADDRESS]:PORT, NAME:PORT, or a name with an SRV record",
        "networks[0].peers[2].kind": "networks[0].peers[2].kind: one of 'node', 'anchor', 'client' is expected",
    }


def test_a_member_that_nobody_knows_is_an_error_with_a_suggestion() -> None:
    wrong = {**value(), "signaling_port": 1}
    with pytest.raises(DocumentError) as caught:
        load(json.dumps(wrong).encode())
    (finding,) = caught.value.findings
    assert finding.message == "unknown member `signaling_port`"
    assert finding.hint == "did you mean `signalling_port`?"


def test_networks_that_share_an_interface_or_a_port_and_peers_that_share_a_key_are_refused() -> None:
    twice = value()
    twice["networks"].append(copy.deepcopy(twice["networks"][0]))
    with pytest.raises(DocumentError) as caught:
        load(json.dumps(twice).encode())
    said = {f.message for f in caught.value.findings}
    assert said == {
        "networks: two networks have the network corp", "networks: two networks have the interface wg0",
        "networks: two networks have the listen_port 51820",
    }  # fmt: skip
    same = value()
    same["networks"][0]["peers"][1]["public_key"] = key(2).text
    assert findings(same) == {"networks[0]": f"networks[0]: network corp: public key {key(2)} is given twice"}


def test_a_set_that_is_not_there_is_an_error() -> None:
    wrong = value()
    wrong["networks"][0]["peers"][0]["reaches"] = 7
    assert list(findings(wrong)) == ["networks[0].peers[0].reaches"]


def test_peers_of_whom_policy_says_the_same_share_one_set() -> None:
    read = load(encode(DOCUMENT)).config.networks[0].peers
    assert read[0].reaches == {"pg1"}
    assert read[0].reaches is read[2].reaches
    assert read[1].reaches == frozenset()


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff", b"null", b"[]", b"17"])
def test_what_is_no_document_at_all_is_said_to_be_none(content: bytes) -> None:
    with pytest.raises(DocumentError) as caught:
        load(content, "agent.json")
    assert len(caught.value.findings) == 1


def test_no_finding_shows_a_key() -> None:
    wrong = value()
    secret = wrong["networks"][0]["peers"][0]["pair_key"]
    wrong["networks"][0]["peers"][0]["pair_key"] = secret[:-4]
    assert secret[:-4] not in str(findings(wrong))
    with pytest.raises(DocumentError) as caught:
        load(json.dumps(value()).encode()[:-2])
    assert secret not in str(caught.value)
    assert secret not in repr(load(encode(DOCUMENT)))
    assert repr(b"\x52" * 32) not in repr(load(encode(DOCUMENT)))


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("203.0.113.1:51820", Address("203.0.113.1", 51820)),
        ("[2001:DB8::1]:1", Address("2001:db8::1", 1)),
        ("host.example.net:51820", NamedEndpoint("host.example.net", 51820)),
        ("_wg._udp.example.net", NamedEndpoint("_wg._udp.example.net", 0)),
    ],
)
def test_an_endpoint_is_an_address_or_a_name(text: str, endpoint: Address | NamedEndpoint) -> None:
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize(
    "text",
    ["", "203.0.113.1", "203.0.113.300:1", "2001:db8::1:51820", "host:0", "host:65536", "a b:1", "host:", 5, None],
)
def test_what_is_no_endpoint_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="an endpoint is expected"):
        parse_endpoint(text)


def members(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of all values in a JSON document."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for name, child in inner for place in members(child, (*path, name)))]


@given(st.data())
def test_a_document_with_any_one_value_changed_is_read_or_refused_and_what_is_read_fits_the_schema(
    data: st.DataObject,
) -> None:
    changed = value()
    *above, last = data.draw(st.sampled_from(members(changed)[1:]))
    parent: Any = changed
    for name in above:
        parent = parent[name]
    some = st.none() | st.booleans() | st.integers() | st.text(max_size=50) | st.lists(st.text(), max_size=2)
    parent[last] = data.draw(some | st.dictionaries(st.text(max_size=5), st.none(), max_size=2))
    try:
        read = load(json.dumps(changed).encode())
    except DocumentError:
        return
    VALIDATOR.validate(changed)
    assert load(encode(read)) == read
