/* datagrams.cpp: all datagram sockets, and which of them an arriving packet is for; see datagram.hpp.
 *
 * `arrive` runs inside lwIP's input, under the stack's trap: nothing there owns memory or throws, and lwIP's packet is left as it
 * was found unless it is taken.
 */
#include <poll.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "datagram.hpp"
#include "server.hpp"
#include "tcp_end.hpp"

namespace netcon::server {

namespace {

constexpr size_t udp_head = 8;
constexpr uint8_t protocol_udp = IPPROTO_UDP;

uint16_t word(const uint8_t *bytes) { return static_cast<uint16_t>(bytes[0] << 8 | bytes[1]); }

/* Which errors end in a connected socket without IP_RECVERR: those that Linux calls fatal (icmp_err_convert). */
int errno_of_icmp(uint8_t type, uint8_t code) {
    if (type == 12) return EPROTO; // parameter problem
    if (type != 3) return 0;       // destination unreachable
    switch (code) {
    case 2:
        return ENOPROTOOPT;
    case 3:
        return ECONNREFUSED;
    case 6:
    case 9:
        return ENETUNREACH;
    case 7:
        return EHOSTDOWN;
    case 8:
        return ENONET;
    case 10:
    case 13:
    case 14:
    case 15:
        return EHOSTUNREACH;
    default:
        return 0;
    }
}
int errno_of_icmp6(uint8_t type, uint8_t code) {
    if (type == 4) return EPROTO;
    if (type != 1) return 0;
    return code == 1 || code == 5 || code == 6 ? EACCES : code == 4 ? ECONNREFUSED : 0;
}

/* The parts of a pbuf chain from `skip` on, `length` bytes; 0: too many. */
size_t parts_of(const pbuf *data, size_t skip, size_t length, iovec *parts) {
    size_t count = 0;
    for (; data != nullptr && length > 0; data = data->next) {
        size_t here = data->len;
        if (skip >= here) {
            skip -= here;
            continue;
        }
        size_t step = std::min(length, here - skip);
        if (count == packet_parts_max) return 0;
        parts[count++] = {static_cast<uint8_t *>(data->payload) + skip, step};
        skip = 0;
        length -= step;
    }
    return count;
}

} // namespace

Datagrams::Datagrams(Server &server)
    : server(server), udp_ports(server.sets), ping_ports(server.sets), buffer(std::make_unique<uint8_t[]>(NETCON_RPC_SENDTO_MAX)) {}

Datagrams::~Datagrams() { close(); }

void Datagrams::close() {
    while (!by_id_.empty())
        retire(*by_id_.begin()->second);
    retired_.clear();
    while (!watches_.empty())
        remove_network(watches_.begin()->first);
}

/* ---- sockets ---- */

int Datagrams::create(Request &request) {
    const netcon_rpc_request &header = *request.header;
    bool v6 = header.family == AF_INET6;
    int icmp = v6 ? static_cast<int>(IPPROTO_ICMPV6) : static_cast<int>(IPPROTO_ICMP);
    DatagramSocket::Kind kind;
    if (header.type == SOCK_DGRAM && header.protocol == IPPROTO_UDP) {
        kind = DatagramSocket::Kind::udp;
    } else if (header.type == SOCK_DGRAM && header.protocol == icmp) {
        kind = DatagramSocket::Kind::ping;
    } else if (header.type == SOCK_RAW && header.protocol != 0) {
        if (!server.raw_is_allowed() || header.protocol != icmp) return EPERM;
        kind = DatagramSocket::Kind::raw;
    } else {
        return EPROTONOSUPPORT;
    }
    if (classify(request.subject.get()) != Kind::seqpacket) return EBADF;
    auto socket = std::make_unique<DatagramSocket>(*this, kind, header, request.network, request.caller.uid);
    if (int error = socket->take_pair(std::move(request.subject), header.socket)) {
        socket->want_input(false);
        return error;
    }
    if (kind == DatagramSocket::Kind::raw) index(*socket);
    by_id_[header.socket] = std::move(socket);
    server.enter_user(request.caller.uid);
    return 0;
}

DatagramSocket *Datagrams::find(uint64_t id) const {
    auto found = by_id_.find(id);
    return found == by_id_.end() ? nullptr : found->second.get();
}

void Datagrams::retire(DatagramSocket &socket) {
    if (std::exchange(socket.retired, true)) return;
    socket.want_input(false);
    unindex(socket);
    socket.binding.release();
    socket.leave_all();
    socket.pair.reset();
    server.leave_user(socket.uid);
    auto found = by_id_.find(socket.id);
    retired_.push_back(std::move(found->second));
    by_id_.erase(found);
    server.schedule_flush();
}

int Datagrams::answer(DatagramSocket &socket, Request &request, Reply &reply) {
    const netcon_rpc_request &header = *request.header;
    int program = request.subject.get();
    if (!socket.is_program_end(program)) {
        server.count.forged++;
        return EBADF;
    }
    socket.collect_before_a_request();
    netcon_address address{};
    switch (header.operation) {
    case NETCON_RPC_BIND:
    case NETCON_RPC_CONNECT:
        if (header.data_length < sizeof address) return EINVAL;
        std::memcpy(&address, header.data, sizeof address);
        return header.operation == NETCON_RPC_BIND ? socket.bind(address, header.network, header.flags)
                                                   : socket.connect(address, header.network, header.flags, program);
    case NETCON_RPC_LISTEN:
        return EOPNOTSUPP;
    case NETCON_RPC_GETSOCKNAME:
        return socket.local_name(reply);
    case NETCON_RPC_GETPEERNAME:
        return socket.peer_name(reply);
    case NETCON_RPC_SETSOCKOPT:
        return socket.set_option(header.args[0], header.args[1], header.data, header.data_length, program);
    case NETCON_RPC_GETSOCKOPT:
        return header.args[2] < 0
                   ? EINVAL
                   : socket.get_option(header.args[0], header.args[1], static_cast<uint32_t>(header.args[2]), program, reply);
    case NETCON_RPC_SHUTDOWN: {
        int error = socket.shutdown(header.args[0]);
        // Now, and not when the event of the program's own shutdown comes: a reader that it wakes may ask before.
        if (error == 0 && header.args[0] == SHUT_RDWR) retire(socket);
        return error;
    }
    case NETCON_RPC_IOCTL:
        return socket.control(static_cast<uint32_t>(header.args[0]), header.data, header.data_length, reply);
    case NETCON_RPC_SENDTO:
        return socket.send_to(header.data, header.data_length, header.network, header.flags, program, reply);
    default:
        return EOPNOTSUPP;
    }
}

void Datagrams::index(DatagramSocket &socket) {
    std::vector<DatagramSocket *> &list = socket.kind == DatagramSocket::Kind::udp ? by_port_[socket.local.port] : icmp_;
    if (std::find(list.begin(), list.end(), &socket) == list.end()) list.push_back(&socket);
}

void Datagrams::unindex(DatagramSocket &socket) {
    if (socket.kind == DatagramSocket::Kind::udp) {
        auto found = by_port_.find(socket.local.port);
        if (found == by_port_.end()) return;
        std::erase(found->second, &socket);
        if (found->second.empty()) by_port_.erase(found);
    } else {
        std::erase(icmp_, &socket);
    }
}

bool Datagrams::group_is_used(uint64_t network, const Address &group, const DatagramSocket *except) const {
    return std::any_of(by_id_.begin(), by_id_.end(), [&](auto &entry) {
        const DatagramSocket *socket = entry.second.get();
        return socket != except && !socket->retired &&
               std::any_of(socket->memberships_.begin(), socket->memberships_.end(),
                           [&](auto &membership) { return membership.network == network && membership.group.same_ip(group); });
    });
}

/* ---- networks ---- */

void Datagrams::add_network(uint64_t network, const std::shared_ptr<Stack> &stack) {
    std::unique_ptr<Watch> &watch = watches_[network];
    watch = std::make_unique<Watch>(Watch{this, stack.get(), network});
    Watch *raw = watch.get();
    stack->enter([&] { stack->core().watch_datagrams(on_packet, raw); });
    stack->on_room([this] { room(); });
    std::vector<Address> joined;
    for (auto &[id, socket] : by_id_)
        for (const auto &membership : socket->memberships_)
            if (membership.network == network &&
                std::none_of(joined.begin(), joined.end(), [&](auto &group) { return group.same_ip(membership.group); }))
                joined.push_back(membership.group);
    for (const Address &group : joined) {
        ip_addr_t ip = to_lwip(group);
        stack->enter([&] { stack->core().join_group(&ip); });
    }
}

void Datagrams::remove_network(uint64_t network) {
    auto found = watches_.find(network);
    if (found == watches_.end()) return;
    Stack *stack = found->second->stack;
    stack->on_room({});
    stack->enter([&] { stack->core().watch_datagrams(nullptr, nullptr); });
    watches_.erase(found);
    for (auto &[id, socket] : by_id_)
        if (socket->connected && socket->network == network) socket->fail(ENETDOWN);
}

void Datagrams::notice_closed(uint16_t port) {
    std::vector<DatagramSocket *> holders;
    for (auto &[id, socket] : by_id_)
        if (socket->binding.held() && socket->binding.local.port == port) holders.push_back(socket.get());
    for (DatagramSocket *socket : holders) {
        pollfd end{socket->pair.get(), 0, 0};
        if (!socket->retired && ::poll(&end, 1, 0) == 1 && (end.revents & POLLHUP)) socket->collect(EPOLLIN | EPOLLHUP);
    }
}

void Datagrams::room() {
    for (auto &[id, socket] : by_id_)
        if (std::exchange(socket->waiting, false)) socket->want_input(true);
}

/* ---- what arrives ---- */

bool Datagrams::deliver(const Packet &packet) {
    auto found = by_port_.find(packet.destination.port);
    if (found == by_port_.end()) return false;
    const std::vector<DatagramSocket *> &candidates = found->second;
    if (packet.to_all) {
        bool any = false;
        for (DatagramSocket *socket : candidates)
            if (socket->score(packet) >= 0) {
                socket->deliver(packet);
                any = true;
            }
        return any;
    }
    int best = -1;
    uint32_t sharing = 0;
    DatagramSocket *chosen = nullptr;
    for (DatagramSocket *socket : candidates) {
        int points = socket->score(packet);
        if (points < 0 || points < best) continue;
        sharing = (points > best ? 0 : sharing) + socket->options.reuse_port;
        best = points;
        chosen = socket; // the newest of equals
    }
    if (chosen == nullptr) return false;
    if (sharing > 1) { // SO_REUSEPORT: one peer's datagrams go to one socket
        uint32_t hash = 2166136261u;
        auto mix = [&hash](const void *bytes, size_t size) {
            for (size_t i = 0; i < size; i++)
                hash = (hash ^ static_cast<const uint8_t *>(bytes)[i]) * 16777619u;
        };
        mix(packet.source.ip.data(), 16);
        mix(&packet.source.port, sizeof packet.source.port);
        uint32_t turn = (hash ^ hash >> 15) % sharing;
        for (DatagramSocket *socket : candidates)
            if (socket->options.reuse_port && socket->score(packet) == best && turn-- == 0) {
                chosen = socket;
                break;
            }
    }
    chosen->deliver(packet);
    return true;
}

bool Datagrams::on_packet(void *context, pbuf *data) {
    auto *watch = static_cast<Watch *>(context);
    Datagrams &self = *watch->owner;
    const ip_globals &current = *watch->stack->core().ip_data;
    if (self.by_id_.empty() || data->len < current.current_ip_header_tot_len) return false;
    const auto *ip = static_cast<const uint8_t *>(data->payload);
    bool v6 = ip[0] >> 4 == 6;
    size_t head = current.current_ip_header_tot_len;
    Packet packet{};
    packet.network = watch->network;
    packet.source = from_lwip(current.current_iphdr_src, 0);
    packet.destination = from_lwip(current.current_iphdr_dest, 0);
    packet.ttl = v6 ? ip[7] : ip[8];
    packet.tos = v6 ? static_cast<uint8_t>((ip[0] & 15) << 4 | ip[1] >> 4) : ip[1];
    packet.to_all = packet.destination.is_multicast() || watch->stack->core().is_broadcast(&current.current_iphdr_dest);
    uint8_t protocol = v6 ? ip[6] : ip[9];
    // The packet from its transport header on, and then as it was.
    void *payload = data->payload;
    u16_t length = data->len, whole = data->tot_len;
    data->payload = static_cast<uint8_t *>(payload) + head;
    data->len = static_cast<u16_t>(length - head);
    data->tot_len = static_cast<u16_t>(whole - head);
    bool taken = protocol == protocol_udp && self.arrive_udp(*watch->stack, packet, data);
    bool icmp = protocol != protocol_udp && watch->stack->core().icmp_checksum_is_right(data);
    data->payload = payload;
    data->len = length;
    data->tot_len = whole;
    if (icmp) self.arrive_icmp(*watch->stack, packet, data, head, v6);
    return taken;
}

bool Datagrams::arrive_udp(Stack &stack, Packet &packet, pbuf *data) {
    const auto *header = static_cast<const uint8_t *>(data->payload);
    if (data->len < udp_head) return false;
    size_t length = word(header + 4);
    if (length < udp_head || length > data->tot_len || !stack.core().udp_checksum_is_right(data)) return false;
    packet.source.port = word(header);
    packet.destination.port = word(header + 2);
    iovec parts[packet_parts_max];
    packet.parts = parts;
    packet.count = parts_of(data, udp_head, length - udp_head, parts);
    if (packet.count == 0 && length > udp_head) return true;
    return deliver(packet);
}

void Datagrams::arrive_icmp(Stack &stack, Packet &packet, pbuf *data, size_t head, bool v6) {
    constexpr size_t looked_at = 8 + 60 + udp_head; // ICMP, the longest IPv4 header, the start of what it carried
    uint8_t message[looked_at];
    size_t length = stack.core().pbuf_copy_partial(data, message, sizeof message, static_cast<u16_t>(head));
    if (length < 8) return;
    icmp_error(packet.network, message, length, v6);
    bool reply = message[0] == (v6 ? 129 : 0);
    uint16_t identifier = word(message + 4);
    for (DatagramSocket *socket : icmp_) {
        if ((socket->family == AF_INET6) != v6) continue;
        if (socket->kind == DatagramSocket::Kind::ping) {
            if (!reply || socket->local.port != identifier) continue;
        } else if (v6 ? socket->datagram.icmp6_filter[message[0] >> 5] >> (message[0] & 31) & 1
                      : message[0] < 32 && socket->datagram.icmp_filter >> message[0] & 1) {
            continue;
        }
        if (socket->score(packet) < 0) continue;
        // IPv4's raw sockets see the IP header, too.
        size_t skip = socket->kind == DatagramSocket::Kind::raw && !v6 ? 0 : head;
        iovec parts[packet_parts_max];
        packet.parts = parts;
        packet.count = parts_of(data, skip, data->tot_len - skip, parts);
        if (packet.count > 0) socket->deliver(packet);
    }
}

/* The packet that an error is about is quoted behind its 8 bytes: did a connected socket of ours send it? */
void Datagrams::icmp_error(uint64_t network, const uint8_t *message, size_t length, bool v6) {
    int error = v6 ? errno_of_icmp6(message[0], message[1]) : errno_of_icmp(message[0], message[1]);
    const uint8_t *ip = message + 8;
    length -= 8;
    size_t head = v6 ? 40 : length > 0 ? (ip[0] & 15u) * 4 : 0;
    if (error == 0 || head < 20 || length < head + udp_head || (v6 ? ip[6] : ip[9]) != protocol_udp) return;
    Address from = v6 ? Address::v6(ip + 8, word(ip + head)) : Address::v4(ip + 12, word(ip + head));
    Address to = v6 ? Address::v6(ip + 24, word(ip + head + 2)) : Address::v4(ip + 16, word(ip + head + 2));
    auto found = by_port_.find(from.port);
    if (found == by_port_.end()) return;
    for (DatagramSocket *socket : found->second)
        if (socket->connected && socket->network == network && socket->remote == to && socket->local.same_ip(from)) {
            socket->fail(error);
            return;
        }
}

} // namespace netcon::server
