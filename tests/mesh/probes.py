"""Programs for lab hosts: one answers on some ports, one asks at many at once, one talks until it is told to end.

They need Debian's own Python alone, since the hosts have nothing else.
"""

from __future__ import annotations

# argv: ports. Echoes TCP and UDP of both families on each; says "up" when it does.
ANSWER = """
import socket, sys, threading
def tcp(server):
    while True:
        threading.Thread(target=echo, args=(server.accept()[0],), daemon=True).start()
def echo(sock):
    try:
        while data := sock.recv(65536):
            sock.sendall(data)
    except OSError:
        pass
def udp(server):
    while True:
        data, source = server.recvfrom(65536)
        try:
            server.sendto(data, source)
        except OSError:
            pass
for port in map(int, sys.argv[1:]):
    for kind, job in ((socket.SOCK_STREAM, tcp), (socket.SOCK_DGRAM, udp)):
        server = socket.socket(socket.AF_INET6, kind)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(("::", port))
        if kind == socket.SOCK_STREAM:
            server.listen(64)
        threading.Thread(target=job, args=(server,), daemon=True).start()
print("up", flush=True)
threading.Event().wait()
"""

# Standard input: JSON [[address, protocol, port], ...]; argv: how long to try, in s. Prints a JSON list of booleans.
ASK = """
import json, socket, struct, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor
LIMIT = float(sys.argv[1])
def tcp(family, address, port):
    with socket.create_connection((address, port), timeout=LIMIT) as sock:
        sock.sendall(b"?")
        return sock.recv(1) == b"?"
def udp(family, address, port):
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect((address, port))
        sock.settimeout(0.5)
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            try:
                sock.send(b"?")
                return sock.recv(1) == b"?"
            except TimeoutError:
                pass
        return False
def icmp(family, address, port):
    ping = ["ping", "-n", "-q", "-c", "1", "-i", "0.5", "-w", str(round(LIMIT)), address]
    return subprocess.run(ping, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
def ask(probe):
    address, protocol, port = probe
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return {"tcp": tcp, "udp": udp, "icmp": icmp}[protocol](family, address, port)
    except OSError:
        return False
probes = json.load(sys.stdin)
with ThreadPoolExecutor(len(probes)) as pool:
    print(json.dumps(list(pool.map(ask, probes))))
"""

# argv: address, port, `tcp` or `udp`. Sends numbered blocks one by one and reads each back until its input ends. Prints
# how many it sent, and how many of them (datagrams) were lost; "broken: WHY" when the connection is.
STREAM = """
import socket, sys, threading, time
address, port, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
sock = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
sock.settimeout(10 if kind == "tcp" else 1)
sock.connect((address, port))
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
def receive(size):
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise EOFError("closed")
        data += more
    return data
def tcp(block):
    sock.sendall(block * 200)
    if receive(len(block) * 200) != block * 200:
        raise ValueError(f"{block} came back wrong")
    return True
def udp(block):
    sock.send(block)
    try:
        while sock.recv(65536) != block:  # one that had been given up
            pass
    except TimeoutError:
        return False
    return True
sent, lost, talk = 0, [], {"tcp": tcp, "udp": udp}[kind]
try:
    while not stop.is_set():
        if not talk(b"%d," % sent):
            lost.append(f"{sent} at {time.time():.1f}")
        sent += 1
        if sent == 1:
            print("up", flush=True)
        time.sleep(0.001)
    print(sent, len(lost), *lost, flush=True)
except (OSError, EOFError, ValueError) as error:
    print(f"broken: {error!r} after {sent}", flush=True)
"""
