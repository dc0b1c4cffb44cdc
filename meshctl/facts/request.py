"""Which facts a node's document needs. What the host's own ledger names is added by the script, on the host."""

from __future__ import annotations

from dataclasses import dataclass

from meshctl.model.resources import File, Nftables, NodeDoc, Package, Service, Sysctl, WireGuard


@dataclass(frozen=True)
class FactsRequest:
    """What the script asks the host for. Every tuple is sorted and free of duplicates; tables are
    `FAMILY NAME`. Pre-shared keys are read for `interfaces` alone."""

    paths: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    sysctls: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()
    key_files: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()


def request_for(doc: NodeDoc) -> FactsRequest:
    """Everything that `core.diff.diff(doc, …)` will look at."""
    found: dict[str, set[str]] = {name: set() for name in FactsRequest.__dataclass_fields__}
    for resource in doc.resources:
        if isinstance(resource, Package):
            found["packages"].update(resource.names)
        elif isinstance(resource, File):
            found["paths"].add(resource.path)
        elif isinstance(resource, Sysctl):
            found["sysctls"].add(resource.name)
        elif isinstance(resource, Service):
            found["units"].add(resource.name)
        elif isinstance(resource, WireGuard):
            found["interfaces"].add(resource.interface)
            found["key_files"].update((resource.key_file, resource.next_key_file))
        elif isinstance(resource, Nftables):
            found["tables"].add(f"{resource.family} {resource.table}")
    return FactsRequest(**{name: tuple(sorted(values)) for name, values in found.items()})
