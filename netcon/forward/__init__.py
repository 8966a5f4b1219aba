"""Ways into and out of a network for programs that cannot be intercepted: forwards as ssh's, a SOCKS5 and an HTTP proxy.

`specification` is what the user writes, `sides` the host's sockets and the network's behind one face, `relay` what happens to one
connection, `streams` and `datagrams` a listener and its connections or flows; `socks` is SOCKS5's messages (sans-I/O), `proxy`
serves them and HTTP. Runs in the command's own process as a client of the service, which opens no host socket for anybody.
May import `netcon.sockets` and the errors; not the command line, the engine or the data plane.
"""
