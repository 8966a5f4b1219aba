/* socket.cpp: what programs ask of a socket, and the transitions of its state; see socket.hpp. */
#include "socket.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>

#include "server.hpp"

namespace netcon::server {

namespace {

constexpr int program_send_buffer = 212992; // so that the stale byte's buffer cannot make P unwritable for ever (intercept.md)
constexpr int service_send_buffer = 524288;
constexpr int record_send_buffer = 24576;
constexpr int name_attempts = 4;
constexpr unsigned filler_max = 4096; // sends, each of which takes room; a socket that never fills is not a pair's end

void set_send_buffer(int fd, int bytes) { setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes); }

/* Make the socket refuse more data: its writer sees what a TCP socket shows that is not connected yet. */
bool fill_queue(int fd) {
    set_send_buffer(fd, 1); // the kernel's minimum
    for (unsigned i = 0; i < filler_max; i++)
        if (send(fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) return errno == EAGAIN;
    return false;
}

} // namespace

Socket::Socket(Server &server, uint16_t family, uint16_t type, uint16_t protocol, uid_t uid, State state)
    : server(server), family(family), type(type), protocol(protocol), uid(uid), state(state), tcp(server.chunks, notify, this) {}

Socket::~Socket() = default;

void Socket::notify(void *context) {
    auto *socket = static_cast<Socket *>(context);
    socket->server.mark_dirty(*socket);
}

int Socket::take_pair(Descriptor service_end, uint64_t cookie) {
    int yes = 1, fd = service_end.get();
    rights_refused_ = refuse_rights(fd);
    // Otherwise a program's MSG_OOB byte is counted by FIONREAD, never returned, and the pump would spin.
    if (setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &yes, sizeof yes) != 0) return errno;
    set_send_buffer(fd, service_send_buffer);
    if (int error = server.reactor->watch(server.reactor->reactor, fd, EPOLLIN | EPOLLRDHUP | EPOLLET, on_pair, this); error < 0)
        return -error;
    pair = std::move(service_end);
    drain_pair(); // the program may have written already; and it may hold descriptors, which the closer gets
    wants_output_ = false;
    server.identify(*this, cookie);
    return 0;
}

void Socket::leave_pair() {
    if (state == State::connected && id != 0) server.remember_options(id, options); // the program may still hold P
    server.forget_id(*this);
    close_pair();
}

void Socket::close_pair() {
    if (!pair) return;
    server.reactor->unwatch(server.reactor->reactor, pair.get());
    if (rights_refused_)
        pair.reset();
    else
        dispose(std::move(pair), server.closer);
}

void Socket::want_output(bool want) {
    if (want == wants_output_ || !pair) return;
    wants_output_ = want;
    uint32_t events = EPOLLIN | EPOLLRDHUP | EPOLLET;
    server.reactor->rewatch(server.reactor->reactor, pair.get(), want ? events | EPOLLOUT : events);
}

void Socket::on_pair(void *context, int, uint32_t events) {
    auto *socket = static_cast<Socket *>(context);
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) socket->readable_ = true;
    if (events & EPOLLRDHUP) socket->end_of_stream_ = true;
    if (events & EPOLLHUP) socket->hung_up_ = socket->end_of_stream_ = true;
    if (events & EPOLLERR) {
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(socket->pair.get(), SOL_SOCKET, SO_ERROR, &error, &length);
        socket->unread_by_program_ |= error == ECONNRESET;
    }
    if (events & EPOLLOUT) {
        socket->output_blocked_ = false;
        if (socket->listener) socket->listener->blocked = false;
    }
    socket->server.mark_dirty(*socket);
}

void Socket::notice_hang_up() {
    pollfd end{pair.get(), 0, 0};
    if (!pair || retired || ::poll(&end, 1, 0) != 1 || (end.revents & POLLHUP) == 0) return;
    on_pair(this, end.fd, EPOLLIN | EPOLLHUP | ((end.revents & POLLERR) != 0 ? EPOLLERR : 0u));
    turn();
}

