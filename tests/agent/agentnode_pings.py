"""Pings beside a test, a hundred a second: DESIGN's yardstick for "no tunnel is bounced"."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from itertools import pairwise

INTERVAL_S = 0.01
# So long without an answer is more than a busy machine's.
SILENCE_S = 0.1
# Of what is sent, and of any number.
LOST_SHARE, LOST = 0.05, 2
# What is under way when ping is told to stop is not lost: so many at the most, when there was another answer or so long
# none. A slow machine's ping does not keep its pace.
UNANSWERED, LAST_S = 100, 5.0
_STEP_S = 0.02


def answered(said: str) -> list[int]:
    """Numbers of the packets that ping says were answered, from 1, in the order in which the answers came."""
    return [int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", said)]


def sent(said: str) -> int:
    """How many packets ping says at its end that it has sent."""
    found = re.search(r"(\d+) packets transmitted", said)
    assert found, said
    return int(found[1])


def complaint(said: str) -> str:
    """What speaks against a path that all the while carried what was sent; "" for nothing.

    The lab's tunnels are processes, and a busy machine has them drop a few packets now and then, but a tunnel that is
    bounced loses all that is sent for a tenth of a second at least, and one that is set to a wrong endpoint all until
    the next try: neither may happen.
    """
    count, heard = sent(said), answered(said)
    last = max(heard, default=0)
    if count - last >= UNANSWERED:
        return f"no answer after packet {last} of {count}"
    lost = sorted(set(range(1, last)) - set(heard))
    if len(lost) > count * LOST_SHARE + LOST:
        return f"{len(lost)} of {count} packets lost: {lost}"
    gap = round(SILENCE_S / INTERVAL_S)
    if any(set(range(number, number + gap)) <= set(lost) for number in lost):
        return f"{SILENCE_S} s of silence in {count} packets: {lost}"
    return ""


class Pings:
    """A ping that runs, and then what it says of itself (`said`)."""

    def __init__(self, before: Sequence[str], address: str) -> None:
        words = ["ping", "-n", "-D", "-i", str(INTERVAL_S), address]
        self._output = os.memfd_create("ping")  # nobody reads a pipe meanwhile
        self._process = subprocess.Popen([*before, *words], stdout=self._output)
        self.said = ""

    def stop(self) -> None:
        """End it, after one more answer if there is one (LAST_S)."""
        before, deadline = len(answered(self._read())), time.monotonic() + LAST_S
        while len(answered(self._read())) == before and time.monotonic() < deadline:
            time.sleep(_STEP_S)
        self._process.send_signal(signal.SIGINT)
        self._process.wait(timeout=10)
        self.said = self._read()
        os.close(self._output)

    def complaint(self) -> str:
        """See the module's."""
        return complaint(self.said)

    def longest_silence_s(self) -> float:
        """The longest time between two answers."""
        at = [float(when) for when in re.findall(r"^\[([0-9.]+)\] \d+ bytes from", self.said, re.MULTILINE)]
        return max(b - a for a, b in pairwise(at))

    def _read(self) -> str:
        # Not by a file object: ping writes at the place up to which that would have read.
        return os.pread(self._output, os.fstat(self._output).st_size, 0).decode()
