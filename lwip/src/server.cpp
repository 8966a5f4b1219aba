/* server.cpp: see server.hpp. */
#include "server.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <random>

namespace netcon::server {

namespace {

constexpr uint64_t retry_after_us = 20'000;     // descriptors in flight become fewer when some program accepts
constexpr uint64_t sweep_every_us = 30'000'000; // an orphan that made no progress in one whole round is given up
constexpr uint64_t deferred_every_us = 500'000;
constexpr size_t failed_kept = 256, ends_kept = 1024, spent_kept = 256;
constexpr size_t descriptors_reserved = 256; // for all that is not a program's socket

size_t descriptor_limit() {
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 1024;
    if (limit.rlim_cur < limit.rlim_max) { // descriptors in flight are counted against this, too
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
        getrlimit(RLIMIT_NOFILE, &limit);
    }
    return limit.rlim_cur;
}

} // namespace

Server::Server(const netcon_reactor_api *reactor, uint64_t service, uint64_t epoch)
    : reactor(reactor), datagrams(*this), policy_{}, service_(service), epoch_(epoch), serial_(std::random_device{}()),
      rpc_(reactor, *this, closer) {
    policy_.fallback = NETCON_POLICY_REFUSE; // closed; and without a line for it loopback is the host's
    questions_.on_datagram([this](const Asker &asker, const std::string &data) { datagrams.answer_query(asker, data); });
    size_t limit = descriptor_limit();
    sockets_max_ = limit > 2 * descriptors_reserved ? limit - descriptors_reserved : limit / 2;
    failed_.resize(failed_kept);
    ends_.resize(ends_kept);
    spent_.resize(spent_kept);
    retry_timer_ = reactor->timer_new(reactor->reactor, on_retry, this);
    sweep_timer_ = reactor->timer_new(reactor->reactor, on_sweep, this);
    deferred_timer_ = reactor->timer_new(reactor->reactor, on_deferred, this);
    if (retry_timer_ == nullptr || sweep_timer_ == nullptr || deferred_timer_ == nullptr) throw std::bad_alloc();
}

Server::~Server() {
    datagrams.close();
    while (sockets_ != nullptr) {
        Socket &socket = *sockets_;
        socket.reset(ENETDOWN);
        retire(socket); // one whose connect has just failed is kept otherwise
    }
    dirty_first_ = dirty_last_ = nullptr;
    while (retired_ != nullptr) {
        retired_->dirty = false;
        Socket *socket = retired_;
        retired_ = socket->next;
        delete socket;
    }
    for (auto &[id, stack] : networks_)
        stack->forget(failure_ids_[id]);
    reactor->timer_free(retry_timer_);
    reactor->timer_free(sweep_timer_);
    reactor->timer_free(deferred_timer_);
    if (flush_task_ != nullptr) flush_task_->server = nullptr; // it frees itself when it runs
}

/* ---- networks ---- */

std::shared_ptr<Stack> Server::stack_of(uint64_t network) const {
    auto found = networks_.find(network);
    return found == networks_.end() ? nullptr : found->second;
}

uint64_t Server::network_of(const Stack *stack) const {
    for (auto &[id, candidate] : networks_)
        if (candidate.get() == stack) return id;
    return 0;
}

std::shared_ptr<Stack> Server::stack_with(uint64_t network, const Address &local) const {
    ip_addr_t ip = to_lwip(local);
    if (local.is_loopback()) { // every one has it
        std::shared_ptr<Stack> stack = stack_of(loopback_network(network));
        return stack && stack->running() ? stack : nullptr;
    }
    for (auto &[id, stack] : networks_)
        if (sets.covers(network, id) && stack->running() && stack->is_local(ip)) return stack;
    return nullptr;
}

std::shared_ptr<Stack> Server::stack_towards(uint64_t network, const Address &remote, Address &source) const {
    ip_addr_t to = to_lwip(remote);
    // Who has the address comes before who has a route to it, as in a kernel.
    if (std::shared_ptr<Stack> own = stack_with(network, remote)) {
        source = remote.is_loopback() ? Address::loopback(remote.is_v4()) : remote;
        source.port = 0;
        return own;
    }
    for (auto &[id, stack] : networks_) {
        if (!sets.covers(network, id) || !stack->running()) continue;
        if (remote.is_any()) { // this host: any address of the family will do
            for (const lwip_core_address &own : stack->addresses())
                if (IP_IS_V6(&own.ip) == !remote.is_v4() && !(IP_IS_V6(&own.ip) && ip6_addr_islinklocal(ip_2_ip6(&own.ip)))) {
                    source = from_lwip(own.ip, 0);
                    return stack;
                }
            continue;
        }
        if (std::optional<ip_addr_t> from = stack->source_for(to)) {
            source = from_lwip(*from, 0);
            return stack;
        }
    }
    return nullptr;
}

void Server::add_network(uint64_t network, std::shared_ptr<Stack> stack) {
    if (auto found = networks_.find(network); found != networks_.end()) {
        if (found->second == stack) return;
        found->second->forget(failure_ids_[network]);
        stack_failed(found->second.get());
    }
    networks_[network] = stack;
    interfaces_.try_emplace(network, static_cast<uint32_t>(interfaces_.size()) + 2);
    datagrams.add_network(network, stack);
    failure_ids_[network] = stack->on_failure([this, raw = stack.get()](const std::string &) { stack_failed(raw); });
    for (Socket *socket = sockets_; socket != nullptr; socket = socket->next)
        socket->join(network, stack);
}

void Server::remove_network(uint64_t network) {
    auto found = networks_.find(network);
    if (found == networks_.end()) return;
    std::shared_ptr<Stack> stack = found->second;
    stack->forget(failure_ids_[network]);
    datagrams.remove_network(network);
    std::vector<Socket *> leaving;
    for (Socket *socket = sockets_; socket != nullptr; socket = socket->next) {
        if (socket->listener) socket->listener->remove(stack.get());
        if (socket->tcp.stack() == stack.get() || (socket->network == network && socket->state != State::failed))
            leaving.push_back(socket);
    }
    for (Socket *socket : leaving)
        socket->reset(ENETDOWN);
    networks_.erase(network);
    failure_ids_.erase(network);
}

/* All its PCBs and buffers are dead. Listeners stay, and meet the stack that takes its place. */
void Server::stack_failed(Stack *stack) {
    std::vector<Socket *> all;
    for (Socket *socket = sockets_; socket != nullptr; socket = socket->next)
        all.push_back(socket);
    for (Socket *socket : all)
        if (!socket->retired) socket->stack_failed(stack, ENETDOWN);
}

/* ---- sockets ---- */

void Server::add(Socket &socket) {
    socket.next = sockets_;
    socket.link = &sockets_;
    if (sockets_ != nullptr) sockets_->link = &socket.next;
    sockets_ = &socket;
    socket_count_++;
}

/* The service's own user, or root. */
static bool is_owner(uid_t uid) { return uid == geteuid() || uid == 0; }

bool Server::may_have_another(uid_t uid) {
    // One service serves one owner; other users must leave it room.
    size_t allowed = is_owner(uid) ? sockets_max_ : sockets_max_ / 2;
    auto user = sockets_of_user_.find(uid);
    return socket_count_ + datagrams.count() < sockets_max_ && (user == sockets_of_user_.end() || user->second < allowed);
}

void Server::enter_user(uid_t uid) { sockets_of_user_[uid]++; }

void Server::leave_user(uid_t uid) {
    if (auto user = sockets_of_user_.find(uid); --user->second == 0) sockets_of_user_.erase(user);
}

void Server::identify(Socket &socket, uint64_t id) {
    socket.id = id;
    by_id_[id] = &socket;
}

void Server::forget_id(Socket &socket) {
    if (auto found = by_id_.find(socket.id); found != by_id_.end() && found->second == &socket) by_id_.erase(found);
    socket.id = 0;
}

void Server::retire(Socket &socket) {
    if (socket.retired) return;
    socket.retired = true;
    socket.listener.reset();
    if (socket.came_through != nullptr) socket.came_through->listener->unlink(socket);
    socket.leave_pair();
    dispose(std::move(socket.program), closer);
    socket.tcp.abort();
    socket.binding.release();
    *socket.link = socket.next;
    if (socket.next != nullptr) socket.next->link = socket.link;
    socket_count_--;
    if (socket.counted) leave_user(socket.uid);
    socket.link = nullptr;
    socket.next = retired_;
    retired_ = &socket;
    schedule_flush();
}

/* A socket whose connect failed, or that listened and was shut down, has no pair, so nothing tells when its program is done with
 * it. The latest few are kept, with their options, for the loops that call connect() again. */
void Server::keep_failed(Socket &socket) {
    uint64_t old = std::exchange(failed_[failed_at_], socket.id);
    failed_at_ = (failed_at_ + 1) % failed_.size();
    if (auto found = by_id_.find(old); old != 0 && found != by_id_.end() && found->second->state == State::failed)
        retire(*found->second);
}

void Server::remember_end(uint64_t id, int error) {
    ends_[ends_at_] = {id, error};
    ends_at_ = (ends_at_ + 1) % ends_.size();
}

void Server::remember_options(uint64_t id, const Options &options) {
    if (options == Options()) return; // what is not remembered has them as they are at first
    spent_[spent_at_] = {id, options};
    spent_at_ = (spent_at_ + 1) % spent_.size();
}

Options *Server::spent_options(uint64_t id) {
    auto found = std::find_if(spent_.begin(), spent_.end(), [&](const Spent &each) { return each.id == id; });
    return found == spent_.end() ? nullptr : &found->options;
}

void Server::notice_closed(uint16_t port) {
    std::vector<Socket *> holders; // one that ends may take others with it
    for (Socket *socket = sockets_; socket != nullptr; socket = socket->next)
        if (socket->binding.held() && socket->binding.local.port == port) holders.push_back(socket);
    for (Socket *socket : holders)
        socket->notice_hang_up();
}

void Server::notice_closed_listeners(uint16_t port) {
    std::vector<Socket *> holders;
    for (const auto &point : points)
        if (point->local.port == port) holders.insert(holders.end(), point->members.begin(), point->members.end());
    for (Socket *socket : holders)
        socket->notice_hang_up();
}

/* ---- work ---- */

void Server::mark_dirty(Socket &socket) {
    if (socket.dirty || socket.retired) return;
    socket.dirty = true;
    socket.next_dirty = nullptr;
    (dirty_first_ == nullptr ? dirty_first_ : dirty_last_->next_dirty) = &socket;
    dirty_last_ = &socket;
    schedule_flush();
}

void Server::schedule_flush() {
    if (flush_task_ != nullptr) return;
    flush_task_ = new FlushTask{this};
    reactor->defer(reactor->reactor, on_flush, flush_task_);
}

void Server::on_flush(void *context) {
    auto *task = static_cast<FlushTask *>(context);
    Server *server = task->server;
    delete task;
    if (server != nullptr) {
        server->flush_task_ = nullptr;
        server->flush();
    }
}

void Server::flush() {
    Socket *socket = std::exchange(dirty_first_, nullptr);
    dirty_last_ = nullptr;
    while (socket != nullptr) {
        Socket *after = socket->next_dirty;
        socket->dirty = false;
        if (!socket->retired) socket->turn();
        socket = after;
    }
    free_retired();
    datagrams.free_retired();
}

void Server::free_retired() {
    Socket *socket = std::exchange(retired_, nullptr);
    while (socket != nullptr) {
        Socket *after = socket->next;
        if (socket->dirty) { // still in the list of the next round
            socket->next = retired_;
            retired_ = socket;
        } else {
            delete socket;
        }
        socket = after;
    }
}

void Server::retry_later(Socket &listening) {
    listening.listener->retrying = true;
    retrying_.push_back(listening.id);
    if (!std::exchange(retry_armed_, true)) reactor->timer_set(retry_timer_, reactor->now_us(reactor->reactor) + retry_after_us);
}

void Server::on_retry(void *context) {
    auto *server = static_cast<Server *>(context);
    server->retry_armed_ = false;
    for (uint64_t id : std::exchange(server->retrying_, {}))
        if (auto found = server->by_id_.find(id); found != server->by_id_.end() && found->second->listener) {
            found->second->listener->retrying = false;
            server->mark_dirty(*found->second);
        }
}

void Server::expect_deferred() {
    if (!std::exchange(deferred_armed_, true)) reactor->timer_set(deferred_timer_, now_us() + deferred_every_us);
}

void Server::on_deferred(void *context) {
    auto *server = static_cast<Server *>(context);
    server->deferred_armed_ = false;
    for (Socket *socket = server->sockets_; socket != nullptr; socket = socket->next)
        if (socket->listener && socket->listener->undefer_late(server->now_us())) server->expect_deferred();
}

void Server::expect_orphan() {
    if (!std::exchange(sweep_armed_, true)) reactor->timer_set(sweep_timer_, reactor->now_us(reactor->reactor) + sweep_every_us);
}

/* Connections that no program has any more live as long as the peer acknowledges something. */
void Server::on_sweep(void *context) {
    auto *server = static_cast<Server *>(context);
    server->sweep_armed_ = false;
    std::vector<Socket *> stuck;
    for (Socket *socket = server->sockets_; socket != nullptr; socket = socket->next) {
        if (!socket->orphaned()) continue;
        if (socket->progress_seen == socket->tcp.progress + 1) stuck.push_back(socket);
        socket->progress_seen = socket->tcp.progress + 1;
        server->expect_orphan();
    }
    for (Socket *socket : stuck)
        socket->reset(ECONNRESET);
}

/* ---- requests ---- */

void Server::handle(Request &request, Reply &reply) {
    const netcon_rpc_request &header = *request.header;
    if (header.operation == NETCON_RPC_HELLO) {
        if (header.data_length != 0) { // the networks of this connection
            bool full = false;
            uint64_t on = header.data_length % sizeof on != 0
                              ? 0
                              : sets.number_of(header.data, header.data_length / sizeof on, request.caller.uid,
                                               is_owner(request.caller.uid), full);
            if (on == 0) {
                reply.error = full ? ENOBUFS : EINVAL;
                return;
            }
            *request.client_network = on;
        }
        netcon_rpc_hello hello{service_, epoch_, request.path_network};
        std::memcpy(reply.data, &hello, sizeof hello);
        reply.length = sizeof hello;
        return;
    }
    if (header.operation == NETCON_RPC_INTERFACES) {
        interfaces(request, reply);
        return;
    }
    if (header.operation == NETCON_RPC_RESOLVE) {
        if (sets.is_set(request.network)) request.network = 0; // names are of all networks
        reply.error = questions_.ask(request);
        return;
    }
    if (header.operation == NETCON_RPC_SOCKET) {
        create_socket(request, reply);
        return;
    }
    DatagramSocket *datagram_socket = datagrams.find(header.socket);
    if (classify(request.subject.get()) != (datagram_socket != nullptr ? Kind::seqpacket : Kind::stream) || header.socket == 0 ||
        cookie_of(request.subject.get()) != header.socket) {
        count.forged++;
        reply.error = EBADF;
        return;
    }
    if (datagram_socket != nullptr) {
        reply.error = datagrams.answer(*datagram_socket, request, reply);
        // Before the reply: a program that closes P then has closed it, and its port is free.
        if (harmless(request.subject.get())) request.subject.reset();
        return;
    }
    auto found = by_id_.find(header.socket);
    Socket *socket = found != by_id_.end() ? found->second : nullptr;
    if (socket == nullptr && header.operation == NETCON_RPC_GETSOCKOPT && header.args[0] == SOL_SOCKET &&
        header.args[1] == SO_ERROR) {
        auto end = std::find_if(ends_.begin(), ends_.end(), [&](const End &each) { return each.id == header.socket; });
        if (end == ends_.end() || header.args[2] < static_cast<int>(sizeof end->error)) {
            reply.error = EBADF;
            return;
        }
        reply_int(reply, end->error, sizeof end->error);
        end->id = 0; // SO_ERROR is told once
        return;
    }
    if (socket == nullptr) {
        // A pair that is spent: its connection is gone, but the program still holds P. The names say that it was ours.
        auto own = own_program_name(request.subject.get());
        auto peer = peer_service_name(request.subject.get());
        if (!own || own->service != service_ || own->socket != header.socket || !peer || peer->fields.tag != tag() ||
            own->type != SOCK_STREAM || (own->family != AF_INET && own->family != AF_INET6)) {
            count.forged++;
            reply.error = EBADF;
            return;
        }
        if (peer->kind == 'C') { // it stays connected, for Linux, until it is disconnected
            netcon_address wanted{};
            std::memcpy(&wanted, header.data, std::min<size_t>(header.data_length, sizeof wanted));
            if (header.operation == NETCON_RPC_BIND || header.operation == NETCON_RPC_LISTEN) reply.error = EINVAL;
            if (header.operation == NETCON_RPC_CONNECT && wanted.family != AF_UNSPEC) reply.error = EISCONN;
            if (reply.error != 0) return;
        }
        if ((socket = new_socket(request.caller, own->family, State::failed)) == nullptr) {
            reply.error = ENFILE;
            return;
        }
        if (const Options *known = spent_options(header.socket)) socket->options = *known;
    }
    Descriptor program = std::move(request.subject);
    reply.error = answer(*socket, request, program, reply);
    dispose(std::move(program), closer);
    if (socket->id == 0) { // it got no new pair, and has no old one by which it could be found again
        if (Options *known = spent_options(header.socket))
            *known = socket->options;
        else
            remember_options(header.socket, socket->options);
        retire(*socket);
    }
}

int Server::answer(Socket &socket, Request &request, Descriptor &program, Reply &reply) {
    const netcon_rpc_request &header = *request.header;
    netcon_address address{};
    uint64_t network = request.network;
    if (!socket.options.device.empty()) network = network_named(socket.options.device);
    switch (header.operation) {
    case NETCON_RPC_BIND:
    case NETCON_RPC_CONNECT:
        if (header.data_length < sizeof address) return EINVAL;
        std::memcpy(&address, header.data, sizeof address);
        if (!socket.options.device.empty() && network == 0) return ENODEV; // that network is gone
        // A link-local address says which network in its scope, unless the socket is bound to an interface.
        if (address.family == AF_INET6 && address.scope == 0 && socket.options.device.empty() &&
            Address::from(address).is_link_local())
            return EINVAL;
        if (address.family == AF_INET6 && address.scope != 0 && Address::from(address).is_link_local() &&
            (network = network_of_interface(address.scope)) == 0)
            return ENODEV;
        return header.operation == NETCON_RPC_BIND
                   ? socket.bind(address, network, header.flags)
                   : socket.connect(address, network, header.flags, header.args[0] != 0, program, reply);
    case NETCON_RPC_LISTEN:
        if (!socket.options.device.empty() && network == 0) return ENODEV;
        return socket.listen(header.args[0], network, program, reply);
    case NETCON_RPC_GETSOCKNAME:
        return socket.local_name(reply);
    case NETCON_RPC_GETPEERNAME:
        return socket.peer_name(reply);
    case NETCON_RPC_SETSOCKOPT:
        return socket.set_option(header.args[0], header.args[1], header.data, header.data_length);
    case NETCON_RPC_GETSOCKOPT:
        return header.args[2] < 0 ? EINVAL
                                  : socket.get_option(header.args[0], header.args[1], static_cast<uint32_t>(header.args[2]), reply);
    case NETCON_RPC_SHUTDOWN:
        return socket.shutdown(header.args[0]);
    case NETCON_RPC_IOCTL:
        return socket.control(static_cast<uint32_t>(header.args[0]), header.data, header.data_length, reply);
    default:
        return EOPNOTSUPP;
    }
}

/* The subject is S, whose peer must be the P that the request names. */
void Server::create_socket(Request &request, Reply &reply) {
    const netcon_rpc_request &header = *request.header;
    int fd = request.subject.get();
    if (header.family != AF_INET && header.family != AF_INET6) {
        reply.error = EAFNOSUPPORT;
        return;
    }
    if (header.type == SOCK_STREAM && header.protocol != IPPROTO_TCP && header.protocol != 0) {
        reply.error = EPROTONOSUPPORT;
        return;
    }
    if (classify(fd) != (header.type == SOCK_STREAM ? Kind::stream : Kind::seqpacket)) {
        reply.error = EBADF;
        return;
    }
    auto peer = peer_program_name(fd);
    if (!peer || peer->service != service_ || peer->socket != header.socket || peer->socket == 0 || peer->family != header.family ||
        peer->type != header.type || peer->protocol != header.protocol || datagrams.find(header.socket) != nullptr ||
        by_id_.contains(header.socket) || is_named(fd)) {
        count.forged++;
        reply.error = EBADF;
        return;
    }
    if (!may_have_another(request.caller.uid) || !may_keep(request.subject)) {
        count.refused_sockets++;
        reply.error = ENFILE;
        return;
    }
    if (header.type != SOCK_STREAM) {
        reply.error = datagrams.create(request);
        return;
    }
    Socket *socket = new_socket(request.caller, header.family, State::fresh);
    if (socket == nullptr) {
        count.refused_sockets++;
        reply.error = ENFILE;
        return;
    }
    reply.error = socket->take_pair(std::move(request.subject), header.socket);
    if (reply.error != 0) retire(*socket);
}

/* Null: there are too many. */
Socket *Server::new_socket(const Caller &caller, uint16_t family, State state) {
    if (!may_have_another(caller.uid)) return nullptr;
    auto *socket = new Socket(*this, family, SOCK_STREAM, IPPROTO_TCP, caller.uid, state);
    add(*socket);
    enter_user(caller.uid);
    socket->counted = true;
    return socket;
}

std::vector<std::pair<std::string, uint64_t>> Server::stats() const {
    uint64_t failed = 0, listeners = 0, connections = 0, connecting = 0, pending = 0, orphans = 0, descriptors = 0;
    for (Socket *socket = sockets_; socket != nullptr; socket = socket->next) {
        failed += socket->state == State::failed;
        listeners += socket->state == State::listening;
        connections += socket->state == State::connected;
        connecting += socket->state == State::connecting;
        pending += socket->state == State::pending;
        orphans += socket->orphaned();
        descriptors += static_cast<uint64_t>(bool(socket->pair)) + static_cast<uint64_t>(bool(socket->program));
    }
    const RpcCounters &rpc = rpc_.counters();
    return {
        {"sockets", socket_count_ - failed + datagrams.count()},
        {"datagram_sockets", datagrams.count()},
        {"group_changes", datagrams.groups_changes},
        {"datagrams_in", datagrams.received},
        {"datagrams_out", datagrams.sent},
        {"datagrams_dropped", datagrams.dropped},
        {"datagrams_malformed", datagrams.malformed},
        {"datagrams_unsendable", datagrams.unsendable},
        {"failed_kept", failed},
        {"listeners", listeners},
        {"connections", connections},
        {"connecting", connecting},
        {"pending", pending},
        {"orphans", orphans},
        {"descriptors", descriptors + datagrams.count()},
        {"clients", rpc_.clients()},
        {"closing_descriptors", closer.pending()},
        {"chunks", chunks.in_use()},
        {"requests", rpc.requests},
        {"bad_requests", rpc.bad_requests},
        {"forged", count.forged},
        {"refused_clients", rpc.refused},
        {"refused_sockets", count.refused_sockets},
        {"lost_replies", rpc.lost_replies},
        {"questions", questions_.pending()},
        {"bytes_in", count.bytes_in},
        {"bytes_out", count.bytes_out},
        {"accepted", count.accepted},
        {"connects", count.connects},
        {"connect_failures", count.connect_failures},
        {"resets", count.resets},
        {"record_retries", count.record_retries},
    };
}

} // namespace netcon::server
