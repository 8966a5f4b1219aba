/* datagram_options.cpp: getsockopt, setsockopt and ioctl of datagram sockets, groups among them, with the answers and errors of
 * Linux. */
#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/icmp.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "datagram.hpp"
#include "server.hpp"
#include "tcp_end.hpp"

namespace netcon::server {

namespace {

constexpr int smallest_queue = 66560; // S must take the longest datagram
constexpr int level_raw = 255, icmp6_filter = 1;
constexpr size_t memberships_max = 20; // net.ipv4.igmp_max_memberships

template <typename T> bool take(T &out, const uint8_t *value, uint32_t length) {
    if (length < sizeof out) return false;
    std::memcpy(&out, value, sizeof out);
    return true;
}

/* The group of a group_req; nullopt: the family is wrong. */
std::optional<Address> address_in(const sockaddr_storage &storage) {
    if (storage.ss_family == AF_INET) {
        sockaddr_in in;
        std::memcpy(&in, &storage, sizeof in);
        return Address::v4(reinterpret_cast<const uint8_t *>(&in.sin_addr), 0);
    }
    if (storage.ss_family == AF_INET6) {
        sockaddr_in6 in;
        std::memcpy(&in, &storage, sizeof in);
        return Address::v6(in.sin6_addr.s6_addr, 0);
    }
    return std::nullopt;
}

} // namespace

/* ---- groups ---- */

int DatagramSocket::membership(bool join, const Address &group, uint64_t on_network) {
    if (!group.is_multicast()) return EINVAL;
    uint64_t on = on_network != 0 ? on_network : narrowed(0);
    std::shared_ptr<Stack> stack;
    for (auto &[id, candidate] : owner.server.networks())
        if (owner.server.sets.covers(on, id) && !stack && candidate->running() && candidate->source_for(to_lwip(group)))
            stack = candidate;
    if (!stack) return ENODEV;
    on = owner.server.network_of(stack.get());
    auto found = std::find_if(memberships_.begin(), memberships_.end(),
                              [&](const Membership &each) { return each.network == on && each.group.same_ip(group); });
    if (join == (found != memberships_.end())) return join ? EADDRINUSE : EADDRNOTAVAIL;
    ip_addr_t ip = to_lwip(group);
    err_t error = ERR_OK;
    if (join) {
        if (memberships_.size() == memberships_max) return ENOBUFS;
        if (!owner.group_is_used(on, group, nullptr) && !stack->enter([&] { error = stack->core().join_group(&ip); }))
            return ENETDOWN;
        if (error != ERR_OK) return ENOBUFS;
        memberships_.push_back({on, group});
        owner.groups_changed();
        return 0;
    }
    memberships_.erase(found);
    if (!owner.group_is_used(on, group, nullptr)) stack->enter([&] { stack->core().leave_group(&ip); });
    owner.groups_changed();
    return 0;
}

void DatagramSocket::leave_all() {
    for (const Membership &each : std::exchange(memberships_, {})) {
        std::shared_ptr<Stack> stack = owner.server.stack_of(each.network);
        ip_addr_t ip = to_lwip(each.group);
        if (stack && !owner.group_is_used(each.network, each.group, nullptr)) stack->enter([&] { stack->core().leave_group(&ip); });
        owner.groups_changed();
    }
}

/* ip_mreqn is ip_mreq and an index behind it; in_addr alone does for IP_MULTICAST_IF. */
static int interface_in_mreq(const Server &server, const ip_mreqn &request, uint64_t &network) {
    network = 0;
    if (request.imr_ifindex != 0) {
        network = server.network_of_interface(static_cast<uint32_t>(request.imr_ifindex));
        return network == 0 ? ENODEV : 0;
    }
    if (request.imr_address.s_addr == 0) return 0;
    Address own = Address::v4(reinterpret_cast<const uint8_t *>(&request.imr_address.s_addr), 0);
    std::shared_ptr<Stack> stack = own.is_loopback() ? nullptr : server.stack_with(0, own); // lo carries no groups
    if (!stack) return ENODEV;
    network = server.network_of(stack.get());
    return 0;
}

int DatagramSocket::group_option(int level, int name, const uint8_t *value, uint32_t length, bool &known) {
    known = true;
    const Server &server = owner.server;
    uint64_t on = 0;
    if (level == IPPROTO_IP && (name == IP_ADD_MEMBERSHIP || name == IP_DROP_MEMBERSHIP)) {
        ip_mreqn request{};
        if (length < sizeof(ip_mreq)) return EINVAL;
        std::memcpy(&request, value, std::min<size_t>(length, sizeof request));
        if (int error = interface_in_mreq(server, request, on)) return error;
        return membership(name == IP_ADD_MEMBERSHIP, Address::v4(reinterpret_cast<const uint8_t *>(&request.imr_multiaddr), 0), on);
    }
    if (level == IPPROTO_IPV6 && (name == IPV6_JOIN_GROUP || name == IPV6_LEAVE_GROUP)) {
        ipv6_mreq request;
        if (!take(request, value, length)) return EINVAL;
        if (request.ipv6mr_interface != 0 && (on = server.network_of_interface(request.ipv6mr_interface)) == 0) return ENODEV;
        Address group = Address::v6(request.ipv6mr_multiaddr.s6_addr, 0);
        return group.is_v4() ? EINVAL : membership(name == IPV6_JOIN_GROUP, group, on);
    }
    if ((level == IPPROTO_IP || level == IPPROTO_IPV6) && (name == MCAST_JOIN_GROUP || name == MCAST_LEAVE_GROUP)) {
        group_req request;
        if (!take(request, value, length)) return EINVAL;
        std::optional<Address> group = address_in(request.gr_group);
        if (!group || group->is_v4() != (level == IPPROTO_IP)) return EINVAL;
        if (request.gr_interface != 0 && (on = server.network_of_interface(request.gr_interface)) == 0) return ENODEV;
        return membership(name == MCAST_JOIN_GROUP, *group, on);
    }
    if ((level == IPPROTO_IP && name == IP_MULTICAST_IF) || (level == IPPROTO_IPV6 && name == IPV6_MULTICAST_IF))
        return multicast_interface(level, value, length);
    known = false;
    return 0;
}

int DatagramSocket::multicast_interface(int level, const uint8_t *value, uint32_t length) {
    if (level == IPPROTO_IPV6) {
        int index;
        if (!take(index, value, length)) return EINVAL;
        uint64_t on = index == 0 ? 0 : owner.server.network_of_interface(static_cast<uint32_t>(index));
        if (index != 0 && on == 0) return ENODEV;
        datagram.multicast_network6 = on;
        return 0;
    }
    ip_mreqn request{};
    if (length < sizeof(in_addr)) return EINVAL;
    if (length < sizeof(ip_mreq))
        std::memcpy(&request.imr_address, value, sizeof(in_addr));
    else
        std::memcpy(&request, value, std::min<size_t>(length, sizeof request));
    uint64_t on = 0;
    if (int error = interface_in_mreq(owner.server, request, on)) return error == ENODEV ? EADDRNOTAVAIL : error;
    datagram.multicast_network = on;
    datagram.multicast_source = Address::v4(reinterpret_cast<const uint8_t *>(&request.imr_address), 0);
    return 0;
}

/* ---- options ---- */

int DatagramSocket::set_option(int level, int name, const uint8_t *value, uint32_t length, int program) {
    int before = mode();
    if (level == IPPROTO_IPV6 && family == AF_INET) return ENOPROTOOPT;
    bool known = false;
    if (int result = group_option(level, name, value, length, known); known) return result;
    if (std::optional<int> result = set_common_option(options, owner.server, level, name, value, length)) return *result;
    if (level == level_raw && name == ICMP_FILTER && kind == Kind::raw && family == AF_INET)
        return take(datagram.icmp_filter, value, length) ? 0 : EINVAL;
    if (level == IPPROTO_ICMPV6 && name == icmp6_filter && kind == Kind::raw && family == AF_INET6) {
        if (length > sizeof datagram.icmp6_filter) length = sizeof datagram.icmp6_filter;
        std::memcpy(datagram.icmp6_filter, value, length);
        return 0;
    }
    if (level == SOL_SOCKET && (name == SO_ATTACH_FILTER || name == SO_ATTACH_BPF || name == SO_PEEK_OFF)) return EOPNOTSUPP;
    if (level == IPPROTO_TCP || level == IPPROTO_UDP) return ENOPROTOOPT; // UDP_SEGMENT, UDP_GRO: QUIC programs do without
    if (level != SOL_SOCKET && level != IPPROTO_IP && level != IPPROTO_IPV6) return ENOPROTOOPT;

    int number = 0;
    if (length >= sizeof number)
        std::memcpy(&number, value, sizeof number);
    else if (length > 0 && level == IPPROTO_IP)
        number = value[0];
    else if (level != IPPROTO_IP) // where nothing means 0
        return EINVAL;

    if (std::optional<int> result = set_plain_option(options, level, name, number, false)) {
        if (binding.held()) {
            binding.reuse_address = options.reuse_address;
            binding.reuse_port = options.reuse_port;
        }
        if (connected && mode() != before) change_mode(before, program);
        return *result;
    }
    switch (level) {
    case SOL_SOCKET:
        switch (name) {
        case SO_RCVBUF: {
            set_receive_buffer(options, number);
            int size = std::max(options.receive_buffer / 2, smallest_queue); // what waits for the program is in S's send queue
            setsockopt(pair.get(), SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
            return 0;
        }
        case SO_SNDBUF: {
            set_send_buffer(options, number);
            int size = std::max(options.send_buffer / 2, smallest_queue);
            setsockopt(program, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
            return 0;
        }
        default:
            return ENOPROTOOPT;
        }
    case IPPROTO_IP:
        switch (name) {
        case IP_TOS:
            options.tos = number & 0xff;
            return 0;
        case IP_TTL:
            if (number != -1 && (number < 1 || number > 255)) return EINVAL;
            options.ttl = number;
            return 0;
        case IP_MULTICAST_TTL:
            if (number < -1 || number > 255) return EINVAL;
            datagram.multicast_ttl = number == -1 ? 1 : number;
            return 0;
        case IP_MULTICAST_LOOP:
            datagram.multicast_loop = number != 0;
            return 0;
        case IP_PKTINFO:
            datagram.packet_info = number != 0;
            break;
        case IP_RECVTTL:
            datagram.recv_ttl = number != 0;
            break;
        case IP_RECVTOS:
            datagram.recv_tos = number != 0;
            break;
        case IP_RECVERR:
            datagram.receive_errors = number != 0;
            return 0;
        case IP_MULTICAST_ALL:
            return number == 0 || number == 1 ? 0 : EINVAL;
        case IP_OPTIONS:
            return length == 0 ? 0 : EOPNOTSUPP;
        default:
            return ENOPROTOOPT;
        }
        break;
    default:
        switch (name) {
        case IPV6_V6ONLY:
            if (binding.held()) return EINVAL;
            options.v6_only = number != 0;
            return 0;
        case IPV6_TCLASS:
            if (number < -1 || number > 255) return EINVAL;
            options.traffic_class = std::max(number, 0);
            return 0;
        case IPV6_UNICAST_HOPS:
            if (number < -1 || number > 255) return EINVAL;
            options.hop_limit = number;
            return 0;
        case IPV6_MULTICAST_HOPS:
            if (number < -1 || number > 255) return EINVAL;
            datagram.multicast_hops = number == -1 ? 1 : number;
            return 0;
        case IPV6_MULTICAST_LOOP:
            if (number != 0 && number != 1) return EINVAL;
            datagram.multicast_loop6 = number != 0;
            return 0;
        case IPV6_RECVPKTINFO:
            datagram.packet_info6 = number != 0;
            break;
        case IPV6_RECVHOPLIMIT:
            datagram.recv_hops = number != 0;
            break;
        case IPV6_RECVTCLASS:
            datagram.recv_class = number != 0;
            break;
        case IPV6_RECVERR:
            datagram.receive_errors6 = number != 0;
            return 0;
        case IPV6_CHECKSUM: // of an ICMPv6 socket it is always made
            return kind == Kind::raw ? EINVAL : ENOPROTOOPT;
        case IPV6_MTU:
            return number == 0 || number >= ipv6_mtu_min ? 0 : EINVAL;
        case IPV6_ADDR_PREFERENCES:
        case IPV6_MULTICAST_ALL:
            return 0;
        default:
            return ENOPROTOOPT;
        }
    }
    if (connected && mode() != before) change_mode(before, program);
    return 0;
}

int DatagramSocket::get_option(int level, int name, uint32_t capacity, int program, Reply &reply) {
    capacity = std::min<uint32_t>(capacity, NETCON_RPC_DATA_MAX);
    if (level == IPPROTO_IPV6 && family == AF_INET) return EOPNOTSUPP;
    if (level != SOL_SOCKET && level != IPPROTO_IP && level != IPPROTO_IPV6 && level != level_raw && level != IPPROTO_ICMPV6)
        return level == IPPROTO_TCP ? EOPNOTSUPP : ENOPROTOOPT;
    auto number = [&](int value) { return reply_bytes(reply, &value, sizeof value, capacity); };
    if (std::optional<int> plain = get_plain_option(options, level, name, false)) return number(*plain);
    if (std::optional<int> result = get_common_option(options, level, name, capacity, reply)) return *result;
    switch (level) {
    case SOL_SOCKET:
        switch (name) {
        case SO_ERROR:
            return number(take_error(program));
        case SO_RCVBUF:
            return number(options.receive_buffer);
        case SO_SNDBUF:
            return number(options.send_buffer);
        case SO_TYPE:
            return number(type);
        case SO_DOMAIN:
            return number(family);
        case SO_PROTOCOL:
            return number(protocol);
        case SO_COOKIE:
            return reply_bytes(reply, &id, sizeof id, capacity);
        case SO_PEERCRED: {
            struct {
                int32_t pid;
                uint32_t uid, gid;
            } nobody{0, UINT32_MAX, UINT32_MAX};
            return reply_bytes(reply, &nobody, sizeof nobody, capacity);
        }
        case SO_SNDLOWAT:
            return number(1);
        case SO_ACCEPTCONN:
        case SO_INCOMING_NAPI_ID:
            return number(0);
        default:
            return ENOPROTOOPT;
        }
    case IPPROTO_IP:
        switch (name) {
        case IP_TOS:
            return number(options.tos);
        case IP_TTL:
            return number(options.ttl > 0 ? options.ttl : 64);
        case IP_MULTICAST_TTL:
            return number(datagram.multicast_ttl);
        case IP_MULTICAST_LOOP:
            return number(datagram.multicast_loop);
        case IP_MULTICAST_IF: {
            in_addr shown{};
            std::memcpy(&shown, datagram.multicast_source.ip.data() + 12, sizeof shown);
            return reply_bytes(reply, &shown, sizeof shown, capacity);
        }
        case IP_MULTICAST_ALL:
            return number(1);
        case IP_PKTINFO:
            return number(datagram.packet_info);
        case IP_RECVTTL:
            return number(datagram.recv_ttl);
        case IP_RECVTOS:
            return number(datagram.recv_tos);
        case IP_RECVERR:
            return number(datagram.receive_errors);
        case IP_OPTIONS:
            return 0;
        case IP_MTU: {
            std::shared_ptr<Stack> stack = connected ? owner.server.stack_of(network) : nullptr;
            return stack ? number(stack->mtu()) : ENOTCONN;
        }
        default:
            return ENOPROTOOPT;
        }
    case IPPROTO_IPV6:
        switch (name) {
        case IPV6_V6ONLY:
            return number(options.v6_only || (bound && !binding.local.is_any() && !binding.local.is_v4()));
        case IPV6_TCLASS:
            return number(options.traffic_class);
        case IPV6_UNICAST_HOPS:
            return number(options.hop_limit >= 0 ? options.hop_limit : 64);
        case IPV6_MULTICAST_HOPS:
            return number(datagram.multicast_hops);
        case IPV6_MULTICAST_LOOP:
            return number(datagram.multicast_loop6);
        case IPV6_MULTICAST_IF:
            return number(static_cast<int>(owner.server.interface_of(datagram.multicast_network6)));
        case IPV6_RECVPKTINFO:
            return number(datagram.packet_info6);
        case IPV6_RECVHOPLIMIT:
            return number(datagram.recv_hops);
        case IPV6_RECVTCLASS:
            return number(datagram.recv_class);
        case IPV6_RECVERR:
            return number(datagram.receive_errors6);
        case IPV6_MULTICAST_ALL:
            return number(1);
        case IPV6_MTU: {
            std::shared_ptr<Stack> stack = connected ? owner.server.stack_of(network) : nullptr;
            return stack ? number(stack->mtu()) : ENOTCONN;
        }
        default:
            return ENOPROTOOPT;
        }
    default:
        if (level == level_raw && name == ICMP_FILTER && kind == Kind::raw && family == AF_INET)
            return reply_bytes(reply, &datagram.icmp_filter, sizeof datagram.icmp_filter, capacity);
        if (level == IPPROTO_ICMPV6 && name == icmp6_filter && kind == Kind::raw && family == AF_INET6)
            return reply_bytes(reply, datagram.icmp6_filter, sizeof datagram.icmp6_filter, capacity);
        return ENOPROTOOPT;
    }
}

int DatagramSocket::control(uint32_t request, const uint8_t *data, uint32_t length, Reply &reply) const {
    if (request == SIOCOUTQ) { // what is written is sent when it is read, and nothing is kept
        int waiting = static_cast<int>(queued(pair.get()));
        return reply_bytes(reply, &waiting, sizeof waiting, sizeof waiting);
    }
    return owner.server.interface_control(request, data, length, reply);
}

} // namespace netcon::server