void Socket::turn() {
    switch (state) {
    case State::fresh:
    case State::bound:
        if (hung_up_) server.retire(*this);
        break;
    case State::listening:
        if (hung_up_)
            server.retire(*this);
        else
            listener->top_up();
        break;
    case State::connecting:
        if (tcp.connected)
            complete_connect();
        else if (tcp.gone)
            fail_connect(tcp.error == ERR_RST ? ECONNREFUSED : tcp.error == ERR_RTE ? EHOSTUNREACH : ETIMEDOUT);
        break;
    case State::connected:
        pump();
        break;
    case State::closing:
        finish_closing();
        break;
    case State::pending: // what arrives waits in `tcp`
        if (deferred_until_us == 0) break;
        if (tcp.gone)
            server.retire(*this); // nobody has seen it
        else if (!tcp.rx_empty() || tcp.rx_fin)
            came_through->listener->undefer(*this);
        break;
    case State::failed:
        break;
    }
}

/* ---- bind ---- */

int Socket::bind(const netcon_address &wanted, uint64_t on_network, uint16_t flags) {
    if (state != State::fresh || explicitly_bound_) return EINVAL;
    if (wanted.family != family) return family == AF_INET6 && wanted.family == AF_INET ? EINVAL : EAFNOSUPPORT;
    Address asked = Address::from(wanted);
    if (family == AF_INET6 && asked.is_v4() && options.v6_only) return EINVAL;
    if (int error = server.decide(NETCON_POLICY_BIND, NETCON_POLICY_TCP, asked, flags, on_network)) return error;
    uint64_t join_network = on_network;
    if (!asked.is_any()) {
        std::shared_ptr<Stack> stack = server.stack_with(on_network, asked);
        if (!stack) return server.uncarried(NETCON_POLICY_BIND, NETCON_POLICY_TCP, asked, EADDRNOTAVAIL);
        join_network = server.network_of(stack.get());
    }
    binding.local = asked;
    binding.network = join_network;
    binding.uid = uid;
    binding.v6_only = options.v6_only;
    binding.reuse_address = options.reuse_address;
    binding.reuse_port = options.reuse_port;
    if (int error = claim_port()) return error;
    network = join_network;
    bound_to_ = binding.local;
    explicitly_bound_ = true;
    state = State::bound;
    return 0;
}

/* EADDRINUSE is not said because of a socket that the program has closed before it asked. */
int Socket::claim_port() {
    int error = server.ports.claim(binding);
    if (error != EADDRINUSE) return error;
    server.notice_closed(binding.local.port);
    return server.ports.claim(binding);
}

/* ---- listen ---- */

int Socket::listen(int backlog, uint64_t on_network, Descriptor &program_end, Reply &reply) {
    if (state == State::listening) {
        listener->set_backlog(backlog);
        return 0;
    }
    if (state == State::failed && explicitly_bound_ == false) binding.release();
    if (state != State::fresh && state != State::bound && state != State::failed) return EINVAL;
    if (!binding.held()) { // never bound, or given up after a failed connect
        binding.local = explicitly_bound_ ? bound_to_ : Address::any(family);
        binding.network = explicitly_bound_ ? network : on_network;
        binding.uid = uid;
        binding.v6_only = options.v6_only;
        binding.reuse_address = options.reuse_address;
        binding.reuse_port = options.reuse_port;
        binding.automatic = false;
        if (int error = claim_port()) return error;
        network = binding.network;
    }
    if (server.ports.check(binding) != 0) {
        server.notice_closed(binding.local.port);
        if (int error = server.ports.check(binding)) return error;
    }

    Descriptor fresh_end;
    if (state == State::failed) {
        if (int error = new_pair(reply, fresh_end)) return error;
    }
    Descriptor &p = fresh_end ? fresh_end : program_end;
    listener = std::make_unique<Listener>(*this);
    listener->set_backlog(backlog);
    int error = 0;
    for (auto &[id, stack] : server.networks())
        // One that has failed is met when the next takes its place.
        if (server.sets.covers(network, id) && stack->running() && error == 0) error = listener->add(stack);
    if (error == 0) error = name_pair('L', binding.local, 0);
    // Now P's peer must be the S that we know: otherwise somebody has registered a pair under the cookie of another one.
    if (error == 0)
        if (auto peer = peer_service_name(p.get());
            !peer || peer->fields.serial != server.last_serial() || peer->fields.tag != server.tag())
            error = EBADF;
    if (error != 0) {
        listener.reset();
        return error;
    }
    fill_queue(p.get());             // a listener is never writable,
    ::shutdown(pair.get(), SHUT_RD); // and who writes all the same gets EPIPE
    set_send_buffer(pair.get(), record_send_buffer);
    binding.listening = true;
    state = State::listening;
    want_output(true);
    return 0;
}

