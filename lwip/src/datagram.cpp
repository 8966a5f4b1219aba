/* datagram.cpp: what programs ask of a datagram socket, and what they send; see datagram.hpp. Options: datagram_options.cpp; what
 * arrives: datagrams.cpp. */
#include "datagram.hpp"

#include <linux/sockios.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "names.hpp"
#include "server.hpp"
#include "tcp_end.hpp"

namespace netcon::server {

namespace {

constexpr unsigned reads_per_turn = 64;
constexpr unsigned requeued_max = 8192;         // messages in P's queue when the mode changes
constexpr int smallest_send_buffer = 2 * 66560; // S must be able to send the longest datagram; the kernel doubles what is set
constexpr int name_attempts = 4;
constexpr uint8_t echo_request = 8, echo_request6 = 128;
constexpr size_t buffer_size = NETCON_RPC_SENDTO_MAX;

uint16_t ones_complement_sum(const uint8_t *data, size_t length) {
    uint32_t sum = 0;
    for (size_t i = 0; i + 1 < length; i += 2)
        sum += static_cast<uint32_t>(data[i]) << 8 | data[i + 1];
    if (length & 1) sum += static_cast<uint32_t>(data[length - 1]) << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<uint16_t>(~sum);
}

} // namespace

DatagramSocket::DatagramSocket(Datagrams &owner, Kind kind, const netcon_rpc_request &header, uint64_t network, uid_t uid)
    : owner(owner), kind(kind), family(header.family), type(header.type), protocol(header.protocol), uid(uid),
      local(Address::any(header.family)), remote(Address::any(header.family)), network(0), default_network_(network) {
    options.receive_buffer = options.send_buffer = 212992;
}

int DatagramSocket::take_pair(Descriptor service_end, uint64_t cookie) {
    int fd = service_end.get();
    refuse_rights(fd);
    int size = std::max(options.receive_buffer / 2, smallest_send_buffer / 2);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    netcon_name_service name{};
    name.tag = owner.server.tag();
    name.family = family;
    int error = EADDRINUSE;
    for (int i = 0; i < name_attempts && error == EADDRINUSE; i++) {
        name.serial = owner.server.next_serial();
        error = bind_name(fd, 'D', name);
    }
    if (error != 0) return error;
    serial = name.serial;
    id = cookie;
    pair = std::move(service_end);
    want_input(true);
    return reading_ ? 0 : ENFILE;
}

bool DatagramSocket::is_program_end(int fd) const {
    auto peer = peer_service_name(fd);
    return peer && peer->kind == 'D' && peer->fields.serial == serial && peer->fields.tag == owner.server.tag();
}

void DatagramSocket::want_input(bool want) {
    const netcon_reactor_api *reactor = owner.server.reactor;
    if (want == reading_ || !pair) return;
    // Not watched at all while it waits: EPOLLHUP cannot be masked.
    if (want)
        reading_ = reactor->watch(reactor->reactor, pair.get(), ended_ ? 0 : EPOLLIN | EPOLLRDHUP, on_pair, this) == 0;
    else
        reactor->unwatch(reactor->reactor, pair.get()), reading_ = false;
}

void DatagramSocket::on_pair(void *context, int, uint32_t events) { static_cast<DatagramSocket *>(context)->collect(events); }

/* ---- bind, connect ---- */

uint64_t DatagramSocket::narrowed(uint64_t on_network) const {
    if (!options.device.empty()) return owner.server.network_named(options.device);
    if (network != 0) return network;
    return on_network != 0 ? on_network : default_network_;
}

int DatagramSocket::policy_protocol() const { return kind == Kind::udp ? NETCON_POLICY_UDP : NETCON_POLICY_ICMP; }

int DatagramSocket::claim(const Address &at, uint64_t on_network) {
    binding.local = at;
    binding.network = on_network;
    binding.uid = uid;
    binding.v6_only = options.v6_only;
    binding.reuse_address = options.reuse_address;
    binding.reuse_port = options.reuse_port;
    if (kind != Kind::raw) { // raw sockets have no port
        PortTable &ports = kind == Kind::udp ? owner.udp_ports : owner.ping_ports;
        int error = ports.claim(binding);
        if (error == EADDRINUSE) { // not because of a socket that a program has closed before it asked
            owner.notice_closed(binding.local.port);
            error = ports.claim(binding);
        }
        if (error != 0) return error;
    }
    local = binding.local;
    network = on_network;
    owner.index(*this);
    return 0;
}

int DatagramSocket::bind(const netcon_address &wanted, uint64_t on_network, uint16_t flags) {
    if (bound || binding.held()) return EINVAL;
    if (wanted.family != family) return family == AF_INET6 && wanted.family == AF_INET ? EINVAL : EAFNOSUPPORT;
    Address asked = Address::from(wanted);
    if (family == AF_INET6 && asked.is_v4() && options.v6_only) return EINVAL;
    if (kind == Kind::raw) asked.port = 0;
    uint64_t on = narrowed(on_network);
    if (asked.scope != 0 && (asked.is_link_local() || asked.is_multicast()))
        if ((on = owner.server.network_of_interface(asked.scope)) == 0) return ENODEV;
    if (asked.is_link_local() && asked.scope == 0) return EINVAL;
    if (int error = owner.server.decide(NETCON_POLICY_BIND, policy_protocol(), asked, flags, on)) return error;
    if (!asked.is_any() && !asked.is_multicast() && !asked.is_broadcast()) {
        std::shared_ptr<Stack> stack = owner.server.stack_with(on, asked);
        if (!stack) { // the broadcast address of a subnet is one to bind to, too
            ip_addr_t ip = to_lwip(asked);
            for (auto &[network_id, candidate] : owner.server.networks())
                if (owner.server.sets.covers(on, network_id) && candidate->running() && candidate->core().is_broadcast(&ip))
                    stack = candidate;
            if (!stack || kind == Kind::ping)
                return owner.server.uncarried(NETCON_POLICY_BIND, policy_protocol(), asked, EADDRNOTAVAIL);
        }
        on = owner.server.network_of(stack.get());
    }
    if (int error = claim(asked, on)) return error;
    bound = true;
    return 0;
}

void DatagramSocket::disconnect() {
    connected = virtual_ = to_names_ = false;
    remote = Address::any(family);
    if (bound) {
        local = binding.local;
        network = binding.network;
        return;
    }
    owner.unindex(*this);
    binding.release();
    local = Address::any(family);
    network = 0;
}

int DatagramSocket::connect(const netcon_address &wanted, uint64_t on_network, uint16_t flags, int program) {
    int before = mode();
    if (wanted.family == AF_UNSPEC) {
        disconnect();
        change_mode(before, program);
        return 0;
    }
    if (wanted.family != family && !(family == AF_INET6 && wanted.family == AF_INET)) return EAFNOSUPPORT;
    if (family == AF_INET6 && wanted.family == AF_INET && options.v6_only) return EAFNOSUPPORT;
    Outgoing probe;
    probe.to = Address::from(wanted);
    if (kind != Kind::udp) probe.to.port = 0;
    if (probe.to.is_v4() && family == AF_INET6 && options.v6_only) return ENETUNREACH;
    if (probe.to.is_link_local() && probe.to.scope == 0) return EINVAL;
    if (probe.to.scope != 0 && (probe.to.is_link_local() || probe.to.is_multicast()))
        if ((probe.network = owner.server.network_of_interface(probe.to.scope)) == 0) return ENODEV;
    if (connected) { // the route, not the old connection, decides about the new one
        connected = to_names_ = false;
        local = bound ? binding.local : Address::any(family);
        network = bound ? binding.network : 0;
    }
    if (probe.network == 0) probe.network = narrowed(on_network);
    probe.flags = flags;
    std::shared_ptr<Stack> stack;
    if (int error = choose_stack(probe, stack)) return error;
    if (!binding.held() && kind != Kind::raw) {
        if (int error = claim(Address::any(family), 0)) return error;
    } else if (kind == Kind::raw) {
        owner.index(*this);
    }
    uint16_t port = local.port;
    virtual_ = (flags & NETCON_RPC_VIRTUAL) && probe.to.is_loopback();
    to_names_ = probe.to_names;
    if (local.is_any() || local.is_multicast()) local = probe.source;
    local.port = port;
    remote = probe.to;
    network = owner.server.network_of(stack.get());
    connected = true;
    change_mode(before, program);
    return 0;
}

/* ---- the mode ---- */

uint8_t DatagramSocket::ancillary(bool v4) const {
    bool in6 = family == AF_INET6;
    uint8_t flags = 0;
    if ((v4 && datagram.packet_info) || (in6 && datagram.packet_info6)) flags |= NETCON_DATAGRAM_LOCAL;
    if ((v4 && datagram.recv_ttl) || (in6 && datagram.recv_hops)) flags |= NETCON_DATAGRAM_TTL;
    if ((v4 && datagram.recv_tos) || (in6 && datagram.recv_class)) flags |= NETCON_DATAGRAM_TOS;
    if (options.timestamp) flags |= NETCON_DATAGRAM_STAMP;
    if (options.timestamp_ns) flags |= NETCON_DATAGRAM_STAMP | NETCON_DATAGRAM_STAMP_NS;
    return flags;
}

int DatagramSocket::mode() const {
    if (!connected) return NETCON_DATAGRAM_FRAMED;
    return ancillary(remote.is_v4()) == 0 ? NETCON_DATAGRAM_BARE : NETCON_DATAGRAM_FRAMED_CONNECTED;
}

netcon_datagram_header DatagramSocket::head(const Packet &packet) const {
    netcon_datagram_header header{};
    header.magic = NETCON_DATAGRAM_MAGIC;
    header.flags = NETCON_DATAGRAM_PEER | ancillary(packet.source.is_v4());
    header.ttl = packet.ttl;
    header.tos = packet.tos;
    header.port = packet.source.port;
    bool looped = packet.destination.is_loopback();
    header.interface = static_cast<uint16_t>(looped ? loopback_index : owner.server.interface_of(packet.network));
    std::memcpy(header.peer, packet.source.ip.data(), sizeof header.peer);
    std::memcpy(header.local, packet.destination.ip.data(), sizeof header.local);
    return header;
}

/* What is in P's queue is taken out, changed to the form of the new mode, and put back. Nudges are not put back: who asks for the
 * mode or the error knows by now. */
void DatagramSocket::change_mode(int before, int program) {
    std::vector<std::vector<uint8_t>> waiting;
    uint8_t *message = owner.buffer.get();
    for (unsigned i = 0; i < requeued_max; i++) {
        iovec part{message, buffer_size};
        ssize_t n = receive(program, &part, 1, 0, owner.server.closer);
        if (n < 0 || (n == 0 && before != NETCON_DATAGRAM_BARE)) break;
        waiting.emplace_back(message, message + n);
    }
    int after = mode();
    setsockopt(program, SOL_SOCKET, SO_PRIORITY, &after, sizeof after);
    constexpr size_t size = sizeof(netcon_datagram_header);
    for (std::vector<uint8_t> &each : waiting) {
        bool framed = before != NETCON_DATAGRAM_BARE, nudge = framed && each.size() == size && (each[1] & NETCON_DATAGRAM_ERROR);
        if (nudge || (!framed && each.empty() && nudged_)) {
            nudged_ = false;
            continue;
        }
        iovec parts[2] = {{nullptr, 0}, {each.data(), each.size()}};
        netcon_datagram_header header{};
        if (framed && after == NETCON_DATAGRAM_BARE) {
            parts[1] = {each.data() + size, each.size() - std::min(size, each.size())};
        } else if (!framed && after != NETCON_DATAGRAM_BARE) {
            header = head({network, remote, local, 64, 0, false, nullptr, 0});
            parts[0] = {&header, size};
        }
        put(parts, 2);
    }
    nudged_ = false;
}

bool DatagramSocket::put(iovec *parts, size_t count) {
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = count;
    if (sendmsg(pair.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return true;
    dropped++;
    owner.dropped++;
    return false;
}

void DatagramSocket::deliver(const Packet &packet) {
    iovec parts[packet_parts_max + 1];
    netcon_datagram_header header;
    size_t count = 0;
    if (mode() != NETCON_DATAGRAM_BARE) {
        header = head(packet);
        parts[count++] = {&header, sizeof header};
    }
    for (size_t i = 0; i < packet.count; i++)
        parts[count++] = packet.parts[i];
    owner.received += put(parts, count);
}

void DatagramSocket::fail(int error) {
    error_ = error;
    if (std::exchange(nudged_, true)) return;
    netcon_datagram_header header{};
    header.magic = NETCON_DATAGRAM_MAGIC;
    header.flags = NETCON_DATAGRAM_ERROR;
    iovec part{&header, mode() == NETCON_DATAGRAM_BARE ? 0 : sizeof header};
    nudged_ = put(&part, 1);
}

int DatagramSocket::take_error(int program) {
    int error = std::exchange(error_, 0);
    if (nudged_) change_mode(mode(), program);
    return error;
}

/* ---- send ---- */

void DatagramSocket::collect(uint32_t events) {
    uint8_t *message = owner.buffer.get();
    for (unsigned i = 0; i < reads_per_turn; i++) {
        iovec part{message, buffer_size};
        ssize_t n = receive(pair.get(), &part, 1, MSG_TRUNC, owner.server.closer);
        if (n == -ECONNRESET) continue; // said once: the program closed without reading all; what it wrote is still there
        if (n < 0 || (n == 0 && (events & (EPOLLRDHUP | EPOLLHUP)) && queued(pair.get()) == 0)) {
            if (events & EPOLLHUP) {
                owner.retire(*this);
            } else if (events & EPOLLRDHUP) { // it sends no more, and may still receive; only its close counts now
                ended_ = true;
                owner.server.reactor->rewatch(owner.server.reactor->reactor, pair.get(), 0);
            }
            return;
        }
        auto length = static_cast<size_t>(n);
        Outgoing out;
        int error = length > buffer_size ? EMSGSIZE : 0;
        if (mode() == NETCON_DATAGRAM_BARE) {
            out.to = remote;
            out.data = message;
            out.length = length;
        } else if (error == 0) {
            error = parse(message, length, out);
        }
        if (error != 0)
            owner.malformed++;
        else if (send(out) != 0)
            owner.unsendable++;
        if (!reading_) return;
    }
}

void DatagramSocket::collect_before_a_request() {
    pollfd ready{pair.get(), POLLIN | POLLRDHUP, 0};
    if (!reading_ || ended_ || poll(&ready, 1, 0) <= 0) return;
    collect(static_cast<uint32_t>(ready.revents) & (EPOLLIN | EPOLLRDHUP));
}

int DatagramSocket::parse(const uint8_t *message, size_t length, Outgoing &out) const {
    netcon_datagram_header header;
    if (length < sizeof header) return EINVAL;
    std::memcpy(&header, message, sizeof header);
    if (header.magic != NETCON_DATAGRAM_MAGIC) return EINVAL;
    if (header.flags & NETCON_DATAGRAM_PEER) {
        out.to = Address::v6(header.peer, kind == Kind::udp ? header.port : uint16_t{0}, header.interface);
    } else {
        if (!connected) return EDESTADDRREQ;
        out.to = remote;
    }
    if (header.flags & NETCON_DATAGRAM_LOCAL) out.source = Address::v6(header.local, 0);
    if (header.flags & NETCON_DATAGRAM_TTL) out.ttl = header.ttl;
    if (header.flags & NETCON_DATAGRAM_TOS) out.tos = header.tos;
    if (header.flags & NETCON_DATAGRAM_VIRTUAL) out.flags |= NETCON_RPC_VIRTUAL;
    const Server &server = owner.server;
    if (header.interface == loopback_index)
        out.network = server.network_named(loopback_name);
    else if (header.interface != 0)
        out.network = server.network_of_interface(header.interface);
    if (header.interface != 0 && out.network == 0) return ENODEV;
    out.data = const_cast<uint8_t *>(message) + sizeof header;
    out.length = length - sizeof header;
    return 0;
}

int DatagramSocket::send_to(const uint8_t *message, size_t length, uint64_t on_network, uint16_t flags, int program, Reply &reply) {
    if (int error = take_error(program)) return error;
    Outgoing out;
    out.flags = flags;
    int error = parse(message, length, out);
    if (out.network == 0 && network == 0 && options.device.empty()) out.network = on_network;
    if (error == 0) error = send(out);
    if (error == 0) reply.value = static_cast<int>(out.length);
    return error;
}

/* The stack that it goes out on; and the source, and an unspecified destination, are filled in. */
int DatagramSocket::choose_stack(Outgoing &out, std::shared_ptr<Stack> &stack) const {
    Server &server = owner.server;
    uint64_t on = out.network != 0 ? out.network : narrowed(0);
    bool v4 = out.to.is_v4();
    if (family == AF_INET6 && v4 && options.v6_only) return ENETUNREACH;
    if (family == AF_INET && !v4) return EAFNOSUPPORT;
    bool asked_virtual = virtual_ || (out.flags & NETCON_RPC_VIRTUAL);
    if (out.to.is_any()) { // this host, as Linux reads it
        if (!local.is_any() && !local.is_multicast() && !local.is_broadcast())
            out.to.ip = local.ip;
        else if (asked_virtual || server.loopback_is_virtual())
            out.to.ip = Address::loopback(v4).ip;
    }
    auto names_flags = static_cast<uint16_t>(out.flags | (asked_virtual ? unsigned{NETCON_RPC_VIRTUAL} : 0u));
    switch (connected && to_names_ && out.to == remote ? Server::NameService::ours
                                                       : server.name_service(policy_protocol(), out.to, names_flags)) {
    case Server::NameService::host:
        return NETCON_RPC_TO_HOST;
    case Server::NameService::unless_program:
        if (owner.has_receiver(out.to)) break;
        [[fallthrough]];
    case Server::NameService::ours:
        return choose_names(out, stack);
    case Server::NameService::no:
        break;
    }
    if (int error = server.decide(NETCON_POLICY_CONNECT, policy_protocol(), out.to,
                                  static_cast<uint16_t>(asked_virtual ? NETCON_RPC_VIRTUAL : 0), on))
        return error;
    bool chosen = !out.source.is_any() && !(out.source.ip == Address{}.ip);
    if (!chosen && !local.is_any() && !local.is_multicast() && !local.is_broadcast()) {
        if (local.is_v4() != v4) return v4 ? EINVAL : ENETUNREACH;
        ip_addr_t ip = to_lwip(local);
        stack = server.stack_with(on, local);
        if (stack) out.source = local, chosen = true;
        if (!stack && connected) return ENETUNREACH; // its network is gone
        (void)ip;
    } else if (chosen) {
        if (out.source.is_v4() != v4 || !(stack = server.stack_with(on, out.source))) return EINVAL;
    }
    bool group = out.to.is_multicast();
    if (group || out.to.is_broadcast()) {
        uint64_t preferred = v4 ? datagram.multicast_network : datagram.multicast_network6;
        if (group && out.network == 0 && preferred != 0) on = preferred;
        if (!stack || !server.sets.covers(on, server.network_of(stack.get()))) {
            stack = nullptr;
            for (auto &[id, candidate] : server.networks())
                if (server.sets.covers(on, id) && candidate->running() && candidate->source_for(to_lwip(out.to))) {
                    stack = candidate;
                    break;
                }
            if (!stack) return ENETUNREACH;
            chosen = chosen && stack->is_local(to_lwip(out.source));
        }
        if (!chosen) {
            std::optional<ip_addr_t> from = stack->source_for(to_lwip(out.to));
            if (!from) return ENETUNREACH;
            out.source = from_lwip(*from, 0);
        }
        if (!server.may_cross(*stack, options.device, out.source, out.to)) return ENETUNREACH;
        return out.to.is_broadcast() && !options.broadcast ? EACCES : 0;
    }
    Address from;
    std::shared_ptr<Stack> towards = server.stack_towards(stack ? server.network_of(stack.get()) : on, out.to, from);
    if (!towards)
        return stack || !options.device.empty() ? ENETUNREACH
                                                : server.uncarried(NETCON_POLICY_CONNECT, policy_protocol(), out.to, ENETUNREACH);
    stack = std::move(towards);
    if (out.to.is_any()) out.to.ip = from.ip;
    if (!chosen) out.source = from;
    if (!server.may_cross(*stack, options.device, out.source, out.to)) return v4 ? EINVAL : ENETUNREACH;
    ip_addr_t ip = to_lwip(out.to);
    return !options.broadcast && stack->core().is_broadcast(&ip) ? EACCES : 0;
}

/* A ping socket sends echo requests under its own identifier; a raw IPv4 socket what it likes. */
int DatagramSocket::prepare_icmp(Outgoing &out) const {
    if (kind != Kind::ping) return 0;
    uint8_t *message = out.data;
    bool v6 = family == AF_INET6;
    if (out.length < 8 || message[0] != (v6 ? echo_request6 : echo_request) || message[1] != 0) return EINVAL;
    if (out.to.is_v4() == v6) return EINVAL;
    message[4] = static_cast<uint8_t>(local.port >> 8);
    message[5] = static_cast<uint8_t>(local.port);
    message[2] = message[3] = 0;
    if (!v6) { // ICMPv6's covers addresses: the core makes it
        uint16_t sum = ones_complement_sum(message, out.length);
        message[2] = static_cast<uint8_t>(sum >> 8);
        message[3] = static_cast<uint8_t>(sum);
    }
    return 0;
}

int DatagramSocket::send(Outgoing &out) {
    bool v4 = out.to.is_v4();
    if (kind == Kind::udp && out.to.port == 0) return EINVAL;
    if (kind == Kind::udp && out.length > (v4 ? NETCON_DATAGRAM_PAYLOAD_MAX : NETCON_DATAGRAM_PAYLOAD6_MAX)) return EMSGSIZE;
    std::shared_ptr<Stack> stack;
    if (int error = choose_stack(out, stack)) return error;
    if (!binding.held() && kind != Kind::raw) {
        if (int error = claim(Address::any(family), default_network_)) return error == EADDRINUSE ? EAGAIN : error;
    }
    if (kind != Kind::udp)
        if (int error = prepare_icmp(out)) return error;
    if (out.to_names) {
        ask_names(out, owner.server.network_of(stack.get()));
        return 0;
    }
    size_t carried = out.to.is_loopback() ? loopback_mtu : stack->mtu(),
           whole = out.length + (v4 ? 20u : 40u) + (kind == Kind::udp ? 8u : 0u);
    int discover = v4 ? options.mtu_discover : options.mtu_discover6;
    if ((discover == 2 || discover == 3) && whole > carried) return EMSGSIZE; // IP_PMTUDISC_DO, _PROBE

    ip_addr_t to = to_lwip(out.to);
    const lwip_core &core = stack->core();
    bool group = out.to.is_multicast(), broadcast = core.is_broadcast(&to);
    int fallback = group ? (v4 ? datagram.multicast_ttl : datagram.multicast_hops) : v4 ? options.ttl : options.hop_limit;
    int ttl = out.ttl >= 0 ? out.ttl : fallback >= 0 ? fallback : group ? 1 : 64;
    int tos = out.tos >= 0 ? out.tos : v4 ? options.tos : options.traffic_class;
    out.source.port = local.port;
    owner.sent++;

    if (kind == Kind::udp) {
        iovec part{out.data, out.length};
        Packet packet{owner.server.network_of(stack.get()),
                      out.source,
                      out.to,
                      static_cast<uint8_t>(ttl),
                      static_cast<uint8_t>(tos),
                      group || broadcast,
                      &part,
                      1};
        if (stack->is_local(to)) {
            if (!owner.deliver(packet) && connected) fail(ECONNREFUSED);
            return 0;
        }
        bool loops = v4 ? datagram.multicast_loop : datagram.multicast_loop6;
        if (broadcast || (group && loops && core.in_group(&to))) owner.deliver(packet);
        if (group && ttl == 0) return 0;
    }
    lwip_core_datagram leaving{};
    leaving.source = to_lwip(out.source);
    leaving.destination = to;
    leaving.source_port = local.port;
    leaving.destination_port = out.to.port;
    leaving.protocol = static_cast<uint8_t>(protocol);
    leaving.ttl = static_cast<uint8_t>(ttl);
    leaving.tos = static_cast<uint8_t>(tos);
    leaving.data = out.data;
    leaving.length = static_cast<uint16_t>(std::min<size_t>(out.length, UINT16_MAX));
    if (out.length > UINT16_MAX) return EMSGSIZE;
    err_t result = ERR_OK;
    if (!stack->enter([&] { result = core.send_datagram(&leaving); })) return ENETDOWN;
    if (stack->crowded() && pair) {
        waiting = true;
        want_input(false);
        stack->want_room();
    }
    switch (result) {
    case ERR_RTE:
        return ENETUNREACH;
    case ERR_VAL:
        return EMSGSIZE;
    case ERR_OK:
        return 0;
    default:
        owner.unsendable++; // lost on the way, as with a kernel whose queue is full
        return 0;
    }
}

/* ---- names ---- */

int DatagramSocket::local_name(Reply &reply) const {
    netcon_address form = local.to(family);
    if (form.scope == 0 && local.is_link_local()) form.scope = owner.server.interface_of(network);
    std::memcpy(reply.data, &form, sizeof form);
    reply.length = sizeof form;
    return 0;
}

int DatagramSocket::peer_name(Reply &reply) const {
    if (!connected) return ENOTCONN;
    netcon_address form = remote.to(family);
    if (form.scope == 0 && remote.is_link_local()) form.scope = owner.server.interface_of(network);
    std::memcpy(reply.data, &form, sizeof form);
    reply.length = sizeof form;
    return 0;
}

int DatagramSocket::score(const Packet &packet) const {
    uint64_t on = options.device.empty() ? network : owner.server.network_named(options.device);
    if (!owner.server.sets.covers(on, packet.network)) return -1;
    if (!options.device.empty() && (options.device == loopback_name) != packet.destination.is_loopback()) return -1;
    bool v4 = packet.destination.is_v4();
    if (v4 ? family == AF_INET6 && options.v6_only : family == AF_INET) return -1;
    int points = v4 && family == AF_INET ? 1 : 0;
    if (!local.is_any()) {
        if (!local.same_ip(packet.destination)) return -1;
        points += 4;
    } else if (local.is_v4() != v4 && local.is_v4()) {
        return -1;
    }
    if (connected) {
        if (!(remote == packet.source)) return -1;
        points += 8;
    }
    return points;
}

} // namespace netcon::server
