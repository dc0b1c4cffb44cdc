"""Precedence: node > group (children before parents) > network > defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from meshctl.inventory.document import Path

Setting = tuple[Any, Path]  # a value and where it was given
Layer = tuple[Mapping[str, Any], Path]


@dataclass(frozen=True)
class Settings:
    """One node's settings as layers, strongest first."""

    own: tuple[Layer, ...]  # the node and its groups
    networks: Mapping[str, Layer]
    defaults: tuple[Layer, ...]

    def layers(self, network: str | None = None) -> tuple[Layer, ...]:
        """All layers, or those that count for the interface in one network."""
        if network is None:
            return self._all
        return (*self.own, self.networks[network], *self.defaults)

    @cached_property
    def _all(self) -> tuple[Layer, ...]:
        return (*self.own, *self.networks.values(), *self.defaults)

    def get(self, key: str) -> Setting | None:
        """The strongest value of `key` for the node as a whole."""
        for mapping, path in self.layers():
            if key in mapping:
                return mapping[key], (*path, key)
        return None

    def value(self, key: str, default: Any) -> Any:
        """The strongest value of `key`, without its place."""
        found = self.get(key)
        return default if found is None else found[0]

    def in_network(self, key: str, network: str) -> Setting | None:
        """The strongest value for the interface in `network`; `{NETWORK: VALUE}` is looked into."""
        for mapping, path in self.layers(network):
            if key in mapping:
                value = mapping[key]
                if not isinstance(value, dict):
                    return value, (*path, key)
                if network in value:
                    return value[network], (*path, key, network)
        return None

    def merged(self, key: str) -> dict[str, Setting]:
        """A mapping merged key by key (`ssh`, `lab`, `vars`), each value with its place."""
        result: dict[str, Setting] = {}
        for mapping, path in reversed(self.layers()):
            for inner, value in mapping.get(key, {}).items():
                result[inner] = (value, (*path, key, inner))
        return result

    def added(self, key: str) -> dict[str, Path]:
        """A list added up over the levels (`roles`, `tags`), general first, each item with its first place."""
        result: dict[str, Path] = {}
        for mapping, path in reversed(self.layers()):
            for index, item in enumerate(mapping.get(key, ())):
                result.setdefault(item, (*path, key, index))
        return result
