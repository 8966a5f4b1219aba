/* listener.hpp: listening sockets and the connections that wait to be accepted.
 *
 * A *listen point* is one listening PCB of one stack: an address and port. Several sockets with SO_REUSEPORT share one, for
 * lwIP has no second PCB for the same place; they take turns. A wildcard socket that belongs to no network has a point in
 * each stack.
 *
 * A connection that lwIP has accepted waits in the listener's queue, without a pair: it costs a PCB. From there the listener
 * keeps its own pair topped up with a few dozen *records* (socket_rpc.h), each with the program's end P of a new pair. The
 * program takes a record with recvmsg, without asking us; edge-triggered EPOLLOUT tells when it did. A full queue holds further
 * connections back in lwIP's backlog, which then ignores SYNs, as Linux does. With TCP_DEFER_ACCEPT a connection waits apart until
 * something has arrived, or until that time is over.
 */
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "address.hpp"
#include "stack.hpp"

namespace netcon::server {

class Server;
class Socket;

class ListenPoint {
  public:
    ListenPoint(Server &server, std::shared_ptr<Stack> stack, const Address &local, bool v6_only)
        : server(server), stack(std::move(stack)), local(local), v6_only(v6_only) {}
    ~ListenPoint();

    int open(int backlog, int max_segment);
    /* The stack has failed: the PCB is gone. */
    void forget() { pcb_ = nullptr; }

    Server &server;
    std::shared_ptr<Stack> stack;
    Address local;
    bool v6_only;
    std::vector<Socket *> members;

  private:
    static err_t on_accept(void *arg, tcp_pcb *pcb, err_t error);
    tcp_pcb *pcb_ = nullptr;
    lwip_core_connection announced_{}; // of connections that nobody has accepted yet: max_segment
    size_t turn_ = 0;
};

class Listener {
  public:
    explicit Listener(Socket &owner) : owner_(owner) {}
    ~Listener();
    Listener(const Listener &) = delete;

    /* Listen on this stack. 0 or an errno. */
    int add(const std::shared_ptr<Stack> &stack);
    void remove(const Stack *stack);
    bool listens_on(const Stack *stack) const;
    void set_backlog(int backlog);

    /* Under the trap: link a new connection. */
    void enqueue(Socket &connection);
    /* A connection that waits is gone. */
    void unlink(Socket &connection);
    /* It has something to read, or has waited long enough for it (TCP_DEFER_ACCEPT). */
    void undefer(Socket &connection);
    /* Those that have. Whether others are left. */
    bool undefer_late(uint64_t now_us);
    bool full() const { return ready_.count >= backlog_; }
    /* Hand over what the pair takes. */
    void top_up();

    bool retrying = false; // in the server's list for another try
    bool blocked = false;  // the pair takes no record now; EPOLLOUT will tell

  private:
    /* 0, or the errno because of which it must wait. */
    int hand_over(Socket &connection);
    Socket &owner_;
    std::vector<ListenPoint *> points_;
    struct Queue { // linked through next_pending
        Socket *first = nullptr, *last = nullptr;
        size_t count = 0;
        void append(Socket &connection);
        void remove(Socket &connection);
    } ready_, deferred_;
    size_t backlog_ = 1;
};

} // namespace netcon::server
