/* options.cpp: getsockopt, setsockopt and ioctl of TCP sockets, with the answers and errors of Linux. See options.hpp. */
#include <arpa/inet.h>
#include <asm/ioctls.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "server.hpp"
#include "socket.hpp"

namespace netcon::server {

namespace {

constexpr int buffer_max = 212992; // net.core.rmem_max and wmem_max of a stock kernel, where they cannot be read
constexpr int receive_minimum = 2304, send_minimum = 4608;
constexpr size_t device_name_max = 15; // IFNAMSIZ with its zero
constexpr int keep_idle_max = 32767, keep_interval_max = 32767, keep_count_max = 127, syn_count_max = 127;
constexpr char congestion[] = "reno"; // what lwIP does

/* Linux's numbers for the states of lwIP. */
uint8_t linux_state(const tcp_pcb *pcb) {
    constexpr uint8_t close = 7, listen = 10;
    if (pcb == nullptr) return close;
    switch (pcb->state) {
    case LISTEN:
        return listen;
    case SYN_SENT:
        return 2;
    case SYN_RCVD:
        return 3;
    case ESTABLISHED:
        return 1;
    case FIN_WAIT_1:
        return 4;
    case FIN_WAIT_2:
        return 5;
    case CLOSE_WAIT:
        return 8;
    case CLOSING:
        return 11;
    case LAST_ACK:
        return 9;
    case TIME_WAIT:
        return 6;
    default:
        return close;
    }
}

tcp_info information(const tcp_pcb *pcb, State state) {
    tcp_info info{};
    info.tcpi_state = state == State::listening ? 10 : linux_state(pcb);
    if (pcb == nullptr) return info;
    constexpr uint32_t slow_tick_us = 2 * TCP_TMR_INTERVAL * 1000;
    info.tcpi_options = TCPI_OPT_WSCALE | ((pcb->flags & TF_SACK) ? TCPI_OPT_SACK : 0);
    info.tcpi_snd_wscale = pcb->snd_scale & 15;
    info.tcpi_rcv_wscale = pcb->rcv_scale & 15;
    info.tcpi_rto = static_cast<uint32_t>(pcb->rto) * slow_tick_us;
    info.tcpi_rtt = static_cast<uint32_t>(pcb->sa >> 3) * slow_tick_us;
    info.tcpi_rttvar = static_cast<uint32_t>(pcb->sv >> 2) * slow_tick_us;
    info.tcpi_retransmits = pcb->nrtx;
    info.tcpi_snd_mss = info.tcpi_rcv_mss = info.tcpi_advmss = pcb->mss;
    info.tcpi_pmtu = pcb->mss + (IP_IS_V6(&pcb->remote_ip) ? 60u : 40u);
    info.tcpi_snd_ssthresh = pcb->ssthresh / std::max<uint32_t>(pcb->mss, 1);
    info.tcpi_snd_cwnd = pcb->cwnd / std::max<uint32_t>(pcb->mss, 1);
    info.tcpi_unacked = (pcb->snd_nxt - pcb->lastack + pcb->mss - 1) / std::max<uint32_t>(pcb->mss, 1);
    info.tcpi_rcv_space = pcb->rcv_wnd;
    info.tcpi_notsent_bytes = pcb->snd_lbb - pcb->snd_nxt;
    info.tcpi_snd_wnd = pcb->snd_wnd;
    return info;
}

/* An option that is an int, kept in a field. */
struct IntOption {
    int level, name;
    int Options::*field;
    int minimum, maximum; // EINVAL outside
};
constexpr IntOption int_options[] = {
    {SOL_SOCKET, SO_PRIORITY, &Options::priority, 0, 6},
    {SOL_SOCKET, SO_MARK, &Options::mark, INT32_MIN, INT32_MAX},
    {SOL_SOCKET, SO_BUSY_POLL, &Options::busy_poll, 0, INT32_MAX},
    {SOL_SOCKET, SO_INCOMING_CPU, &Options::incoming_cpu, INT32_MIN, INT32_MAX},
    {SOL_SOCKET, SO_RCVLOWAT, &Options::receive_lowat, INT32_MIN, INT32_MAX},
    {IPPROTO_TCP, TCP_KEEPIDLE, &Options::keep_idle, 1, keep_idle_max},
    {IPPROTO_TCP, TCP_KEEPINTVL, &Options::keep_interval, 1, keep_interval_max},
    {IPPROTO_TCP, TCP_KEEPCNT, &Options::keep_count, 1, keep_count_max},
    {IPPROTO_TCP, TCP_SYNCNT, &Options::syn_count, 1, syn_count_max},
    {IPPROTO_TCP, TCP_DEFER_ACCEPT, &Options::defer_accept, INT32_MIN, INT32_MAX},
    {IPPROTO_TCP, TCP_USER_TIMEOUT, &Options::user_timeout, 0, INT32_MAX},
    {IPPROTO_TCP, TCP_LINGER2, &Options::linger2, INT32_MIN, INT32_MAX},
    {IPPROTO_TCP, TCP_NOTSENT_LOWAT, &Options::not_sent_lowat, INT32_MIN, INT32_MAX},
    {IPPROTO_TCP, TCP_WINDOW_CLAMP, &Options::window_clamp, 0, INT32_MAX},
    {IPPROTO_IP, IP_MTU_DISCOVER, &Options::mtu_discover, 0, 5},
    {IPPROTO_IPV6, IPV6_MTU_DISCOVER, &Options::mtu_discover6, 0, 5},
};

struct BoolOption {
    int level, name;
    bool Options::*field;
};
constexpr BoolOption bool_options[] = {
    {SOL_SOCKET, SO_REUSEADDR, &Options::reuse_address}, {SOL_SOCKET, SO_REUSEPORT, &Options::reuse_port},
    {SOL_SOCKET, SO_KEEPALIVE, &Options::keep_alive},    {SOL_SOCKET, SO_BROADCAST, &Options::broadcast},
    {SOL_SOCKET, SO_DONTROUTE, &Options::dont_route},    {SOL_SOCKET, SO_OOBINLINE, &Options::oob_inline},
    {SOL_SOCKET, SO_TIMESTAMP, &Options::timestamp},     {SOL_SOCKET, SO_TIMESTAMPNS, &Options::timestamp_ns},
    {IPPROTO_TCP, TCP_NODELAY, &Options::no_delay},      {IPPROTO_IP, IP_FREEBIND, &Options::freebind},
    {IPPROTO_IP, IP_TRANSPARENT, &Options::transparent},
};

} // namespace

std::optional<int> set_plain_option(Options &options, int level, int name, int number) {
    for (const BoolOption &option : bool_options)
        if (option.level == level && option.name == name) {
            options.*option.field = number != 0;
            return 0;
        }
    for (const IntOption &option : int_options)
        if (option.level == level && option.name == name) {
            if (number < option.minimum || number > option.maximum)
                return level == SOL_SOCKET && name == SO_PRIORITY ? EPERM : EINVAL;
            options.*option.field = number;
            return 0;
        }
    return std::nullopt;
}

std::optional<int> get_plain_option(const Options &options, int level, int name) {
    for (const BoolOption &option : bool_options)
        if (option.level == level && option.name == name) return options.*option.field;
    for (const IntOption &option : int_options)
        if (option.level == level && option.name == name) return options.*option.field;
    return std::nullopt;
}

namespace {

bool is_v6_only_level(int level, uint16_t family) { return level == IPPROTO_IPV6 && family == AF_INET; }

int kernel_limit(const char *path) {
    int limit = buffer_max;
    if (FILE *file = std::fopen(path, "re")) {
        if (std::fscanf(file, "%d", &limit) != 1 || limit <= 0) limit = buffer_max;
        std::fclose(file);
    }
    return limit;
}

/* Below zero is, for the kernel, a large number. */
int buffer_of(int wanted, int limit, int minimum) {
    auto value = std::min(static_cast<uint32_t>(wanted), static_cast<uint32_t>(limit));
    return static_cast<int>(std::max<int64_t>(int64_t{value} * 2, minimum));
}

} // namespace

int reply_bytes(Reply &reply, const void *bytes, size_t size, uint32_t capacity) {
    reply.length = static_cast<uint32_t>(std::min<size_t>(size, capacity));
    std::memcpy(reply.data, bytes, reply.length);
    return 0;
}

int reply_int(Reply &reply, int value, uint32_t capacity) { return reply_bytes(reply, &value, sizeof value, capacity); }

void set_receive_buffer(Options &options, int wanted) {
    static const int limit = kernel_limit("/proc/sys/net/core/rmem_max");
    options.receive_buffer = buffer_of(wanted, limit, receive_minimum);
    options.receive_buffer_set = true;
}

void set_send_buffer(Options &options, int wanted) {
    static const int limit = kernel_limit("/proc/sys/net/core/wmem_max");
    options.send_buffer = buffer_of(wanted, limit, send_minimum);
    options.send_buffer_set = true;
}

std::optional<int> set_common_option(Options &options, const Server &server, int level, int name, const uint8_t *value,
                                     uint32_t length) {
    if (level != SOL_SOCKET) return std::nullopt;
    if (name == SO_LINGER) {
        linger wanted;
        if (length < sizeof wanted) return EINVAL;
        std::memcpy(&wanted, value, sizeof wanted);
        options.linger = wanted.l_onoff != 0;
        if (options.linger) options.linger_seconds = std::max(wanted.l_linger, 0);
        return 0;
    }
    if (name == SO_BINDTODEVICE) {
        const auto *text = reinterpret_cast<const char *>(value);
        std::string device(text, strnlen(text, std::min<size_t>(length, device_name_max)));
        if (!device.empty() && server.network_named(device) == 0) return ENODEV;
        options.device = device;
        return 0;
    }
    return std::nullopt;
}

std::optional<int> get_common_option(const Options &options, int level, int name, uint32_t capacity, Reply &reply) {
    if (level != SOL_SOCKET) return std::nullopt;
    if (name == SO_LINGER) {
        linger value{options.linger, options.linger_seconds};
        return reply_bytes(reply, &value, sizeof value, capacity);
    }
    if (name == SO_BINDTODEVICE) {
        if (options.device.empty()) return 0;
        if (capacity <= device_name_max) return EINVAL; // Linux wants room for any name
        return reply_bytes(reply, options.device.c_str(), options.device.size() + 1, capacity);
    }
    return std::nullopt;
}

int Socket::set_option(int level, int name, const uint8_t *value, uint32_t length) {
    if (is_v6_only_level(level, family) ||
        (level != SOL_SOCKET && level != IPPROTO_TCP && level != IPPROTO_IP && level != IPPROTO_IPV6))
        return ENOPROTOOPT;

    // -- those that are not ints --
    if (std::optional<int> result = set_common_option(options, server, level, name, value, length)) return *result;
    if (level == IPPROTO_TCP && name == TCP_CONGESTION) {
        std::string wanted(reinterpret_cast<const char *>(value), strnlen(reinterpret_cast<const char *>(value), length));
        return wanted == congestion ? 0 : ENOENT;
    }
    if (level == IPPROTO_IP && name == IP_OPTIONS) return length == 0 ? 0 : EOPNOTSUPP;
    if (level == IPPROTO_TCP && name == TCP_ULP) return ENOENT;
    if (level == SOL_SOCKET && name == SO_ZEROCOPY) return EOPNOTSUPP;
    if (level == SOL_SOCKET && (name == SO_ATTACH_FILTER || name == SO_ATTACH_BPF || name == SO_PEEK_OFF)) return EOPNOTSUPP;

    int number = 0;
    if (length >= sizeof number)
        std::memcpy(&number, value, sizeof number);
    else if (length > 0 && (level == IPPROTO_IP))
        number = value[0];
    else
        return EINVAL;

    if (std::optional<int> result = set_plain_option(options, level, name, number)) {
        if (level == SOL_SOCKET && binding.held()) {
            binding.reuse_address = options.reuse_address;
            binding.reuse_port = options.reuse_port;
        }
        apply_options();
        return *result;
    }
    switch (level) {
    case SOL_SOCKET:
        switch (name) {
        case SO_RCVBUF:
            set_receive_buffer(options, number);
            apply_options();
            return 0;
        case SO_SNDBUF:
            set_send_buffer(options, number);
            apply_options();
            return 0;
        case SO_RCVBUFFORCE: // CAP_NET_ADMIN
        case SO_SNDBUFFORCE:
            return EPERM;
        case SO_DEBUG:
        case SO_NO_CHECK:
        case SO_RXQ_OVFL:
        case SO_TIMESTAMPING:
        case SO_MAX_PACING_RATE:
        case SO_INCOMING_NAPI_ID:
        case SO_SELECT_ERR_QUEUE:
        case SO_PREFER_BUSY_POLL:
            return 0;
        case SO_TYPE:
        case SO_DOMAIN:
        case SO_PROTOCOL:
        case SO_ERROR:
            return ENOPROTOOPT;
        default:
            return ENOPROTOOPT;
        }
    case IPPROTO_TCP:
        switch (name) {
        case TCP_MAXSEG:
            if (number != 0 && (number < 88 || number > 32767)) return EINVAL;
            options.max_segment = number;
            return 0;
        case TCP_CORK: // hints: the service merges writes anyway
        case TCP_QUICKACK:
        case TCP_THIN_LINEAR_TIMEOUTS:
        case TCP_THIN_DUPACK:
        case TCP_SAVE_SYN:
        case TCP_TIMESTAMP:
        case TCP_FASTOPEN_CONNECT:
        case TCP_FASTOPEN_NO_COOKIE:
        case TCP_INQ:
        case TCP_TX_DELAY:
            return 0;
        default:
            return ENOPROTOOPT;
        }
    case IPPROTO_IP:
        switch (name) {
        case IP_TOS:
            options.tos = number & 0xff;
            apply_options();
            return 0;
        case IP_TTL:
            if (number != -1 && (number < 1 || number > 255)) return EINVAL;
            options.ttl = number;
            apply_options();
            return 0;
        case IP_RECVERR:
        case IP_RECVTOS:
        case IP_RECVTTL:
        case IP_PKTINFO:
        case IP_BIND_ADDRESS_NO_PORT:
        case IP_MULTICAST_TTL:
        case IP_MULTICAST_LOOP:
            return 0;
        default:
            return ENOPROTOOPT;
        }
    default:
        switch (name) {
        case IPV6_V6ONLY:
            if (binding.held() || state != State::fresh) return EINVAL;
            options.v6_only = number != 0;
            return 0;
        case IPV6_TCLASS:
            if (number < -1 || number > 255) return EINVAL;
            options.traffic_class = std::max(number, 0);
            apply_options();
            return 0;
        case IPV6_UNICAST_HOPS:
            if (number < -1 || number > 255) return EINVAL;
            options.hop_limit = number;
            apply_options();
            return 0;
        case IPV6_RECVPKTINFO:
        case IPV6_RECVERR:
        case IPV6_RECVTCLASS:
        case IPV6_RECVHOPLIMIT:
        case IPV6_ADDR_PREFERENCES:
        case IPV6_AUTOFLOWLABEL:
        case IPV6_MULTICAST_HOPS:
        case IPV6_MULTICAST_LOOP:
            return 0;
        default:
            return ENOPROTOOPT;
        }
    }
}

int Socket::get_option(int level, int name, uint32_t capacity, Reply &reply) const {
    if (is_v6_only_level(level, family) ||
        (level != SOL_SOCKET && level != IPPROTO_TCP && level != IPPROTO_IP && level != IPPROTO_IPV6))
        return level == IPPROTO_IPV6 ? EOPNOTSUPP : ENOPROTOOPT;
    capacity = std::min<uint32_t>(capacity, NETCON_RPC_DATA_MAX);
    if (std::optional<int> number = get_plain_option(options, level, name)) return reply_int(reply, *number, capacity);
    if (std::optional<int> result = get_common_option(options, level, name, capacity, reply)) return *result;
    switch (level) {
    case SOL_SOCKET:
        switch (name) {
        case SO_RCVBUF:
            return reply_int(reply, options.receive_buffer, capacity);
        case SO_SNDBUF:
            return reply_int(reply, options.send_buffer, capacity);
        case SO_TYPE:
            return reply_int(reply, type, capacity);
        case SO_DOMAIN:
            return reply_int(reply, family, capacity);
        case SO_PROTOCOL:
            return reply_int(reply, protocol, capacity);
        case SO_ACCEPTCONN:
            return reply_int(reply, state == State::listening, capacity);
        case SO_ERROR:
        case SO_DEBUG:
        case SO_NO_CHECK:
        case SO_RXQ_OVFL:
        case SO_TIMESTAMPING:
        case SO_ZEROCOPY:
        case SO_PREFER_BUSY_POLL:
        case SO_INCOMING_NAPI_ID:
            return reply_int(reply, 0, capacity);
        case SO_MAX_PACING_RATE:
            return reply_int(reply, -1, capacity);
        case SO_PEERCRED: {
            struct {
                int32_t pid;
                uint32_t uid, gid;
            } nobody{0, UINT32_MAX, UINT32_MAX}; // as of any TCP socket
            return reply_bytes(reply, &nobody, sizeof nobody, capacity);
        }
        case SO_COOKIE:
            return reply_bytes(reply, &id, sizeof id, capacity);
        default:
            return ENOPROTOOPT;
        }
    case IPPROTO_TCP:
        switch (name) {
        case TCP_MAXSEG: {
            int mss = tcp.pcb() != nullptr ? tcp.pcb()->mss : 536;
            if (options.max_segment != 0 && tcp.pcb() == nullptr) mss = options.max_segment;
            return reply_int(reply, mss, capacity);
        }
        case TCP_INFO: {
            tcp_info info = information(tcp.pcb(), state);
            return reply_bytes(reply, &info, sizeof info, capacity);
        }
        case TCP_CONGESTION: {
            char padded[16] = {}; // TCP_CA_NAME_MAX
            std::memcpy(padded, congestion, sizeof congestion);
            return reply_bytes(reply, padded, sizeof padded, capacity);
        }
        case TCP_ULP:
            return reply_bytes(reply, "", 0, capacity);
        case TCP_QUICKACK:
        case TCP_CORK:
        case TCP_THIN_LINEAR_TIMEOUTS:
        case TCP_THIN_DUPACK:
        case TCP_SAVE_SYN:
        case TCP_FASTOPEN_CONNECT:
        case TCP_FASTOPEN_NO_COOKIE:
        case TCP_INQ:
        case TCP_TX_DELAY:
        case TCP_TIMESTAMP:
            return reply_int(reply, 0, capacity);
        default:
            return ENOPROTOOPT;
        }
    case IPPROTO_IP:
        switch (name) {
        case IP_TOS:
            return reply_int(reply, options.tos, capacity);
        case IP_TTL:
        case IP_MULTICAST_TTL:
            return reply_int(reply, options.ttl > 0 ? options.ttl : name == IP_TTL ? 64 : 1, capacity);
        case IP_OPTIONS:
            return 0;
        case IP_MTU:
            return tcp.pcb() == nullptr ? ENOTCONN : reply_int(reply, tcp.stack()->mtu(), capacity);
        case IP_RECVERR:
        case IP_RECVTOS:
        case IP_RECVTTL:
        case IP_PKTINFO:
        case IP_BIND_ADDRESS_NO_PORT:
            return reply_int(reply, 0, capacity);
        default:
            return ENOPROTOOPT;
        }
    default:
        switch (name) {
        case IPV6_V6ONLY:
            return reply_int(reply, options.v6_only, capacity);
        case IPV6_TCLASS:
            return reply_int(reply, options.traffic_class, capacity);
        case IPV6_UNICAST_HOPS:
            return reply_int(reply, options.hop_limit > 0 ? options.hop_limit : 64, capacity);
        case IPV6_MTU:
            return tcp.pcb() == nullptr ? ENOTCONN : reply_int(reply, tcp.stack()->mtu(), capacity);
        case IPV6_RECVPKTINFO:
        case IPV6_RECVERR:
        case IPV6_RECVTCLASS:
        case IPV6_RECVHOPLIMIT:
            return reply_int(reply, 0, capacity);
        default:
            return ENOPROTOOPT;
        }
    }
}

int Socket::control(uint32_t request, const uint8_t *data, uint32_t length, Reply &reply) const {
    switch (request) {
    case SIOCOUTQ:
    case SIOCOUTQNSD: {
        if (state == State::listening) return EINVAL;
        size_t waiting = 0;
        if (state == State::connected) {
            size_t in_pair = queued(pair.get());
            waiting = in_pair - std::min<size_t>(in_pair, stale_);
            const tcp_pcb *pcb = tcp.pcb();
            size_t in_flight = request == SIOCOUTQNSD && pcb != nullptr ? pcb->snd_nxt - pcb->lastack : 0;
            waiting += tcp.tx_held() - std::min(tcp.tx_held(), in_flight);
        }
        return reply_int(reply, static_cast<int>(waiting), sizeof(int));
    }
    case SIOCATMARK:
        return reply_int(reply, 0, sizeof(int)); // urgent data is in line
    default:
        return server.interface_control(request, data, length, reply);
    }
}

} // namespace netcon::server