void Socket::join(uint64_t joined, const std::shared_ptr<Stack> &stack) {
    if (state == State::listening && server.sets.covers(network, joined) && !listener->listens_on(stack.get()))
        listener->add(stack);
}

void Socket::shut_listener() {
    listener.reset(); // connections that wait are reset
    binding.listening = false;
    binding.release();
    drain_pair();
    close_pair(); // each accept() that waits reads the end of file, and says EINVAL
    state = State::failed;
    server.keep_failed(*this);
}

int Socket::shutdown(int how) {
    if (how < SHUT_RD || how > SHUT_RDWR) return EINVAL;
    switch (state) {
    case State::listening:
        if (how != SHUT_WR) shut_listener();
        return 0;
    case State::connected: {
        // The library does this itself; the program's direction is the other one seen from S.
        constexpr int mirrored[] = {SHUT_WR, SHUT_RD, SHUT_RDWR};
        ::shutdown(pair.get(), mirrored[how]);
        return 0;
    }
    default:
        return ENOTCONN;
    }
}

/* ---- connect ---- */

int Socket::connect(const netcon_address &wanted, uint64_t on_network, uint16_t flags, bool waits, Descriptor &program_end,
                    Reply &reply) {
    if (wanted.family == AF_UNSPEC) {
        // Disconnect. What was connected, or tried to, needs a new pair: the old one's names and bytes are spent.
        if (state == State::fresh || state == State::bound || state == State::failed) return 0;
        if (state == State::listening) {
            shut_listener();
            return 0;
        }
        tcp.abort();
        if (!explicitly_bound_) binding.release();
        binding.remote = Address();
        dispose(std::move(program), server.closer);
        Descriptor fresh_end;
        state = State::failed;
        int error = new_pair(reply, fresh_end);
        if (error == 0) state = explicitly_bound_ ? State::bound : State::fresh;
        return error;
    }
    switch (state) {
    case State::connecting:
        return EALREADY;
    case State::connected:
        if (std::exchange(connect_reported_, true)) return EISCONN;
        return 0;
    case State::listening:
        return EISCONN;
    case State::closing:
    case State::pending:
        return EINVAL;
    default:
        break;
    }
    if (wanted.family != family) return EAFNOSUPPORT;
    if (!server.may_keep(program_end)) return ENFILE;
    Address to = Address::from(wanted);
    if (to.is_v4() && family == AF_INET6 && options.v6_only) return ENETUNREACH;
    if (to.is_multicast() || to.is_broadcast()) return ENETUNREACH;

    // Whose is it? A bound address decides, then the request's network, then the route.
    bool local_given = explicitly_bound_ && !bound_to_.is_any();
    if (local_given && bound_to_.is_v4() != to.is_v4()) return to.is_v4() ? EINVAL : ENETUNREACH;
    if (to.is_any()) { // this host, as Linux reads it
        if (local_given)
            to.ip = bound_to_.ip;
        else if ((flags & NETCON_RPC_VIRTUAL) || server.loopback_is_virtual())
            to.ip = Address::loopback(to.is_v4()).ip;
    }
    switch (server.name_service(NETCON_POLICY_TCP, to, flags)) {
    case Server::NameService::host:
        return NETCON_RPC_TO_HOST;
    case Server::NameService::unless_program:
        if (server.has_listener(to)) break;
        [[fallthrough]];
    case Server::NameService::ours:
        return connect_to_names(to, on_network, reply);
    case Server::NameService::no:
        break;
    }
    if (int error = server.decide(NETCON_POLICY_CONNECT, NETCON_POLICY_TCP, to, flags, on_network)) return error;
    uint64_t on = network != 0 ? network : on_network;
    Address from;
    std::shared_ptr<Stack> stack = server.stack_towards(on, to, from);
    if (!stack)
        return local_given || !options.device.empty() ? ENETUNREACH
                                                      : server.uncarried(NETCON_POLICY_CONNECT, NETCON_POLICY_TCP, to, ENETUNREACH);
    if (to.is_any()) to.ip = from.ip;
    if (!server.may_cross(*stack, options.device, local_given ? bound_to_ : from, to)) return to.is_v4() ? EINVAL : ENETUNREACH;
    if (server.stack_with(on, to)) server.notice_closed_listeners(to.port);

    bool claimed = false;
    if (!binding.held()) {
        binding.local = explicitly_bound_ ? bound_to_ : from;
        binding.remote = to;
        binding.network = server.network_of(stack.get());
        binding.uid = uid;
        binding.reuse_address = options.reuse_address;
        binding.reuse_port = options.reuse_port;
        binding.automatic = !explicitly_bound_;
        if (int error = explicitly_bound_ ? claim_port() : server.ports.claim_for_connect(binding)) return error;
        claimed = true;
    }
    local = local_given ? bound_to_ : from;
    local.port = binding.local.port;
    auto undo = [&](int error) {
        tcp.abort();
        tcp.gone = tcp.connected = false;
        if (claimed) binding.release();
        return error;
    };
    if (explicitly_bound_ && server.ports.is_connected(binding, server.network_of(stack.get()), local, to))
        return undo(EADDRNOTAVAIL);

    Descriptor fresh_end;
    if (state == State::failed) {
        if (int error = new_pair(reply, fresh_end)) return undo(error);
    }
    tcp.gone = tcp.connected = tcp.was_reset = tcp.rx_fin = false;
    if (int error = tcp.connect(stack, local, to, options)) {
        state = explicitly_bound_ ? State::bound : State::fresh;
        return undo(error);
    }
    Descriptor &p = fresh_end ? fresh_end : program_end;
    if (int error = fill_program(p)) {
        state = explicitly_bound_ ? State::bound : State::fresh;
        return undo(error);
    }
    program = std::move(p);
    remote = binding.remote = to;
    network = server.network_of(stack.get());
    scope_addresses();
    connect_reported_ = waits;
    state = State::connecting;
    server.count.connects++;
    return EINPROGRESS;
}

