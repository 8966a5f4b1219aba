/* listener.cpp: see listener.hpp. */
#include "listener.hpp"

#include <algorithm>
#include <cerrno>
#include <new>

#include "server.hpp"
#include "socket.hpp"

namespace netcon::server {

namespace {

constexpr size_t backlog_max = 4096;
constexpr unsigned hand_overs_per_turn = 64;

} // namespace

/* ---- the listening PCB ---- */

int ListenPoint::open(int backlog, int max_segment) {
    ip_addr_t ip = to_lwip(local);
    bool any_family = local.is_any() && !local.is_v4() && !v6_only;
    err_t error = ERR_MEM;
    bool alive = stack->enter([&] {
        const lwip_core &core = stack->core();
        tcp_pcb *pcb = core.tcp_new_ip_type(any_family ? static_cast<u8_t>(IPADDR_TYPE_ANY) : IP_GET_TYPE(&ip));
        if (pcb == nullptr) return;
        ip_set_option(pcb, SOF_REUSEADDR); // the port table has decided
        if (IP_IS_V6(&ip) && ip6_addr_islinklocal(ip_2_ip6(&ip))) ip6_addr_assign_zone(ip_2_ip6(&ip), IP6_UNICAST, core.netif);
        error = core.tcp_bind(pcb, any_family ? core.any_type : &ip, local.port);
        if (error == ERR_OK) pcb_ = core.tcp_listen_with_backlog_and_err(pcb, static_cast<u8_t>(backlog), &error);
        if (pcb_ == nullptr) {
            core.tcp_close(pcb);
            return;
        }
        announced_.max_segment = static_cast<uint16_t>(max_segment);
        core.tcp_ext_arg_set(pcb_, LWIP_CORE_EXT_ARG_CONNECTION, &announced_);
        core.tcp_arg(pcb_, this);
        core.tcp_accept(pcb_, on_accept);
    });
    if (!alive) return ENETDOWN;
    return error == ERR_OK ? 0 : error == ERR_USE ? EADDRINUSE : ENOBUFS;
}

ListenPoint::~ListenPoint() {
    if (pcb_ != nullptr)
        stack->enter([&] {
            stack->core().tcp_arg(pcb_, nullptr);
            stack->core().tcp_close(pcb_);
        });
}

/* Under the trap: nothing here may own anything across a call of lwIP's. */
err_t ListenPoint::on_accept(void *arg, tcp_pcb *pcb, err_t error) {
    auto *point = static_cast<ListenPoint *>(arg);
    if (point == nullptr || pcb == nullptr || error != ERR_OK || point->members.empty()) return ERR_VAL; // lwIP aborts it
    // Members take turns, but one whose queue is full is passed over while another has room.
    bool to_loopback = from_lwip(pcb->local_ip, 0).is_loopback(), full = true;
    Socket *listening = nullptr;
    for (size_t i = 0; i < point->members.size() && full; i++) {
        Socket *candidate = point->members[point->turn_++ % point->members.size()];
        const std::string &device = candidate->options.device;
        if (!device.empty() && (device == loopback_name) != to_loopback) continue; // another interface's
        full = candidate->listener->full();
        if (listening == nullptr || !full) listening = candidate;
    }
    if (listening == nullptr) return ERR_VAL;
    if (full) point->turn_++;
    auto *connection = new (std::nothrow)
        Socket(point->server, listening->family, listening->type, listening->protocol, listening->uid, State::pending);
    if (connection == nullptr) return ERR_MEM;
    point->server.add(*connection);
    connection->local = from_lwip(pcb->local_ip, pcb->local_port);
    connection->remote = from_lwip(pcb->remote_ip, pcb->remote_port);
    connection->options = listening->options;
    connection->backlog_delayed = full;
    listening->listener->enqueue(*connection);
    connection->tcp.adopt(point->stack.get(), pcb);
    if (full) point->stack->core().tcp_backlog_delayed(pcb);
    return ERR_OK;
}

/* ---- the listening socket ---- */

Listener::~Listener() {
    for (ListenPoint *point : points_) {
        std::erase(point->members, &owner_);
        if (point->members.empty()) std::erase_if(owner_.server.points, [&](auto &p) { return p.get() == point; });
    }
    for (Queue *queue : {&ready_, &deferred_})
        while (queue->first != nullptr) {
            Socket *connection = queue->first;
            unlink(*connection);
            connection->reset(ECONNRESET);
        }
}

int Listener::add(const std::shared_ptr<Stack> &stack) {
    auto &all = owner_.server.points;
    const Binding &binding = owner_.binding;
    auto found = std::find_if(all.begin(), all.end(), [&](auto &p) {
        return p->stack == stack && p->local == binding.local && p->v6_only == binding.v6_only;
    });
    if (found == all.end()) {
        auto point = std::make_unique<ListenPoint>(owner_.server, stack, binding.local, binding.v6_only);
        // Half-open connections; established ones wait in our queue.
        if (int error = point->open(static_cast<int>(std::clamp<size_t>(backlog_, 16, 255)), owner_.options.max_segment))
            return error;
        found = all.insert(all.end(), std::move(point));
    }
    (*found)->members.push_back(&owner_);
    points_.push_back(found->get());
    return 0;
}

bool Listener::listens_on(const Stack *stack) const {
    return std::any_of(points_.begin(), points_.end(), [&](ListenPoint *p) { return p->stack.get() == stack; });
}

void Listener::remove(const Stack *stack) {
    for (size_t i = 0; i < points_.size(); i++) {
        ListenPoint *point = points_[i];
        if (point->stack.get() != stack) continue;
        if (!stack->running()) point->forget();
        std::erase(point->members, &owner_);
        if (point->members.empty()) std::erase_if(owner_.server.points, [&](auto &p) { return p.get() == point; });
        points_.erase(points_.begin() + static_cast<ptrdiff_t>(i--));
    }
}

void Listener::set_backlog(int backlog) {
    backlog_ = backlog < 0 ? backlog_max : std::clamp<size_t>(static_cast<size_t>(backlog), 1, backlog_max);
}

void Listener::enqueue(Socket &connection) {
    connection.came_through = &owner_;
    if (connection.options.defer_accept > 0 && deferred_.count < backlog_max) {
        connection.deferred_until_us = owner_.server.now_us() + static_cast<uint64_t>(connection.options.defer_accept) * 1'000'000;
        deferred_.append(connection);
        owner_.server.expect_deferred();
        return;
    }
    ready_.append(connection);
    owner_.server.mark_dirty(owner_);
}

void Listener::undefer(Socket &connection) {
    deferred_.remove(connection);
    connection.deferred_until_us = 0;
    ready_.append(connection);
    owner_.server.mark_dirty(owner_);
}

bool Listener::undefer_late(uint64_t now_us) {
    for (Socket *connection = deferred_.first, *after; connection != nullptr; connection = after) {
        after = connection->next_pending;
        if (connection->deferred_until_us <= now_us) undefer(*connection);
    }
    return deferred_.first != nullptr;
}

void Listener::Queue::append(Socket &connection) {
    connection.next_pending = nullptr;
    (first == nullptr ? first : last->next_pending) = &connection;
    last = &connection;
    count++;
}

void Listener::Queue::remove(Socket &connection) {
    Socket *before = nullptr;
    for (Socket *s = first; s != nullptr; before = s, s = s->next_pending) {
        if (s != &connection) continue;
        (before == nullptr ? first : before->next_pending) = s->next_pending;
        if (last == s) last = before;
        count--;
        break;
    }
    connection.next_pending = nullptr;
}

void Listener::unlink(Socket &connection) {
    (connection.deferred_until_us != 0 ? deferred_ : ready_).remove(connection);
    connection.came_through = nullptr;
}

void Listener::top_up() {
    for (unsigned i = 0; ready_.first != nullptr && !blocked && !retrying; i++) {
        if (i == hand_overs_per_turn) {
            owner_.server.mark_dirty(owner_);
            return;
        }
        Socket &connection = *ready_.first;
        switch (int error = hand_over(connection)) {
        case 0:
            break;
        case EAGAIN:
            blocked = true;
            return;
        case ETOOMANYREFS: // counted per user, over all processes
        case ENFILE:
        case EMFILE:
        case ENOBUFS:
        case ENOMEM:
            owner_.server.count.record_retries++;
            owner_.server.retry_later(owner_);
            return;
        case EPIPE:
        case ECONNRESET:
            return; // the program is gone: EPOLLHUP will say so
        default:
            unlink(connection);
            connection.reset(error);
        }
    }
}

int Listener::hand_over(Socket &connection) {
    if (!connection.pair) {
        if (int error = connection.make_accepted_pair(owner_)) return error;
    }
    netcon_accept_record record{};
    record.magic = NETCON_ACCEPT_MAGIC;
    record.peer = connection.remote.to(connection.family);
    iovec part{&record, sizeof record};
    if (int error = send_message(owner_.pair.get(), &part, 1, connection.program.get())) return error;
    unlink(connection);
    if (connection.backlog_delayed) connection.tcp.accepted_from_backlog();
    connection.program.reset();
    owner_.server.count.accepted++;
    connection.start_pump();
    return 0;
}

} // namespace netcon::server
