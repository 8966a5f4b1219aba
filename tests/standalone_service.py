"""A socket server with one stack and no network behind it: programs under the intercept meet on its own addresses.

    python3 -m tests.standalone_service --path /tmp/x/sock --address 10.77.0.1/24 --address fd77::1/64

Prints READY when the path answers; ends, resetting all connections, on SIGTERM or SIGINT (with `--stdin` at the end of standard
input, too). `--stats` prints the server's counters as JSON before it ends. With `--peer`, a second stack with those addresses is
joined to the first by an Ethernet link, and served on the same path.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import select
import signal
import sys

import lwip
from netcon.dataplane.reactor import Reactor, connect
from netcon.policy import Policy

NETWORK = 0x8056C2E21C000001
PEER_NETWORK = 0x8056C2E21C000002


def make_stack(reactor: Reactor, addresses: list[str], number: int, mtu: int) -> lwip.Stack:
    stack = lwip.Stack(reactor.capsule(), mac=bytes([0x32, 0x77, 0, 0, 0, number]), mtu=mtu, name=f"standalone-{number}")
    for text in addresses:
        ip, prefix = text.split("/")
        stack.add_address(ip, int(prefix))
    return stack


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--path", required=True, help="where to serve socket RPC")
    parser.add_argument("--address", action="append", default=[], metavar="IP/BITS")
    parser.add_argument("--peer", action="append", default=[], metavar="IP/BITS", help="addresses of a second stack")
    parser.add_argument("--network", type=lambda text: int(text, 16), default=0, help="default network of the path (hex); 0: none")
    parser.add_argument("--policy", default="", help="text of the policy")
    parser.add_argument("--mtu", type=int, default=2800)
    parser.add_argument("--stats", action="store_true", help="print counters as JSON at the end")
    parser.add_argument("--stdin", action="store_true", help="end when standard input ends, too")
    options = parser.parse_args()

    wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(waker)
    reactor = Reactor()
    reactor.start()
    server = lwip.SocketServer(reactor.capsule(), service=secrets.randbits(64), epoch=secrets.randbits(64))
    server.set_policy(Policy.parse(options.policy).compiled())
    stacks = [make_stack(reactor, options.address or ["10.77.0.1/24", "fd77::1/64"], 1, options.mtu)]
    server.add_network(options.network or NETWORK, stacks[0])
    if options.peer:
        stacks.append(make_stack(reactor, options.peer, 2, options.mtu))
        server.add_network(PEER_NETWORK, stacks[1])
        connect(reactor, stacks[0].ethernet_end(), stacks[1].ethernet_end())
    server.listen(options.path, network=options.network)
    print("READY", flush=True)
    select.select([wake, sys.stdin] if options.stdin else [wake], [], [])
    if options.stats:
        print(json.dumps(server.stats()), flush=True)
    server.close()
    for stack in stacks:
        stack.close()
    reactor.stop()
    signal.set_wakeup_fd(-1)
    os.close(wake)
    os.close(waker)
    return 0


if __name__ == "__main__":
    sys.exit(main())
