"""Why a gateway refused an action, and what to do about it.

UPnP Device Architecture 1.1 section 3.2.2 (401 to 605), WANIPConnection:2 section 2.5 (606, 7xx),
WANIPv6FirewallControl:1 section 2.5 (701 to 709, which mean other things there than in WANIPConnection).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Remedy(Enum):
    """What to do next."""

    LATER = "later"  # the router may change its mind
    NOT_HERE = "not-here"  # it will not: use another service or protocol
    OTHER_PORT = "other-port"  # this external port is taken or not allowed: ask for another
    SAME_PORT = "same-port"  # ask for the external port that the internal one has
    PERMANENT = "permanent"  # ask again with a lease of 0, and delete the mapping oneself
    GONE = "gone"  # there is no such mapping: of a deletion, what was wanted


@dataclass(frozen=True)
class Fault:
    """A refusal. `code` is UPnP's, 0 where the router gave none; `description` is the router's own words."""

    code: int
    description: str

    @property
    def remedy(self) -> Remedy:
        """What to do about a mapping's refusal; an unknown one may pass."""
        return MAPPING_ERRORS.get(self.code, ("", Remedy.LATER))[1]

    @property
    def meaning(self) -> str:
        """A mapping's refusal in words for a person."""
        return MAPPING_ERRORS.get(self.code, (f"the router refused with code {self.code}", Remedy.LATER))[0]

    @property
    def pinhole_remedy(self) -> Remedy:
        """What to do about a pinhole's refusal."""
        return PINHOLE_ERRORS.get(self.code, ("", self.remedy))[1]

    @property
    def pinhole_meaning(self) -> str:
        """A pinhole's refusal in words for a person."""
        return PINHOLE_ERRORS.get(self.code, (self.meaning, Remedy.LATER))[0]


MAPPING_ERRORS: dict[int, tuple[str, Remedy]] = {
    0: ("the router failed without a reason", Remedy.LATER),
    401: ("the router does not know the action", Remedy.NOT_HERE),
    402: ("the router does not like the arguments", Remedy.NOT_HERE),
    403: ("the router does not allow the action", Remedy.NOT_HERE),
    # Many routers say this of a port that is taken, where 718 is meant.
    501: ("the router could not do it", Remedy.OTHER_PORT),
    600: ("the router does not like an argument's value", Remedy.NOT_HERE),
    601: ("the router does not like an argument's range", Remedy.NOT_HERE),
    602: ("the router does not have the action", Remedy.NOT_HERE),
    603: ("the router is out of memory", Remedy.LATER),
    604: ("the router wants a person to do something", Remedy.NOT_HERE),
    605: ("the router thinks that a text is too long", Remedy.NOT_HERE),
    606: ("the router is set not to let this host map ports", Remedy.NOT_HERE),
    714: ("the router has no such mapping", Remedy.GONE),
    715: ("the router wants to know the remote address", Remedy.NOT_HERE),
    716: ("the router wants a particular external port", Remedy.OTHER_PORT),
    718: ("the port is mapped for another host", Remedy.OTHER_PORT),
    724: ("the router maps a port only to the same port", Remedy.SAME_PORT),
    725: ("the router makes permanent mappings only", Remedy.PERMANENT),
    726: ("the router maps for any remote address only", Remedy.NOT_HERE),
    727: ("the router maps all external ports or none", Remedy.NOT_HERE),
    728: ("the router's table is full", Remedy.LATER),
    729: ("the port is in use by the router itself", Remedy.OTHER_PORT),
    730: ("the router has no mappings in the range", Remedy.GONE),
    732: ("the router wants a particular internal port", Remedy.NOT_HERE),
    733: ("the router finds the arguments inconsistent", Remedy.NOT_HERE),
}

PINHOLE_ERRORS: dict[int, tuple[str, Remedy]] = {
    701: ("the firewall has no room for another pinhole", Remedy.LATER),
    702: ("the firewall is off, nothing needs to be opened", Remedy.NOT_HERE),
    703: ("the firewall is set not to be opened", Remedy.NOT_HERE),
    704: ("the firewall has no such pinhole", Remedy.GONE),
    705: ("the firewall does not open UDP", Remedy.NOT_HERE),
    706: ("the firewall wants a particular internal port", Remedy.NOT_HERE),
    707: ("the firewall wants a particular protocol", Remedy.NOT_HERE),
    708: ("the firewall wants to know the remote address", Remedy.NOT_HERE),
    709: ("no packet has used the pinhole", Remedy.LATER),
}
