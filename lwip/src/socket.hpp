/* socket.hpp: one program socket, from its first request to the last acknowledged byte.
 *
 * The program holds P, the service S, the two ends of an AF_UNIX pair (intercept.md). States:
 *
 *    fresh ── bind ── bound ── listen ── listening ── shutdown ── failed
 *      └───────────────┴── connect ── connecting ──┬── connected ── P closed ── closing ── gone
 *                                                  └── failed (may connect or listen again, on a new pair)
 *    pending (came through a listener; no pair yet) ── handed over ── connected
 *
 * socket.cpp holds the transitions that programs ask for, pump.cpp what moves bytes in `connected` and `closing`,
 * listener.cpp what `listening` and `pending` do, options.cpp getsockopt, setsockopt and ioctl.
 *
 * Events (epoll on S, callbacks of lwIP) only set marks and link the socket into the server's list of dirty sockets; `turn`
 * does the work, once per batch of the reactor, so that many frames become one write and one wake-up of the program.
 */
#pragma once

#include <memory>

#include "address.hpp"
#include "descriptor.hpp"
#include "listener.hpp"
#include "names.hpp"
#include "netcon/socket_rpc.h"
#include "options.hpp"
#include "ports.hpp"
#include "rpc_server.hpp"
#include "tcp_end.hpp"

namespace netcon::server {

class Server;

enum class State { fresh, bound, listening, connecting, connected, closing, failed, pending };

class Socket {
  public:
    Socket(Server &server, uint16_t family, uint16_t type, uint16_t protocol, uid_t uid, State state);
    ~Socket();
    Socket(const Socket &) = delete;

    /* Take S, the service's end of the pair whose program end has the cookie `id`, and watch it. 0 or an errno. */
    int take_pair(Descriptor service_end, uint64_t id);

    /* -- requests; each returns 0 or the errno that Linux would give -- */
    int bind(const netcon_address &address, uint64_t network, uint16_t flags);
    int listen(int backlog, uint64_t network, Descriptor &program, Reply &reply);
    int connect(const netcon_address &address, uint64_t network, uint16_t flags, bool waits, Descriptor &program, Reply &reply);
    int shutdown(int how);
    int local_name(Reply &reply) const;
    int peer_name(Reply &reply) const;
    int set_option(int level, int name, const uint8_t *value, uint32_t length);
    int get_option(int level, int name, uint32_t capacity, Reply &reply) const;
    int control(uint32_t request, const uint8_t *data, uint32_t length, Reply &reply) const;

    /* -- work -- */
    void turn();
    /* The program may have closed it already, though the event has not come to us: look. */
    void notice_hang_up();
    /* Reset both sides: the program sees ECONNRESET (or the failure of its connect, or the end of its listener). */
    void reset(int error);
    /* The stack is not to be touched again. */
    void stack_failed(const Stack *stack, int error);
    /* A connection that came through `listening`: make its pair. 0 or an errno; P is in `program` until it has been sent. */
    int make_accepted_pair(const Socket &listening);
    void start_pump();
    /* No program has it any more, but something is still to be sent. */
    bool orphaned() const { return state == State::closing || (state == State::connected && hung_up_); }
    /* Give S up; the program sees a reset if something in it is unread. */
    void leave_pair();
    void close_pair(); // the same, but the socket is still found by its id
    /* A wildcard listener meets a new network, or a bound one its new stack. */
    void join(uint64_t network, const std::shared_ptr<Stack> &stack);

    Server &server;
    const uint16_t family, type, protocol;
    const uid_t uid;
    State state;
    uint64_t id = 0;
    Descriptor pair;    // S
    Descriptor program; // P: while connecting (to restore its buffer), and until a record has been sent
    Options options;
    Binding binding;
    Address local, remote; // of the connection
    uint64_t network = 0;  // 0: not decided, or all
    TcpEnd tcp;
    std::unique_ptr<Listener> listener;
    uint64_t progress_seen = 0; // by the sweep for orphans

    /* links, owned by the server */
    Socket *next = nullptr, **link = nullptr;
    Socket *next_dirty = nullptr;
    bool dirty = false, retired = false, counted = false;
    /* of the listener's queue */
    Socket *next_pending = nullptr;
    bool backlog_delayed = false;
    uint64_t deferred_until_us = 0; // 0: not deferred
    Socket *came_through = nullptr;

  private:
    static void on_pair(void *context, int fd, uint32_t events);
    static void notify(void *context);

    int claim_port();
    int connect_to_names(const Address &to, uint64_t on_network, Reply &reply); // name_service.cpp
    void apply_options();
    void scope_addresses();
    int fill_program(Descriptor &program);
    void drain_pair();
    void drain_filler();
    int name_pair(char kind, const Address &own, int error);
    int make_program_end(bool named);
    bool was_accepted() const;
    int new_pair(Reply &reply, Descriptor &program_end);
    void complete_connect();
    void fail_connect(int error);
    void shut_listener();

    /* pump.cpp */
    void pump();
    void deliver();
    void collect();
    void hang_up();
    void peer_reset();
    void finish_closing();
    void want_output(bool want);

    Address bound_to_; // what bind() asked for, for a retry after a failed connect
    bool explicitly_bound_ = false;
    bool connect_reported_ = false;
    bool came_by_accept_ = false;
    bool rights_refused_ = false; // S takes no descriptors from the program: closing it cannot block
    int program_send_buffer_ = 0;
    size_t filler_ = 0; // bytes in S's queue that keep P unwritable while connecting

    bool stale_ = false; // the first byte in S's queue has been forwarded already
    bool readable_ = false, end_of_stream_ = false, hung_up_ = false, unread_by_program_ = false;
    bool pair_drained_ = false; // at the end of the stream: nothing but the stale byte is left
    bool wants_output_ = false, output_blocked_ = false;
    bool fin_sent_ = false, end_delivered_ = false;
};

} // namespace netcon::server
