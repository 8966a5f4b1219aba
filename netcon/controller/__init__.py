"""The network controller: networks, members, addresses, certificates. The engine part is sans-I/O; stores are beside it.

Imports `netcon.core`; nothing here opens a socket. Only `sqlite_store` touches a file.
"""
