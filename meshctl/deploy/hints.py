"""The next thing to do for each kind of failure that a node's applier reports (errors.RemoteError)."""

from __future__ import annotations

# {node} is filled in.
HINTS = {
    "disk-full": "free some space on {node} (df -h /etc /var /run), then apply again; nothing was left half-written",
    "package-lock": "wait for the other package run on {node} (unattended-upgrades?), then apply again",
    "wireguard": "{node} needs a kernel with WireGuard or the package wireguard-go",
    "python": "needs python3: apt-get install -y python3",
    "locked": "wait for it to end, then apply again; --resume takes up one of your own that was cut short",
    "moved": "apply again: {node} is read anew, and what is left is done (a rollback: run it again)",
    "protocol": "look at the newest file in /var/lib/meshctl/journal on {node}",
    "command": "correct the cause on {node}, then apply again: every step may be repeated",
    "broken": "run plan again; `meshctl status` says more of the path, and --confirm off applies it all the same",
    "unconfirmed": "nothing is lost: wait a minute, and correct what closed the way in",
    "undone": "apply again; `meshctl history` says what became of it",
    "confirmed": "look at {node} with `meshctl plan`; `meshctl rollback {node}` takes it back",
    "no-state": "`meshctl history --limit {node}` shows what there is to go back to",
    "revoked": "go back to a newer state, or apply an inventory without them",
    "rotated": "go back to a newer state; an older commit, applied, brings back everything but keys",
    "not-converged": "run plan again; something on {node} undoes the change",
}


def hint(kind: str, node: str) -> str:
    """The hint for `kind`, "" when there is none."""
    return HINTS.get(kind, "").format(node=node)