/* Programs see link-local addresses with the interface on which they are. */
void Socket::scope_addresses() {
    if (local.is_link_local()) local.scope = server.interface_of(network);
    if (remote.is_link_local()) remote.scope = server.interface_of(network);
}

/* Makes P unwritable. EBADF when P is not the other end of S. */
int Socket::fill_program(Descriptor &p) {
    drain_pair(); // what the program wrote to a socket that was not connected
    socklen_t length = sizeof program_send_buffer_;
    if (getsockopt(p.get(), SOL_SOCKET, SO_SNDBUF, &program_send_buffer_, &length) != 0) return EBADF;
    program_send_buffer_ = std::max(program_send_buffer_ / 2, program_send_buffer); // the kernel shows twice what was set
    if (!fill_queue(p.get()) || (filler_ = queued(pair.get())) == 0) {
        set_send_buffer(p.get(), program_send_buffer_);
        return EBADF;
    }
    return 0;
}

/* Read and discard the filler but for its last byte, the stale one. By count: P becomes writable on the way, and what the
 * program writes at once comes right behind. */
void Socket::drain_filler() {
    char discard[8192];
    while (filler_ > 1) {
        iovec part{discard, std::min(sizeof discard, filler_ - 1)};
        ssize_t n = receive(pair.get(), &part, 1, 0, server.closer);
        if (n <= 0) return;
        filler_ -= static_cast<size_t>(n);
    }
}

/* Read and discard. A socket that is written to all the time is left after a few rounds. */
void Socket::drain_pair() {
    char discard[8192];
    for (unsigned i = 0; i < 256; i++) {
        iovec part{discard, sizeof discard};
        if (receive(pair.get(), &part, 1, 0, server.closer) <= 0) return;
    }
}

int Socket::name_pair(char kind, const Address &own, int error) {
    netcon_name_service name{};
    name.tag = server.tag();
    name.error = error;
    name.family = family;
    name.local_port = own.port;
    name.remote_port = kind == 'L' ? 0 : remote.port;
    name.scope = static_cast<uint16_t>(own.is_link_local() ? own.scope : remote.is_link_local() ? remote.scope : 0);
    netcon_address local_form = own.to(family), remote_form = remote.to(family);
    std::memcpy(name.local_ip, local_form.ip, sizeof name.local_ip);
    if (kind != 'L') std::memcpy(name.remote_ip, remote_form.ip, sizeof name.remote_ip);
    int result = EADDRINUSE; // squatted: another serial
    for (int i = 0; i < name_attempts && result == EADDRINUSE; i++) {
        name.serial = server.next_serial();
        result = bind_name(pair.get(), kind, name);
    }
    return result;
}

void Socket::complete_connect() {
    // In this order: a name that is bound after the drain is too late, for the drain wakes the program (intercept.md).
    if (int error = name_pair('C', local, 0); error != 0) {
        reset(error);
        return;
    }
    drain_filler();
    set_send_buffer(program.get(), program_send_buffer_);
    dispose(std::move(program), server.closer);
    start_pump();
}

