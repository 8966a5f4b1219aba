/* options.hpp: socket options that live in the service: kept here, shown by getsockopt as Linux shows them, and given to lwIP
 * when there is a PCB. What lwIP has no equivalent for is kept and shown, and said so where it is kept. */
#pragma once

#include <cstdint>
#include <string>

#include "netcon/socket_rpc.h"

namespace netcon::server {

struct Reply;
class TcpEnd;

struct Options {
    bool reuse_address = false;
    bool reuse_port = false;
    bool keep_alive = false;
    bool no_delay = false;
    bool v6_only = false;
    bool linger = false;
    int linger_seconds = 0;
    int keep_idle = 7200, keep_interval = 75, keep_count = 9; // seconds, seconds, probes
    int receive_buffer = 131072, send_buffer = 16384;         // as Linux shows them on a fresh socket
    int tos = 0, traffic_class = 0, ttl = -1, hop_limit = -1; // -1: the default
    int max_segment = 0;
    int defer_accept = 0;   // kept: a connection is handed over when it is established
    int user_timeout = 0;   // kept: lwIP's own limit of retransmissions holds
    int syn_count = 6;      // kept
    int linger2 = 60;       // kept
    int not_sent_lowat = 0; // kept
    int fast_open = 0;      // kept: no cookie is ever sent
    int window_clamp = 0;   // kept
    int priority = 0, mark = 0;
    bool broadcast = false, dont_route = false, timestamp = false, timestamp_ns = false, oob_inline = false;
    bool freebind = false, transparent = false;
    int busy_poll = 0, incoming_cpu = -1, receive_lowat = 1;
    int mtu_discover = 1, mtu_discover6 = 1;
    std::string device; // SO_BINDTODEVICE: kept; the network decides
};

} // namespace netcon::server
