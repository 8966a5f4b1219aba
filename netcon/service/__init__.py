"""The service (trio): owns the node, the data plane, the stacks and the home folder, and serves the HTTP API. Nothing decides here.

`home` and `settings` are what lies on the disk, `wire` which UDP sockets there are, `port` one joined network's stack, `service`
the loop that joins them to the engine, `api` and `controller_api` what other programs may ask, `client` how the commands ask it,
`detach` the way into the background. `socket_rpc` and `paths` import nothing heavy, for `netcon run`.
"""
