"""Everything native that moves bytes: the reactor thread, UDP, rings, Ethernet ports; and the crypto leaf, `crypto`.

Knows `include/netcon`; knows neither `netcon.core` nor `lwip`.
"""
