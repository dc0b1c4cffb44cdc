"""Where a node is: its own addresses, its endpoints, and the routes behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from meshctl.inventory.addresses import Malformed, Ranges, parse_address, parse_endpoint, parse_prefix
from meshctl.inventory.allocate import is_host_address
from meshctl.inventory.document import Path
from meshctl.inventory.findings import Findings

if TYPE_CHECKING:
    from meshctl.inventory.nodes import Draft, Interface


class PlaceReader:
    """Fills in the places of drafts whose interfaces are known. What is wrong is reported and left out."""

    def __init__(self, networks: Mapping[str, Ranges], findings: Findings) -> None:
        self._networks = networks
        self._findings = findings

    def read(self, draft: Draft) -> None:
        """Given addresses, endpoints and routes of one node."""
        self._read_addresses(draft)
        self._read_endpoints(draft)
        self._read_routes(draft)

    def _read_addresses(self, draft: Draft) -> None:
        given = draft.settings.own[0][0].get("address")
        if given is None:
            return
        path = (*draft.path, "address")
        if isinstance(given, dict):
            for network, value in given.items():
                interface = next((i for i in draft.interfaces if i.network == network), None)
                if interface is not None:
                    self._place_all(value, (*path, network), [interface])
        else:
            self._place_all(given, path, draft.interfaces)

    def _place_all(self, value: Any, path: Path, interfaces: list[Interface]) -> None:
        """One address or a list of them."""
        if not isinstance(value, list):
            self._place(value, path, interfaces)
            return
        for index, text in enumerate(value):
            self._place(text, (*path, index), interfaces)

    def _place(self, text: str, path: Path, interfaces: list[Interface]) -> None:
        """Give one address to the interface whose network holds it."""
        try:
            address = parse_address(text)
        except Malformed as error:
            self._findings.error("bad-address", path, error.message, error.hint)
            return
        prefixes = [(i, prefix) for i in interfaces for prefix in self._networks[i.network].prefixes()]
        if not prefixes:
            return  # the networks were refused
        interface, prefix = next(((i, p) for i, p in prefixes if address in p), (None, None))
        if interface is None or prefix is None:
            where = " and ".join(f"network `{i.network}`" for i in interfaces)
            hint = f"choose one inside {' or '.join(str(p) for _, p in prefixes)}"
            self._findings.error("address-outside-network", path, f"{address} is outside {where}", hint)
        elif not is_host_address(address, prefix):
            kind = "network" if address == prefix.network_address else "broadcast"
            self._findings.error(
                "reserved-address", path, f"{address} is the {kind} address of {prefix}", "choose another"
            )
        elif any(a.version == address.version for a in interface.given):
            message = f"two IPv{address.version} addresses in network `{interface.network}`"
            self._findings.error("too-many-addresses", path, message, "keep one for each family")
        else:
            interface.given = (*interface.given, address)

    def _read_endpoints(self, draft: Draft) -> None:
        own, path = draft.settings.own[0][0].get("endpoint"), (*draft.path, "endpoint")
        if own is not None and not isinstance(own, dict) and len(draft.interfaces) > 1:
            example = ", ".join(f"{i.network}: HOST:{i.port}" for i in draft.interfaces)
            message = f"node `{draft.name}` is in {len(draft.interfaces)} networks, each with a port of its own"
            self._findings.error("ambiguous-endpoint", path, message, f"write endpoint: {{{example}}}")
            return
        for interface in draft.interfaces:
            if isinstance(own, dict):
                self._read_endpoint(draft, interface, own.get(interface.network), (*path, interface.network))
            else:
                self._read_endpoint(draft, interface, own, path)

    def _read_endpoint(self, draft: Draft, interface: Interface, text: str | None, path: Path) -> None:
        """The one that is given; an anchor's is its SSH host where it gives none."""
        if text is not None:
            try:
                interface.endpoint, interface.endpoint_path = parse_endpoint(text), path
            except Malformed as error:
                self._findings.error("bad-endpoint", path, error.message, error.hint)
        elif "anchor" in draft.roles:
            host = draft.settings.merged("ssh").get("host", (draft.name, draft.path))
            interface.endpoint, interface.endpoint_path = (str(host[0]), interface.port), host[1]

    def _read_routes(self, draft: Draft) -> None:
        found = draft.settings.get("routes")
        if found is None:
            return
        seen: set[str] = set()
        for index, text in enumerate(found[0]):
            place = (*found[1], index)
            try:
                prefix = parse_prefix(text)
            except Malformed as error:
                self._findings.error("bad-prefix", place, error.message, error.hint)
                continue
            if prefix.prefixlen == 0:
                self._findings.error(
                    "default-route", place, f"{prefix} is not a subnet", "write exit_node: true to offer the internet"
                )
            elif str(prefix) in seen:
                self._findings.error("duplicate-item", place, f"{prefix} is listed twice", "list it once")
            else:
                seen.add(str(prefix))
                draft.routes.append((str(prefix), place))
