"""The differential suite: each case is a small program that runs on kernel sockets and on ours and must observe the same.

A case observes results, errno names and event bits, never ports or times. `zygote` runs each in a process of its own;
`test_differential` runs each on both sides, for IPv4 and IPv6, and compares. A case that is known to differ says why and is
compared with what ours is expected to do; when ours starts to agree, the test asks for the exception to be removed.
"""
