/* ethernet.hpp: what every Ethernet end of ours needs to be one (include/netcon/ethernet_port.h). */
#pragma once

#include <cstddef>
#include <cstdint>

#include "netcon/ethernet_port.h"

namespace netcon {

constexpr size_t ethernet_header_bytes = 14;

/* The C struct of an end whose class has `deliver`, `resume` and `attach`. */
template <class End> netcon_ethernet_end ethernet_end_of(End *self) {
    return {
        .abi_version = NETCON_ETHERNET_END_ABI,
        .size = sizeof(netcon_ethernet_end),
        .self = self,
        .deliver = [](void *end, const netcon_frame *frames,
                      size_t count) { return static_cast<End *>(end)->deliver(frames, count); },
        .resume = [](void *end) { static_cast<End *>(end)->resume(); },
        .attach = [](void *end, const netcon_ethernet_end *peer) { static_cast<End *>(end)->attach(peer); },
    };
}

} // namespace netcon
