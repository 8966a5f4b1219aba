/* udp.cpp: the wire's UDP sockets; theory of operation in udp.hpp. */
#include "udp.hpp"

#include <cerrno>
#include <cstring>

namespace netcon {

namespace {

constexpr int drain_rounds_max = 64; /* then other descriptors get their turn */

/* set_options: what every socket of the wire has. Buffers are a wish: the kernel caps them silently. */
int set_options(int fd, int family) {
    auto set = [fd](int level, int name, int value) { return setsockopt(fd, level, name, &value, sizeof value); };
    set(SOL_SOCKET, SO_RCVBUF, UdpSockets::buffer_bytes);
    set(SOL_SOCKET, SO_SNDBUF, UdpSockets::buffer_bytes);
    if (family == AF_INET) return set(IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT);
    if (int result = set(IPPROTO_IPV6, IPV6_V6ONLY, 1); result < 0) return result;
    return set(IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DONT);
}

} // namespace

UdpSockets::UdpSockets(EngineRings &rings)
    : RingPort(rings.slots), rings_(rings), buffers_(std::make_unique_for_overwrite<uint8_t[]>(batch * Ring::payload_max)) {
    auto on_timer = [](void *context) { static_cast<UdpSockets *>(context)->unblock(); };
    stuck_timer_ = rings_.reactor.timer_new(on_timer, this);
    if (!stuck_timer_) throw std::bad_alloc();
    rings_.add(this);
}

UdpSockets::~UdpSockets() {
    close_all();
    rings_.remove(this);
    rings_.reactor.timer_free(stuck_timer_);
}

socklen_t UdpSockets::make_address(Address &address, const uint8_t *ip, size_t ip_length, uint16_t port, uint32_t scope) {
    address = {};
    if (ip_length == 4) {
        address.v4.sin_family = AF_INET;
        address.v4.sin_port = htons(port);
        memcpy(&address.v4.sin_addr, ip, 4);
        return sizeof address.v4;
    }
    address.v6.sin6_family = AF_INET6;
    address.v6.sin6_port = htons(port);
    memcpy(&address.v6.sin6_addr, ip, 16);
    if (IN6_IS_ADDR_LINKLOCAL(&address.v6.sin6_addr)) address.v6.sin6_scope_id = scope;
    return sizeof address.v6;
}

int UdpSockets::open(const uint8_t *ip, size_t ip_length, uint32_t scope, const char *device, uint16_t *port) {
    Address wanted, bound;
    socklen_t length = make_address(wanted, ip, ip_length, *port, scope), bound_length = sizeof bound;
    auto socket = std::make_unique<Socket>();
    socket->owner = this;
    socket->family = wanted.any.sa_family;
    socket->scope = scope;
    socket->fd = Fd(::socket(socket->family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_UDP));
    if (!socket->fd) return -errno;
    int fd = socket->fd.get();
    auto device_length = static_cast<socklen_t>(strlen(device));
    if (device_length && setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device, device_length) < 0) return -errno;
    if (set_options(fd, socket->family) < 0 || bind(fd, &wanted.any, length) < 0 || getsockname(fd, &bound.any, &bound_length) < 0)
        return -errno;
    auto on_event = [](void *context, int, uint32_t events) {
        auto *socket = static_cast<Socket *>(context);
        socket->owner->ready(*socket, events);
    };
    if (int result = rings_.reactor.watch(fd, EPOLLIN, on_event, socket.get()); result < 0) return result;
    *port = ntohs(socket->family == AF_INET ? bound.v4.sin_port : bound.v6.sin6_port);
    socket->number = ++last_number_;
    sockets_.emplace(last_number_, std::move(socket));
    return last_number_;
}

void UdpSockets::close(int number) {
    auto found = sockets_.find(number);
    if (found == sockets_.end()) return;
    rings_.reactor.unwatch(found->second->fd.get());
    bool was_waited_for = found->second.get() == waiting_;
    sockets_.erase(found);
    if (was_waited_for) unblock();
}

