"""What a lab host runs to tell how its peers are reached, from packets and from WireGuard, not from what agents say.

It asks every peer at a steady rate, answers who asks, and reads WireGuard's endpoints. All hosts of a lab share the
machine's clock (CLOCK_MONOTONIC), so times of different hosts compare.

It asks no peer for which WireGuard has no endpoint: the kernel's refuses such packets and takes no notice of them, but
wireguard-go begins a handshake that leads nowhere, and then none for five seconds. That is measured by itself, with
`eager`.

argv: interface, seconds between two questions to a peer, seconds between two readings of endpoints, whether to ask
eagerly (`eager` or `waits`). First line of standard input: JSON, peer's name -> [mesh address, public key]. Ends when
standard input does, and prints JSON, peer's name -> {"sent": [time, ...], "answered": {number of a question: time of
its answer}, "endpoints": [[time, endpoint]]}.
"""

from __future__ import annotations

PORT = 7007

METER = f"""
import json, socket, struct, subprocess, sys, threading, time
INTERFACE, EVERY_S, READ_S = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
EAGER, PORT = sys.argv[4] == "eager", {PORT}
FORM = struct.Struct("!cI")
peers = json.loads(sys.stdin.readline())
names = {{address: name for name, (address, key) in peers.items()}}
by_key = {{key: name for name, (address, key) in peers.items()}}
found = {{name: {{"sent": [], "answered": {{}}, "endpoints": []}} for name in peers}}
done = threading.Event()
last = {{}}
def read_endpoints():
    while not done.wait(READ_S):
        text = subprocess.run(["wg", "show", INTERFACE, "endpoints"], capture_output=True, text=True).stdout
        now = time.monotonic()
        for line in text.splitlines():
            key, endpoint = line.split("\\t")
            name = by_key.get(key)
            if name and last.get(name) != endpoint:
                last[name] = endpoint
                found[name]["endpoints"].append([now, endpoint])
def until_end():
    sys.stdin.read()
    done.set()
for job in (read_endpoints, until_end):
    threading.Thread(target=job, daemon=True).start()
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("0.0.0.0", PORT))
print("up", flush=True)
due = time.monotonic()
while not done.is_set():
    now = time.monotonic()
    if now >= due:
        due = max(due + EVERY_S, now)
        for name, (address, key) in peers.items():
            if not EAGER and last.get(name, "(none)") == "(none)":
                continue
            found[name]["sent"].append(now)
            try:
                sock.sendto(FORM.pack(b"?", len(found[name]["sent"]) - 1), (address, PORT))
            except OSError:
                pass
    sock.settimeout(max(0.0005, due - time.monotonic()))
    try:
        data, source = sock.recvfrom(64)
    except OSError:
        continue
    if len(data) != FORM.size or source[0] not in names:
        continue
    kind, which = FORM.unpack(data)
    if kind == b"?":
        try:
            sock.sendto(FORM.pack(b"!", which), source)
        except OSError:
            pass
    else:
        found[names[source[0]]]["answered"].setdefault(which, time.monotonic())
print(json.dumps(found), flush=True)
"""
