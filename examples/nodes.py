"""Three embedded nodes in one process: their identities, networks and addresses.

    python examples/nodes.py
    python examples/nodes.py -n 5 --nwids

`--nwids` prints nothing but the id of each network that each node has joined.
"""

from __future__ import annotations

import trio
from _world import mac, options, world

from netcon.core.address import format_address, format_network


async def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--nwids", action="store_true", help="print only the ids of the networks that each node has joined")
    choice = parser.parse_args()
    async with world(choice.n) as (_, nodes):
        for node in nodes:
            joined = node.networks()
            if choice.nwids:
                print(*(format_network(network.id) for network in joined))
                continue
            print(f"node {format_address(node.address)}  {'online' if node.online else 'offline'}")
            print(f"  identity {node.identity.to_text()}")
            for network in joined:
                assert network.config is not None
                addresses = ", ".join(map(str, node.addresses(network.id)))
                print(f"  network {format_network(network.id)} {network.config.name}: {mac(network.mac)}, {addresses}")


if __name__ == "__main__":
    trio.run(main)
