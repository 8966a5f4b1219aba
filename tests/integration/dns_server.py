"""A small DNS server, for tests: an ordinary program with plain sockets, which knows nothing of netcon.

python3 dns_server.py ADDRESS NAME=ADDRESS …      UDP and TCP port 53; `long.NAME` has a TXT record that needs TCP
"""

from __future__ import annotations

import socket
import socketserver
import sys
import threading

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

RECORDS = dict(word.split("=") for word in sys.argv[2:])
UDP_ROOM = 512


def respond(wire: bytes, room: int) -> bytes:
    query = dns.message.from_wire(wire)
    response = dns.message.make_response(query)
    asked = query.question[0]
    name = asked.name.to_text(omit_final_dot=True).lower()
    if name.startswith("long."):
        text = " ".join(f'"{"x" * 250}"' for _ in range(8))
        response.answer.append(dns.rrset.from_text(asked.name, 60, "IN", "TXT", text))
    elif name.startswith("alias."):
        target = name.removeprefix("alias.")
        response.answer.append(dns.rrset.from_text(asked.name, 60, "IN", "CNAME", f"{target}."))
        response.answer.append(dns.rrset.from_text(f"{target}.", 60, "IN", "A", RECORDS[target]))
    elif name not in RECORDS:
        response.set_rcode(dns.rcode.NXDOMAIN)
    elif asked.rdtype == 1:
        response.answer.append(dns.rrset.from_text(asked.name, 60, "IN", "A", RECORDS[name]))
    wire = response.to_wire(max_size=65535)
    if len(wire) > room:
        response.answer.clear()
        response.flags |= dns.flags.TC
        wire = response.to_wire(max_size=65535)
    return wire


class Udp(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, connection = self.request
        connection.sendto(respond(data, UDP_ROOM), self.client_address)


class Tcp(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while length := int.from_bytes(self.rfile.read(2)):
            wire = respond(self.rfile.read(length), 65535)
            self.wfile.write(len(wire).to_bytes(2) + wire)


class TcpServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    address_family = socket.AF_INET


def main() -> None:
    udp = socketserver.UDPServer((sys.argv[1], 53), Udp)
    tcp = TcpServer((sys.argv[1], 53), Tcp)
    threading.Thread(target=udp.serve_forever, daemon=True).start()
    tcp.serve_forever()


if __name__ == "__main__":
    main()
