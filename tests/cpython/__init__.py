"""Somebody else's tests: CPython's own, of sockets, run on kernel sockets and on ours, and compared test by test.

`runner` runs both sides, `zygote` one class of tests at a time in a process of its own, `confine` keeps them away from the
machine's network. `table` compares the results with the differences that `differences.toml` explains; `test_cpython` fails
at any other. `python3 -m tests.cpython.table` runs everything and writes counts.json and docs/cpython.md anew.
"""
