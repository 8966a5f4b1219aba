"""Multicast DNS (RFC 6762), just enough of it, for tests: plain sockets on port 5353, and nothing known of netcon.

python3 mdns.py serve ADDRESS NAME        says NAME's address to all who ask, over IPv4 and IPv6; prints READY
python3 mdns.py ask4|ask6 NAME            prints the address
"""

from __future__ import annotations

import select
import socket
import struct
import sys

import dns.flags
import dns.message
import dns.name
import dns.rrset

GROUP4, GROUP6, PORT = "224.0.0.251", "ff02::fb", 5353


def index() -> int:
    return next(number for number, name in socket.if_nameindex() if name != "lo")


def open4() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("", PORT))
    request = struct.pack("=4s4si", socket.inet_aton(GROUP4), b"\0" * 4, index())
    made.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
    made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
    return made


def open6() -> socket.socket:
    made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("", PORT))
    made.setsockopt(
        socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, socket.inet_pton(socket.AF_INET6, GROUP6) + struct.pack("=I", index())
    )
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index())
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
    return made


def group(own: socket.socket) -> tuple[str, int] | tuple[str, int, int, int]:
    return (GROUP4, PORT) if own.family == socket.AF_INET else (GROUP6, PORT, 0, index())


def serve(address: str, name: str) -> None:
    sockets = [open4(), open6()]
    wanted = dns.name.from_text(name)
    print("READY", flush=True)
    while True:
        for own in select.select(sockets, [], [])[0]:
            query = dns.message.from_wire(own.recv(9000))
            if query.flags & dns.flags.QR or not query.question or query.question[0].name != wanted:
                continue
            response = dns.message.Message(id=0)
            response.flags = dns.flags.QR | dns.flags.AA
            response.answer.append(dns.rrset.from_text(wanted, 120, "IN", "A", address))
            own.sendto(response.to_wire(), group(own))


def ask(own: socket.socket, name: str) -> None:
    query = dns.message.make_query(name, "A", id=0).to_wire()
    while True:  # the first may be lost while the members learn of each other's groups
        own.sendto(query, group(own))
        while select.select([own], [], [], 1)[0]:
            response = dns.message.from_wire(own.recv(9000))
            if response.flags & dns.flags.QR and response.answer:
                print(response.answer[0][0].address)
                return


def main() -> None:
    match sys.argv[1:]:
        case ["serve", address, name]:
            serve(address, name)
        case ["ask4", name]:
            ask(open4(), name)
        case ["ask6", name]:
            ask(open6(), name)


if __name__ == "__main__":
    main()
