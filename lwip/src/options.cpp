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
constexpr int linger2_default = 60, linger2_max = 120; // net.ipv4.tcp_fin_timeout, TCP_FIN_TIMEOUT_MAX
constexpr size_t device_name_max = 15;                 // IFNAMSIZ with its zero
constexpr int keep_idle_max = 32767, keep_interval_max = 32767, keep_count_max = 127, syn_count_max = 127;
constexpr char congestion[] = "reno"; // what lwIP does

/* An option that is an int, kept in a field. */
struct IntOption {
    int level, name;
    int Options::*field;
    int minimum, maximum; // EINVAL outside
};
constexpr IntOption int_options[] = {
    {SOL_SOCKET, SO_PRIORITY, &Options::priority, 0, 6},
    {SOL_SOCKET, SO_BUSY_POLL, &Options::busy_poll, 0, INT32_MAX},
    {SOL_SOCKET, SO_INCOMING_CPU, &Options::incoming_cpu, INT32_MIN, INT32_MAX},
    {SOL_SOCKET, SO_RCVLOWAT, &Options::receive_lowat, INT32_MIN, INT32_MAX},
    {IPPROTO_TCP, TCP_KEEPIDLE, &Options::keep_idle, 1, keep_idle_max},
    {IPPROTO_TCP, TCP_KEEPINTVL, &Options::keep_interval, 1, keep_interval_max},
    {IPPROTO_TCP, TCP_KEEPCNT, &Options::keep_count, 1, keep_count_max},
    {IPPROTO_TCP, TCP_SYNCNT, &Options::syn_count, 1, syn_count_max},
    {IPPROTO_TCP, TCP_USER_TIMEOUT, &Options::user_timeout, 0, INT32_MAX},
    {IPPROTO_TCP, TCP_NOTSENT_LOWAT, &Options::not_sent_lowat, INT32_MIN, INT32_MAX},
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
};

/* An option that is only shown as it was set; `flag`: as 0 or 1. */
struct Kept {
    int level, name, initial, minimum, maximum;
    bool flag, stream; // `stream`: datagram sockets have it with its effect, or not at all
};
constexpr Kept kept_options[] = {
    {SOL_SOCKET, SO_NO_CHECK, 0, INT32_MIN, INT32_MAX, true, false},
    {SOL_SOCKET, SO_RXQ_OVFL, 0, INT32_MIN, INT32_MAX, true, false},
    {SOL_SOCKET, SO_SELECT_ERR_QUEUE, 0, INT32_MIN, INT32_MAX, true, false},
    {SOL_SOCKET, SO_MAX_PACING_RATE, -1, INT32_MIN, INT32_MAX, false, false},
    {SOL_SOCKET, SO_TIMESTAMPING, 0, 0, 0x7fff, false, false},
    {IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, 0, 0, 1, false, true},
    {IPPROTO_TCP, TCP_SAVE_SYN, 0, 0, 2, false, true},
    {IPPROTO_TCP, TCP_INQ, 0, 0, 1, false, true},
    {IPPROTO_IP, IP_PKTINFO, 0, INT32_MIN, INT32_MAX, true, true},
    {IPPROTO_IP, IP_RECVERR, 0, INT32_MIN, INT32_MAX, true, true},
    {IPPROTO_IP, IP_RECVTTL, 0, INT32_MIN, INT32_MAX, true, true},
    {IPPROTO_IP, IP_RECVTOS, 0, INT32_MIN, INT32_MAX, true, true},
    {IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 0, INT32_MIN, INT32_MAX, true, false},
    {IPPROTO_IP, IP_MULTICAST_LOOP, 1, INT32_MIN, INT32_MAX, true, true},
    {IPPROTO_IP, IP_MULTICAST_ALL, 1, 0, 1, false, true},
    {IPPROTO_IPV6, IPV6_RECVPKTINFO, 0, INT32_MIN, INT32_MAX, true, true},
    {IPPROTO_IPV6, IPV6_RECVERR, 0, INT32_MIN, INT32_MAX, true, true},
    {IPPROTO_IPV6, IPV6_RECVTCLASS, 0, INT32_MIN, INT32_MAX, true, true},
    {IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 0, INT32_MIN, INT32_MAX, true, true},
    {IPPROTO_IPV6, IPV6_MULTICAST_LOOP, 1, 0, 1, false, true},
    {IPPROTO_IPV6, IPV6_MULTICAST_ALL, 1, INT32_MIN, INT32_MAX, true, true},
    {IPPROTO_IPV6, IPV6_DONTFRAG, 0, INT32_MIN, INT32_MAX, true, false},
    {IPPROTO_IPV6, IPV6_FREEBIND, 0, INT32_MIN, INT32_MAX, true, false},
    {IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, 1, INT32_MIN, INT32_MAX, true, false},
};
static_assert(std::size(kept_options) == Options::kept_count);

