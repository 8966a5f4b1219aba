"""The commands. They talk to a running service through its API, or make and check files (identities, worlds).

`main` is the door; each command's module is imported when that command is used, and imports what is slow to load only when it
is needed: `netcon run` starts a program as fast as the program itself starts.
"""
