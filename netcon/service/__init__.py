"""The service (trio): owns the node, the data plane, the stacks and the home folder, and serves the HTTP API. Nothing decides here."""