/* What needs a capability that programs have nowhere here: refused, but for its initial value. */
struct Privileged {
    int level, name, refusal;
    bool zero_too;
};
constexpr Privileged privileged_options[] = {
    {SOL_SOCKET, SO_DEBUG, EACCES, false},           {SOL_SOCKET, SO_MARK, EPERM, true},
    {SOL_SOCKET, SO_PREFER_BUSY_POLL, EPERM, false}, {SOL_SOCKET, SO_RCVBUFFORCE, EPERM, true},
    {SOL_SOCKET, SO_SNDBUFFORCE, EPERM, true},       {IPPROTO_IP, IP_TRANSPARENT, EPERM, false},
    {IPPROTO_IPV6, IPV6_TRANSPARENT, EPERM, false},
};

} // namespace

std::array<int, Options::kept_count> Options::kept_at_first() {
    std::array<int, kept_count> values{};
    for (size_t i = 0; i < kept_count; i++)
        values[i] = kept_options[i].initial;
    return values;
}

std::optional<int> set_plain_option(Options &options, int level, int name, int number, bool stream) {
    for (const Privileged &option : privileged_options)
        if (option.level == level && option.name == name) return number != 0 || option.zero_too ? option.refusal : 0;
    for (size_t i = 0; i < std::size(kept_options); i++)
        if (const Kept &option = kept_options[i]; option.level == level && option.name == name && (stream || !option.stream)) {
            if (number < option.minimum || number > option.maximum) return EINVAL;
            options.kept[i] = option.flag ? number != 0 : number;
            return 0;
        }
    for (const BoolOption &option : bool_options)
        if (option.level == level && option.name == name) {
            options.*option.field = number != 0;
            if (level == SOL_SOCKET && (name == SO_TIMESTAMP || name == SO_TIMESTAMPNS)) { // one or the other, or none
                options.timestamp = number != 0 && name == SO_TIMESTAMP;
                options.timestamp_ns = number != 0 && name == SO_TIMESTAMPNS;
            }
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

std::optional<int> get_plain_option(const Options &options, int level, int name, bool stream) {
    for (const Privileged &option : privileged_options)
        if (option.level == level && option.name == name && name != SO_RCVBUFFORCE && name != SO_SNDBUFFORCE) return 0;
    for (size_t i = 0; i < std::size(kept_options); i++)
        if (const Kept &option = kept_options[i]; option.level == level && option.name == name && (stream || !option.stream))
            return options.kept[i];
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

/* The kernel counts repetitions of SYN|ACK, at 1, 3, 7 … seconds, then every two minutes. */
int defer_seconds(int wanted) {
    int seconds = 0;
    for (int retries = 0, timeout = 1; seconds < wanted && retries < 255; retries++) {
        seconds += timeout;
        timeout = std::min(timeout * 2, 120);
    }
    return seconds;
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
        if (length == 0) return EINVAL;
        std::string wanted(reinterpret_cast<const char *>(value), strnlen(reinterpret_cast<const char *>(value), length));
        return wanted == congestion ? 0 : ENOENT;
    }
    if (level == IPPROTO_TCP && name == TCP_ULP) return ENOPROTOOPT;
    if (level == IPPROTO_IP && name == IP_OPTIONS) return length == 0 ? 0 : EOPNOTSUPP;
    if (level == SOL_SOCKET && (name == SO_ATTACH_FILTER || name == SO_ATTACH_BPF || name == SO_PEEK_OFF)) return EOPNOTSUPP;

    int number = 0;
    if (length >= sizeof number)
        std::memcpy(&number, value, sizeof number);
    else if (length > 0 && level == IPPROTO_IP)
        number = value[0];
    else if (level != IPPROTO_IP) // where nothing means 0
        return EINVAL;

    if (std::optional<int> result = set_plain_option(options, level, name, number, true)) {
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
        default: // SO_ZEROCOPY among them: a kernel before 4.14
            return ENOPROTOOPT;
        }
    case IPPROTO_TCP:
        switch (name) {
        case TCP_MAXSEG:
            if (number != 0 && (number < 88 || number > 32767)) return EINVAL;
            options.max_segment = number;
            apply_options();
            return 0;
        case TCP_LINGER2:
            options.linger2 = number < 0 ? -1 : number == 0 ? linger2_default : std::min(number, linger2_max);
            return 0;
        case TCP_DEFER_ACCEPT:
            options.defer_accept = defer_seconds(number);
            return 0;
        case TCP_WINDOW_CLAMP:
            if (number == 0 && state != State::fresh && state != State::bound) return EINVAL;
            options.window_clamp = number == 0 ? 0 : std::max(number, receive_minimum / 2);
            apply_options();
            return 0;
        case TCP_CORK: // hints: the service merges writes anyway
        case TCP_QUICKACK:
            return 0;
        case TCP_THIN_DUPACK: // a kernel since 4.20 does nothing either
            return number == 0 || number == 1 ? 0 : EINVAL;
        case TCP_REPAIR: // CAP_NET_ADMIN
        case TCP_TIMESTAMP:
            return EPERM;
        // TCP_FASTOPEN and its kin, TCP_ULP, TCP_ZEROCOPY_RECEIVE: a kernel before 3.7
        default:
            return ENOPROTOOPT;
        }
    case IPPROTO_IP:
        switch (name) {
        case IP_TOS: // the two bits of ECN are TCP's own
            options.tos = number & 0xfc;
            apply_options();
            return 0;
        case IP_TTL:
            if (number != -1 && (number < 1 || number > 255)) return EINVAL;
            options.ttl = number;
            apply_options();
            return 0;
        case IP_MULTICAST_TTL: // not of a stream
        case IP_MULTICAST_IF:
            return EINVAL;
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
            options.traffic_class = std::max(number, 0) & 0xfc;
            apply_options();
            return 0;
        case IPV6_UNICAST_HOPS:
            if (number < -1 || number > 255) return EINVAL;
            options.hop_limit = number;
            apply_options();
            return 0;
        case IPV6_MTU: // what may be sent at most; 0: as large as the network takes
            return number == 0 || number >= ipv6_mtu_min ? 0 : EINVAL;
        case IPV6_ADDR_PREFERENCES:
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
    if (std::optional<int> number = get_plain_option(options, level, name, true)) return reply_int(reply, *number, capacity);
    if (std::optional<int> result = get_common_option(options, level, name, capacity, reply)) return *result;
    switch (level) {
    case SOL_SOCKET:
        switch (name) {
        case SO_RCVBUF: // grows with the window
            return reply_int(
                reply, options.receive_buffer_set ? options.receive_buffer : std::max(options.receive_buffer, tcp.receive_buffer()),
                capacity);
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
        case SO_INCOMING_NAPI_ID:
            return reply_int(reply, 0, capacity);
        case SO_SNDLOWAT:
            return reply_int(reply, 1, capacity);
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
            bool established = tcp.pcb() != nullptr && tcp.connected;
            int mss = established ? tcp.pcb()->mss : options.max_segment != 0 ? options.max_segment : 536;
            return reply_int(reply, mss, capacity);
        }
        case TCP_INFO:
            return reply_tcp_info(tcp, options, state == State::listening, reply, capacity);
        case TCP_CONGESTION: {
            char padded[16] = {}; // TCP_CA_NAME_MAX
            std::memcpy(padded, congestion, sizeof congestion);
            return reply_bytes(reply, padded, sizeof padded, capacity);
        }
        case TCP_LINGER2:
            return reply_int(reply, options.linger2, capacity);
        case TCP_DEFER_ACCEPT:
            return reply_int(reply, options.defer_accept, capacity);
        case TCP_WINDOW_CLAMP:
            return reply_int(reply, options.window_clamp, capacity);
        case TCP_QUICKACK:
            return reply_int(reply, 1, capacity);
        case TCP_CORK:
        case TCP_THIN_DUPACK:
        case TCP_REPAIR:
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
        case IP_MULTICAST_IF:
            return reply_int(reply, 0, capacity);
        case IP_MTU:
            return tcp.pcb() == nullptr ? ENOTCONN : reply_int(reply, tcp.stack()->mtu(), capacity);
        default:
            return ENOPROTOOPT;
        }
    default:
        switch (name) {
        case IPV6_V6ONLY:
            // A bound address that is not the wildcard makes the kernel say so.
            return reply_int(reply, options.v6_only || (explicitly_bound_ && !bound_to_.is_any() && !bound_to_.is_v4()), capacity);
        case IPV6_TCLASS:
            return reply_int(reply, options.traffic_class, capacity);
        case IPV6_UNICAST_HOPS:
            return reply_int(reply, options.hop_limit >= 0 ? options.hop_limit : 64, capacity);
        case IPV6_MTU:
            return tcp.pcb() == nullptr ? ENOTCONN : reply_int(reply, tcp.stack()->mtu(), capacity);
        case IPV6_MULTICAST_HOPS:
            return reply_int(reply, 1, capacity);
        case IPV6_MULTICAST_IF:
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
