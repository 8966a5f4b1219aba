"""The ZeroTier node as a sans-I/O engine: given datagrams, frames, requests and `now`, it returns actions.

No socket, file, clock, thread or randomness lives here: time (milliseconds since the Unix epoch) and a source of random bytes are
passed in. Imports nothing of ours but the crypto leaf, `netcon.dataplane.crypto`.
"""