/* To the connection, and, of a connected pair, to the queue towards the program: together they are its receive buffer. */
void Socket::apply_options() {
    tcp.apply(options);
    if (state == State::connected && options.receive_buffer_set) set_send_buffer(pair.get(), options.receive_buffer / 2);
}

void Socket::start_pump() {
    state = State::connected;
    apply_options();
    stale_ = true;
    readable_ = true;
    pump();
}

void Socket::fail_connect(int error) {
    server.count.connect_failures++;
    dispose(std::move(program), server.closer);
    tcp.abort();
    name_pair('F', local, error);
    close_pair(); // with the filler unread: the program sees an error, and finds which in the name
    binding.release();
    state = State::failed;
    server.keep_failed(*this);
}

/* A socket whose pair is spent gets another; P goes out with the reply. */
int Socket::new_pair(Reply &reply, Descriptor &program_end) {
    leave_pair();
    if (int error = make_program_end(true)) return error;
    int copy = fcntl(program.get(), F_DUPFD_CLOEXEC, 0);
    if (copy < 0) return ENFILE;
    reply.descriptor = std::move(program);
    program_end = Descriptor(copy);
    readable_ = end_of_stream_ = hung_up_ = unread_by_program_ = pair_drained_ = false;
    output_blocked_ = fin_sent_ = end_delivered_ = stale_ = connect_reported_ = false;
    return 0;
}

int Socket::make_program_end(bool named) {
    for (int i = 0;; i++) {
        Descriptor p, s;
        if (make_pair(SOCK_STREAM, p, s) != 0 || !server.may_keep(s)) return ENFILE;
        netcon_name_program name{server.service(), cookie_of(p.get()), family, type, protocol, 0};
        int error = named ? bind_name(p.get(), name) : 0;
        if (error == EADDRINUSE && i < name_attempts) continue; // squatted: the next pair has another cookie
        if (error == 0) error = take_pair(std::move(s), name.socket);
        if (error != 0) return error;
        set_send_buffer(p.get(), program_send_buffer);
        program = std::move(p);
        return 0;
    }
}

/* A name of P's, once bound, is seen from S even after P was closed. */
bool Socket::was_accepted() const { return !came_by_accept_ || peer_program_name(pair.get()).has_value(); }

int Socket::make_accepted_pair(const Socket &listening) {
    // Whoever takes the record names P: that is how we know, even when it is closed, that it was accepted.
    if (int error = make_program_end(false)) return error;
    came_by_accept_ = true;
    binding.local = local;
    binding.remote = remote;
    binding.network = network = server.network_of(tcp.stack());
    scope_addresses();
    binding.uid = uid;
    binding.reuse_address = listening.binding.reuse_address;
    binding.reuse_port = listening.binding.reuse_port;
    server.ports.inherit(binding);
    connect_reported_ = true;
    // The stale byte, then the name, before anybody can see the descriptor.
    int error = send(program.get(), "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1 ? name_pair('C', local, 0) : ENOBUFS;
    if (error != 0) { // the next try makes another pair
        leave_pair();
        program.reset();
        binding.release();
    }
    return error == 0 || error == ENOBUFS ? error : EINVAL;
}

/* ---- names ---- */

int Socket::local_name(Reply &reply) const {
    Address shown = Address::any(family);
    if (state == State::connecting || state == State::connected)
        shown = local;
    else if (binding.held())
        shown = binding.local;
    netcon_address form = shown.to(family);
    std::memcpy(reply.data, &form, sizeof form);
    reply.length = sizeof form;
    return 0;
}

int Socket::peer_name(Reply &reply) const {
    if (state != State::connected) return ENOTCONN;
    netcon_address form = remote.to(family);
    std::memcpy(reply.data, &form, sizeof form);
    reply.length = sizeof form;
    return 0;
}

/* ---- ends that nobody asked for ---- */

void Socket::reset(int error) {
    if (retired) return;
    if (state == State::connecting) {
        fail_connect(error);
        return;
    }
    if (state == State::connected) server.count.resets++;
    tcp.abort();
    server.retire(*this); // closes S with the stale byte unread: ECONNRESET
}

void Socket::stack_failed(const Stack *stack, int error) {
    if (listener) listener->remove(stack);
    if (tcp.stack() != stack) return;
    if (!stack->running()) tcp.forget();
    if (state == State::connecting || state == State::connected || state == State::closing || state == State::pending) reset(error);
}

} // namespace netcon::server
