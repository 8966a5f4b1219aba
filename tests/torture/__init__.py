"""Torture: random programs on kernel sockets and on ours, whose every observation must be the same.

`script` makes random lists of operations from a seed; `model` knows which of them make sense, and turns them into a script of lines
for several processes and threads; `torture.c` (with `calls.c`, `crowds.c`, `storm.c`) performs a script; `runner` runs it on both
sides, compares, and makes a script that differs small. The kernel is the oracle: nobody writes down what is right.
`python3 -m tests.torture` and `make torture` do that for as long as one likes.

What keeps scripts deterministic: one operation at a time (or several whose results do not depend on each other), and after each an
observation of all sockets of all processes, which on our side is repeated until it is the kernel's. Known differences
(docs/compatibility.md) are left out by the model.
"""
