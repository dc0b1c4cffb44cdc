"""Why a unit did not start: systemctl only says that it did not, the reason is in the unit's own output."""

from __future__ import annotations

from collections.abc import Sequence

from meshctl.agent import process

JOURNAL_TIMEOUT_S = 10.0
LINES = "30"
_VERBS_THAT_RUN = frozenset({"start", "restart", "reload", "reload-or-restart"})
# wg-quick repeats each command that it runs; wireguard-go prints a box.
_CHATTER = ("[#]", "┌", "│", "└")


def own_words(argv: Sequence[str]) -> str:
    """What the unit of a failed `systemctl VERB -- UNIT` that runs it printed; "" for any other command."""
    if argv[0] != "systemctl" or len(argv) < 2 or argv[1] not in _VERBS_THAT_RUN:
        return ""
    shown = process.run(["systemctl", "show", "-p", "InvocationID", "--value", "--", argv[-1]])
    invocation = shown.stdout.strip()
    if shown.status != 0 or not invocation:
        return ""
    process.run(["journalctl", "--sync"], timeout_s=JOURNAL_TIMEOUT_S)
    match = f"_SYSTEMD_INVOCATION_ID={invocation}"
    words = ["journalctl", "-q", "--no-pager", "-o", "cat", "-n", LINES, match]
    said = process.run(words, timeout_s=JOURNAL_TIMEOUT_S).stdout.splitlines()
    return "\n".join(line for line in said if not line.startswith(_CHATTER))