void UdpSockets::close_all() {
    drain(); /* what was sent before leaves, as far as the kernel takes it at once */
    for (auto &[number, socket] : sockets_)
        rings_.reactor.unwatch(socket->fd.get());
    sockets_.clear();
    waiting_ = nullptr;
}

void UdpSockets::rewatch(Socket &socket) {
    rings_.reactor.rewatch(socket.fd.get(), (socket.paused ? 0u : EPOLLIN) | (socket.blocked ? EPOLLOUT : 0u));
}

void UdpSockets::ready(Socket &socket, uint32_t events) {
    if (events & EPOLLERR) {
        /* Reading the error clears it; otherwise epoll would report it for ever. */
        int error;
        socklen_t length = sizeof error;
        getsockopt(socket.fd.get(), SOL_SOCKET, SO_ERROR, &error, &length);
        ++rings_.counters.receive_errors;
    }
    if (events & EPOLLIN) receive(socket);
    if (events & EPOLLOUT && socket.blocked) {
        socket.blocked = false;
        rewatch(socket);
        if (waiting_ == &socket) unblock();
    }
}

/* ---- in ---- */

void UdpSockets::receive(Socket &socket) {
    size_t room = std::min<size_t>(rings_.up.room(), batch);
    if (room == 0) {
        ++rings_.counters.ring_full;
        socket.paused = true;
        rewatch(socket);
        return;
    }
    for (size_t i = 0; i < room; ++i) {
        messages_[i].buffer = {buffers_.get() + i * Ring::payload_max, Ring::payload_max};
        headers_[i].msg_hdr = {.msg_name = &messages_[i].address,
                               .msg_namelen = sizeof(Address),
                               .msg_iov = &messages_[i].buffer,
                               .msg_iovlen = 1,
                               .msg_control = nullptr,
                               .msg_controllen = 0,
                               .msg_flags = 0};
    }
    int count = recvmmsg(socket.fd.get(), headers_, static_cast<unsigned>(room), MSG_DONTWAIT, nullptr);
    if (count < 0) {
        if (errno != EAGAIN && errno != EINTR) ++rings_.counters.receive_errors;
        return;
    }
    for (int i = 0; i < count; ++i) {
        if (headers_[i].msg_hdr.msg_flags & MSG_TRUNC) {
            ++rings_.counters.oversize;
            continue;
        }
        Record *record = rings_.up.reserve(headers_[i].msg_len); /* there is room: see above */
        record->kind = Record::datagram;
        record->number = socket.number;
        const Address &from = messages_[i].address;
        if (socket.family == AF_INET) {
            record->port = ntohs(from.v4.sin_port);
            record->ip_length = 4;
            memcpy(record->ip, &from.v4.sin_addr, 4);
        } else {
            record->port = ntohs(from.v6.sin6_port);
            record->ip_length = 16;
            memcpy(record->ip, &from.v6.sin6_addr, 16);
        }
        memcpy(record->data(), messages_[i].buffer.iov_base, headers_[i].msg_len);
    }
    rings_.counters.datagrams_in += static_cast<uint64_t>(count);
    rings_.publish_up();
}

void UdpSockets::up_room() {
    for (auto &[number, socket] : sockets_) {
        if (!socket->paused) continue;
        socket->paused = false;
        rewatch(*socket);
    }
}

/* ---- out ---- */

void UdpSockets::block(Socket &socket) {
    socket.blocked = true;
    waiting_ = &socket;
    rings_.reactor.timer_set(stuck_timer_, rings_.reactor.now() + stuck_us);
    rewatch(socket);
}

/* unblock: wait no longer, because the socket takes more, is closed, or is stuck. */
void UdpSockets::unblock() {
    waiting_ = nullptr;
    rings_.reactor.timer_set(stuck_timer_, NETCON_NEVER);
    rings_.drain(this);
}

