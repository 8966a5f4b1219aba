"""The commands. They talk to a running service through its API, or make and check files (identities, worlds)."""
