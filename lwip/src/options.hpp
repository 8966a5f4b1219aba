/* options.hpp: socket options that live in the service: kept here, shown by getsockopt as Linux shows them, and given to lwIP
 * when there is a PCB. What lwIP has no equivalent for is kept and shown, and said so where it is kept. */
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "address.hpp"
#include "netcon/socket_rpc.h"

namespace netcon::server {

struct Reply;
class Server;
class TcpEnd;

constexpr int ipv6_mtu_min = 1280;

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
    bool receive_buffer_set = false, send_buffer_set = false; // otherwise they grow with the connection
    int tos = 0, traffic_class = 0, ttl = -1, hop_limit = -1; // -1: the default
    int max_segment = 0;
    int defer_accept = 0;   // seconds for which a connection without data waits apart
    int user_timeout = 0;   // milliseconds; 0: as long as Linux endures silence
    int syn_count = 6;      // a SYN is repeated
    int linger2 = 60;       // kept: how long FIN-WAIT-2 lasts is lwIP's
    int not_sent_lowat = 0; // kept: poll of the pair does not know it
    int window_clamp = 0;
    int priority = 0;
    bool broadcast = false, dont_route = false, timestamp = false, timestamp_ns = false, oob_inline = false;
    bool freebind = false;
    int busy_poll = 0, incoming_cpu = -1, receive_lowat = 1;
    int mtu_discover = 1, mtu_discover6 = 1;
    std::string device; // SO_BINDTODEVICE: narrows to the network of that interface
    /* Those that are shown as they were set and have no effect here, in the order of their table. */
    static constexpr size_t kept_count = 24;
    std::array<int, kept_count> kept = kept_at_first();
    static std::array<int, kept_count> kept_at_first();
    bool operator==(const Options &) const = default;
};

/* Of datagram sockets alone. */
struct DatagramOptions {
    bool packet_info = false, packet_info6 = false;
    bool recv_ttl = false, recv_hops = false, recv_tos = false, recv_class = false;
    int multicast_ttl = 1, multicast_hops = 1;
    bool multicast_loop = true, multicast_loop6 = true;
    uint64_t multicast_network = 0, multicast_network6 = 0; // IP_MULTICAST_IF
    Address multicast_source;                               // as IP_MULTICAST_IF was given, for getsockopt
    bool receive_errors = false, receive_errors6 = false;   // kept: there is no error queue
    uint32_t icmp_filter = 0;                               // a set bit is a type that is not wanted
    uint32_t icmp6_filter[8] = {};
};

/* SO_RCVBUF and SO_SNDBUF: at most net.core.rmem_max and wmem_max, doubled for the kernel's own book-keeping, at least its minimum.
 */
void set_receive_buffer(Options &options, int wanted);
void set_send_buffer(Options &options, int wanted);
/* Those that are not numbers and mean the same to sockets of all types: SO_LINGER, SO_BINDTODEVICE. nullopt: not one of them. */
std::optional<int> set_common_option(Options &options, const Server &server, int level, int name, const uint8_t *value,
                                     uint32_t length);
std::optional<int> get_common_option(const Options &options, int level, int name, uint32_t capacity, Reply &reply);
int reply_bytes(Reply &reply, const void *bytes, size_t size, uint32_t capacity);
int reply_int(Reply &reply, int value, uint32_t capacity);

/* The options that are a number in a field and mean the same to sockets of all types; nullopt: not one of them. */
std::optional<int> set_plain_option(Options &options, int level, int name, int number, bool stream);
std::optional<int> get_plain_option(const Options &options, int level, int name, bool stream);
/* TCP_INFO, with what lwIP and connection.c know (tcp_info.cpp). */
int reply_tcp_info(const TcpEnd &tcp, const Options &options, bool listening, Reply &reply, uint32_t capacity);

} // namespace netcon::server
