"""Names of members and what becomes of a question about a name: sans-I/O, as the engine.

May import `netcon.core` and dnspython's data types (names, messages); never a socket, a clock or trio. `netcon.service.resolver`
asks the networks' servers and answers the programs.
"""
