"""What a driver does for each action of a core: the kernel, the network and the routers are the world's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simkernel import is_stun

from meshctl.core.agent import events as ev
from meshctl.model.keys import PublicKey

if TYPE_CHECKING:
    from simdriver import Driver

_DNS_S, _LAN_S, _HTTP_TIMEOUT_S = 0.03, 0.004, 3.0


def do(driver: Driver, action: ev.Action) -> None:
    """Do it, now or as soon as it takes."""
    _DO[type(action)](driver, action)  # type: ignore[operator]


def _send_probe(driver: Driver, action: ev.SendProbe) -> None:
    source = action.local.ip or driver.node.kernel.source_for(action.remote) or ""
    driver.node.world.watch.probe(driver.node, action)
    copyist = driver.node.world.copyist
    if copyist is not None:
        if copyist.takes(action.remote):
            return
        copyist.sent_stun(driver.node, action.local, action.remote, action.data)
    if is_stun(action.data):
        driver.node.kernel.send((source, action.local.port), action.remote, action.data)
    else:
        driver.node.world.found("probes that are no STUN", driver.node.name, str(action.remote))


def _send_signal(driver: Driver, action: ev.SendSignal) -> None:
    driver.node.world.watch.signal(driver.node, action)
    driver.node.kernel.wg.send(action.mesh_ip, b"S" + action.data)


def _set_endpoint(driver: Driver, action: ev.SetEndpoint) -> None:
    peer = driver.node.peer_name(action.peer)
    driver.node.world.watch.endpoint(driver.node, peer, action.address)
    if _is_there(driver, action.peer):
        driver.node.kernel.wg.set_endpoint(action.peer.raw()[:16], action.address)


def _set_keepalive(driver: Driver, action: ev.SetKeepalive) -> None:
    driver.node.say(f"keepalive of {driver.node.peer_name(action.peer)}: {action.interval_s} s")
    if _is_there(driver, action.peer):
        driver.node.kernel.wg.set_keepalive(action.peer.raw()[:16], action.interval_s)


def _is_there(driver: Driver, peer: PublicKey) -> bool:
    """Whether WireGuard has that peer: nobody makes one by setting something of it (WGPEER_F_UPDATE_ONLY)."""
    return driver.node.kernel.wg.has(peer.raw()[:16])


def _poll_wg(driver: Driver, _action: ev.PollWg) -> None:
    driver.node.world.watch.read(driver.node)
    driver.todo.append(ev.WgStatus(driver.node.statuses()))


def _resolve(driver: Driver, action: ev.Resolve) -> None:
    world = driver.node.world
    answer = ev.Resolved(action.name, world.resolve(action.name), world.spec.ttl_s)
    driver.clock.after(_DNS_S, lambda: driver.give(answer))


def _send_mapping(driver: Driver, action: ev.SendMapping) -> None:
    gateway = driver.node.gateway
    if gateway is not None and action.gateway.ip in (gateway.ip, "239.255.255.250"):
        for answer in gateway.datagram(action):
            driver.clock.after(_LAN_S, lambda answer=answer: driver.give(answer))


def _http_request(driver: Driver, action: ev.HttpRequest) -> None:
    gateway = driver.node.gateway
    if gateway is not None and f"//{gateway.ip}:" in action.url:
        answer = gateway.http(action)
        driver.clock.after(_LAN_S, lambda: driver.give(answer))
    else:
        silence = ev.HttpReply(action.request_id, 0, b"")
        driver.clock.after(_HTTP_TIMEOUT_S, lambda: driver.give(silence))


def _install_relay(driver: Driver, action: ev.InstallRelay) -> None:
    driver.node.world.watch.relay(driver.node, action)
    driver.node.kernel.relays[action.port] = (action.a, action.b)
    driver.relays_before.discard(action.port)


def _remove_relay(driver: Driver, action: ev.RemoveRelay) -> None:
    driver.node.say(f"relay {action.port} removed")
    driver.node.kernel.relays.pop(action.port, None)
    driver.relays_before.discard(action.port)


def _open_ports(driver: Driver, action: ev.OpenPorts) -> None:
    driver.node.say(f"{len(action.ports)} ports open for {driver.node.peer_name(action.peer)}")
    driver.node.kernel.opened[action.peer.text] = action.ports


def _install_splice(driver: Driver, action: ev.InstallSplice) -> None:
    driver.node.say(f"splice {action.local_port} to {action.remote} for {driver.node.peer_name(action.peer)}")
    driver.node.kernel.splices[action.remote] = action.local_port
    driver.splices_before.discard(action.remote)


def _remove_splice(driver: Driver, action: ev.RemoveSplice) -> None:
    driver.node.say(f"splice {action.local_port} to {action.remote} removed")
    driver.node.kernel.splices.pop(action.remote, None)
    driver.splices_before.discard(action.remote)


def _save_state(driver: Driver, action: ev.SaveState) -> None:
    driver.node.saved = action.data


_DO = {
    ev.SendProbe: _send_probe, ev.SendSignal: _send_signal, ev.SetEndpoint: _set_endpoint,
    ev.SetKeepalive: _set_keepalive, ev.PollWg: _poll_wg, ev.Resolve: _resolve,
    ev.SendMapping: _send_mapping, ev.HttpRequest: _http_request,
    ev.InstallRelay: _install_relay, ev.RemoveRelay: _remove_relay, ev.OpenPorts: _open_ports,
    ev.InstallSplice: _install_splice, ev.RemoveSplice: _remove_splice,
    ev.SaveState: _save_state,
}  # fmt: skip
