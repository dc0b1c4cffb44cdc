"""Who is asked about, what was decided, by which rule, and which nodes the packet passes. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from meshctl.core.prefixes import covers, host_prefix, merge_prefixes
from meshctl.model.mesh import Mesh
from meshctl.model.policy import INTERNET, Rule, Subject, is_prefix
from meshctl.policy.compile import Compiled, Decisions
from meshctl.policy.naming import narrowest
from meshctl.policy.network import NetworkPolicy


class NoSubjectError(ValueError):
    """Nobody, or more than one, is meant by the text. `hint` is the next thing to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Answer:
    """What happens to one new connection.

    `rule` is None where no rule decided, which denies. `network` is "" where the two share none. `path` is both ends
    and the nodes between them, () when nothing passes.
    """

    allowed: bool
    rule: Rule | None = None
    network: str = ""
    path: tuple[str, ...] = ()


class End(NamedTuple):
    """Who is asked about, and by which network when that follows from the address ("": by any)."""

    subject: Subject
    network: str = ""


def end(mesh: Mesh, decisions: Decisions, text: str) -> End:
    """A node's name, `internet`, an address or a prefix to the subject that it is judged as. Raises NoSubjectError."""
    if text in mesh.nodes or text == INTERNET:
        return End(text)
    if text in mesh.groups or text in mesh.networks:
        raise NoSubjectError(f"`{text}` is not one node", "name one of its nodes, or see `meshctl policy matrix`")
    try:
        prefix = str(ip_network(text)) if is_prefix(text) else host_prefix(str(ip_address(text)))
    except ValueError:
        raise NoSubjectError(f"there is no node `{text}`") from None
    for node in mesh.nodes.values():
        for attachment in node.attachments:
            if prefix in map(host_prefix, attachment.addresses):
                return End(node.name, attachment.network)
    found = dict.fromkeys(s for policy in decisions.networks.values() for s in judged(policy, prefix))
    if not found:
        raise NoSubjectError(f"{text} is neither a node's address nor behind a gateway")
    if len(found) > 1:
        hint = f"policies tell {', '.join(found)} apart; ask about one address"
        raise NoSubjectError(f"{text} is not judged as one", hint)
    return End(next(iter(found)))


def judged(policy: NetworkPolicy, prefix: str, excluded: Collection[str] = ()) -> Iterator[Subject]:
    """The subjects of the network that devices in `prefix`, less `excluded`, are judged as."""
    around = narrowest(prefix, frozenset(policy.prefixes))
    inside = [s for s in policy.prefixes if covers(prefix, s) and s != around]
    for candidate in [around, *inside] if around else inside:
        region = prefix if candidate == around else candidate
        gone = [x for x in (*policy.prefixes, *excluded) if covers(region, x) and x != candidate]
        if candidate in excluded or any(covers(x, region) for x in excluded):
            continue
        if merge_prefixes(gone) != (region,):  # nothing is left of it when others take all of it
            yield candidate


def networks_for(decisions: Decisions, source: Subject, destination: Subject) -> tuple[NetworkPolicy, ...]:
    """The networks by which a connection may go, in order; () when it has no way through the mesh.

    Two nodes have addresses in each network that they share. A prefix and the internet are reached by one network
    alone: the first in which a node gets the route (core.topology), be it for what is behind it, else the first of all.
    """
    shared = tuple(p for p in decisions.networks.values() if _knows(p, source, destination))
    if len(shared) < 2 or all(subject in p.nodes for p in shared for subject in (source, destination)):
        return shared
    serving = (p for p in shared if _routed(p, source, destination))
    return (next(serving, shared[0]),)


def explain(compiled: Compiled, start: End, finish: End, point: int) -> Answer:
    """What is decided about traffic number `point` (core.traffic); a network that allows it is preferred."""
    answer = Answer(allowed=False)
    source, destination = start.subject, finish.subject
    meant = {start.network, finish.network} - {""}
    for policy in _ways(compiled, source, destination):
        if meant - {policy.name}:
            continue
        pieces = policy.decide(source, destination)
        rule = next((piece.rule for piece in pieces if piece.low <= point <= piece.high), None)
        if rule is not None and not rule.deny:
            return Answer(True, rule, policy.name, path(compiled, policy, source, destination))
        if answer.rule is None and (rule is not None or not answer.network):
            answer = Answer(False, rule, policy.name)
    return answer


def _ways(compiled: Compiled, source: Subject, destination: Subject) -> tuple[NetworkPolicy, ...]:
    """The networks to ask; to the internet it is the one whose interface has the node's default route, if one has."""
    if destination != INTERNET or source not in compiled.mesh.nodes:
        return networks_for(compiled.decisions, source, destination)
    leaving = [link.network for link in compiled.topology.interfaces(source) if link.default_route]
    asked = [compiled.decisions.network(network) for network in leaving]
    # Without a default route nothing gets out, and what is left to say is which rule denies it, if one does.
    return tuple(asked) or tuple(
        policy
        for policy in networks_for(compiled.decisions, source, destination)
        if not policy.opens(source, destination)
    )


def path(compiled: Compiled, policy: NetworkPolicy, source: Subject, destination: Subject) -> tuple[str, ...]:
    """The ends and every node between them that unwraps the packet.

    An anchor is named when it routes the pair; one that only relays sealed packets is chosen while the mesh runs.
    """
    first, last = policy.home(source), policy.home(destination, source)
    if first is None or last is None:
        return ()
    link = next(x for x in compiled.topology.interfaces(first) if x.network == policy.name)
    between = (link.routed[last],) if last in link.routed else ()
    return tuple(dict.fromkeys((source, first, *between, last, destination)))


def _knows(policy: NetworkPolicy, source: Subject, destination: Subject) -> bool:
    known = source in policy.source and destination in policy.destination
    return known and policy.carries(source, destination)


def _routed(policy: NetworkPolicy, source: Subject, destination: Subject) -> bool:
    """Whether one end's node has a route to the other: it, or what is behind it, has to do with that here."""
    if destination == INTERNET:
        return policy.opens(source, destination)
    near, far = (source, destination) if is_prefix(destination) else (destination, source)
    node = policy.home(near)
    there = (near, *(s for s in (*policy.nodes, *policy.prefixes) if s != near and policy.home(s) == node))
    return any(policy.opens(one, far) or policy.opens(far, one) for one in there)