void UdpSockets::drain() {
    for (int round = 0; !waiting_; ++round) {
        Record *first = down.scan();
        if (!first) return;
        if (round == drain_rounds_max) {
            down.rewind();
            rings_.drain_later();
            return;
        }
        auto found = sockets_.find(first->number);
        bool more = found != sockets_.end() ? send_run(*found->second, first) : send_from_all(first);
        if (!more) return;
    }
}

/* fill: make message `index` of `record`. */
void UdpSockets::fill(Socket &socket, Record *record, int index) {
    Message &message = messages_[index];
    message.buffer = {record->data(), record->length};
    socklen_t length = make_address(message.address, record->ip, record->ip_length, record->port, socket.scope);
    msghdr &header = headers_[index].msg_hdr;
    header = {.msg_name = &message.address,
              .msg_namelen = length,
              .msg_iov = &message.buffer,
              .msg_iovlen = 1,
              .msg_control = nullptr,
              .msg_controllen = 0,
              .msg_flags = 0};
    if (record->ttl && record->ip_length == 4) { /* IPv4 only: vl1 §5.13 */
        header.msg_control = message.control;
        header.msg_controllen = sizeof message.control;
        cmsghdr *control = CMSG_FIRSTHDR(&header);
        control->cmsg_level = IPPROTO_IP;
        control->cmsg_type = IP_TTL;
        control->cmsg_len = CMSG_LEN(sizeof(int));
        int ttl = record->ttl;
        memcpy(CMSG_DATA(control), &ttl, sizeof ttl);
    }
}

/* send_run: the oldest record and those after it for the same socket. Returns whether to go on. */
bool UdpSockets::send_run(Socket &socket, Record *first) {
    if (socket.blocked) {
        drop_run(first);
        return true;
    }
    int count = 0;
    for (Record *record = first; record && record->number == first->number; record = count < batch ? down.scan() : nullptr)
        fill(socket, record, count++);
    down.rewind();
    int sent = sendmmsg(socket.fd.get(), headers_, static_cast<unsigned>(count), MSG_DONTWAIT);
    if (sent >= 0) {
        rings_.counters.datagrams_out += static_cast<uint64_t>(sent);
        down.release(static_cast<size_t>(sent));
        return true;
    }
    if (errno == EAGAIN) {
        block(socket);
        return false;
    }
    if (errno != EINTR) { /* the first one's error */
        ++rings_.counters.send_errors;
        down.release(1);
    }
    return true;
}

/* drop_run: the oldest record and those after it for the same socket, which is stuck. */
void UdpSockets::drop_run(Record *first) {
    size_t count = 0;
    for (Record *record = first; record && record->number == first->number; record = down.scan())
        ++count;
    rings_.counters.send_stuck += count;
    down.release(count);
}

/* send_from_all: a copy of the oldest record from every socket of its family. Returns whether to go on. */
bool UdpSockets::send_from_all(Record *record) {
    int family = record->ip_length == 4 ? AF_INET : AF_INET6;
    bool any = sent_from_ != 0;
    for (auto entry = sockets_.upper_bound(sent_from_); entry != sockets_.end(); ++entry) {
        Socket &socket = *entry->second;
        if (socket.family != family) continue;
        if (socket.blocked) {
            ++rings_.counters.send_stuck;
            any = true;
            continue;
        }
        fill(socket, record, 0);
        ssize_t sent;
        do
            sent = sendmsg(socket.fd.get(), &headers_[0].msg_hdr, MSG_DONTWAIT);
        while (sent < 0 && errno == EINTR);
        if (sent < 0 && errno == EAGAIN) {
            down.rewind();
            block(socket);
            return false;
        }
        ++(sent < 0 ? rings_.counters.send_errors : rings_.counters.datagrams_out);
        sent_from_ = entry->first;
        any = true;
    }
    if (!any) ++rings_.counters.send_errors;
    sent_from_ = 0;
    down.release(1);
    return true;
}

} // namespace netcon
