/* server.hpp: the POSIX socket server: which networks there are, which sockets, and what is to be done in this batch.
 *
 * Possession is the permission: each request carries the program's descriptor, and the socket is found by the SO_COOKIE of that
 * very descriptor, which nobody can choose. Names and ids that a client sends are compared with it and never trusted.
 *
 * Networks come and go while sockets live. A socket joins a stack when it binds an address, listens or connects: the request's
 * network (else the path's default) if there is one, else the stack that has the address or a route to the destination. A socket
 * that listens on a wildcard address with no network named listens on every stack, later ones included.
 */
#pragma once

#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "datagram.hpp"
#include "descriptor.hpp"
#include "listener.hpp"
#include "netcon/policy.h"
#include "network_sets.hpp"
#include "ports.hpp"
#include "questions.hpp"
#include "rpc_server.hpp"
#include "socket.hpp"
#include "stack.hpp"
#include "tcp_end.hpp"

namespace netcon::server {

struct Counters {
    uint64_t bytes_in = 0;  // from the network to programs
    uint64_t bytes_out = 0; // from programs to the network
    uint64_t accepted = 0, connects = 0, connect_failures = 0, resets = 0, record_retries = 0, forged = 0, refused_sockets = 0;
};

constexpr char loopback_name[] = "lo";
constexpr uint32_t loopback_index = 1;
constexpr uint32_t loopback_mtu = 65536;

class Server final : public RequestHandler {
  public:
    /* Reactor thread only, as everything here. */
    Server(const netcon_reactor_api *reactor, uint64_t service, uint64_t epoch);
    ~Server();
    Server(const Server &) = delete;

    RpcServer &rpc() { return rpc_; }
    Questions &questions() { return questions_; }
    void add_network(uint64_t network, std::shared_ptr<Stack> stack);
    void remove_network(uint64_t network);
    std::vector<std::pair<std::string, uint64_t>> stats() const;
    /* Applies to what is asked from now on. The table is valid (policy.h). */
    void set_policy(const netcon_policy &policy);

    void handle(Request &request, Reply &reply) override;

    /* -- for sockets -- */
    void mark_dirty(Socket &socket);
    void add(Socket &socket);
    /* It will be freed at the end of the batch; nothing calls it any more. */
    void retire(Socket &socket);
    void identify(Socket &socket, uint64_t id);
    void forget_id(Socket &socket);
    void keep_failed(Socket &socket);
    /* Why a connection ended, where the kernel's ECONNRESET on P is not the truth: for whoever asks for SO_ERROR afterwards. */
    void remember_end(uint64_t id, int error);
    /* The options of a connection whose two directions have ended, for a program that still holds its P and asks for them. */
    void remember_options(uint64_t id, const Options &options);
    Options *spent_options(uint64_t id); // null: nothing is remembered
    void retry_later(Socket &listener);
    void expect_orphan();
    void expect_deferred();
    uint64_t now_us() const { return reactor->now_us(reactor->reactor); }
    /* May a socket keep this descriptor? Its number tells how full the table is; some room is left for all else. */
    bool may_keep(const Descriptor &descriptor) const { return static_cast<size_t>(descriptor.get()) < sockets_max_; }
    /* A request may overtake the events of what the program did before it. These look whether the program has closed the
     * sockets that have this port, or those that listen on it. */
    void notice_closed(uint16_t port);
    void notice_closed_listeners(uint16_t port);
    uint64_t next_serial() { return ++serial_; }
    uint64_t last_serial() const { return serial_; }
    uint32_t tag() const { return static_cast<uint32_t>(epoch_); }
    uint64_t service() const { return service_; }
    std::shared_ptr<Stack> stack_of(uint64_t network) const;
    uint64_t network_of(const Stack *stack) const;
    /* The stack that has this local address; with `network` 0 any. */
    std::shared_ptr<Stack> stack_with(uint64_t network, const Address &local) const;
    /* The stack that can reach `remote`, and the address from which it would. */
    std::shared_ptr<Stack> stack_towards(uint64_t network, const Address &remote, Address &source) const;
    /* -- policy (policy.cpp) -- */
    /* Who has a bind or connect to `to`? 0: a network, `network` perhaps changed to the one that a line names; NETCON_RPC_TO_HOST,
     * or the errno of a refusal. `flags`: of the request. */
    int decide(int direction, int protocol, const Address &to, uint16_t flags, uint64_t &network) const;
    /* What no network carries: NETCON_RPC_TO_HOST if that is the host's, or `error`. What a line gives to a network never is. */
    int uncarried(int direction, int protocol, const Address &to, int error) const;
    /* -- the host's name servers, which the service is for programs (name_service.cpp) -- */
    enum class NameService {
        no,
        host,           // one of the host's, which policy leaves to it
        ours,           // the service answers
        unless_program, // so it does, if no program serves names there
    };
    NameService name_service(int protocol, const Address &to, uint16_t flags) const;
    bool has_listener(const Address &at) const;
    void set_name_servers(std::vector<Address> addresses) { name_servers_ = std::move(addresses); }
    bool raw_is_allowed() const { return policy_.raw != 0; }
    /* Whose loopback is the virtual one: that of the network given, or of the one that was joined first. */
    uint64_t loopback_network(uint64_t network) const;
    bool loopback_is_virtual() const;
    /* What a loopback address, or an interface that the socket is bound to, has to do with stays inside this host. */
    static bool may_cross(const Stack &stack, const std::string &device, const Address &from, const Address &to);
    const std::map<uint64_t, std::shared_ptr<Stack>> &networks() const { return networks_; }
    /* Interfaces: each network has an index, from 2 on, for the server's life; its name is its stack's. 0: no such. */
    uint32_t interface_of(uint64_t network) const;
    uint64_t network_of_interface(uint32_t index) const;
    uint64_t network_named(const std::string &name) const;
    /* For each socket, a user id pays. */
    bool may_have_another(uid_t uid);
    void enter_user(uid_t uid);
    void leave_user(uid_t uid);
    void schedule_flush();
    /* SIOCGIF*: the interfaces of the networks, not of the host. */
    int interface_control(uint32_t request, const uint8_t *data, uint32_t length, Reply &reply) const;

    const netcon_reactor_api *reactor;
    Closer closer;
    ChunkPool chunks;
    NetworkSets sets; // before the tables that ask it
    PortTable ports{sets};
    Counters count;
    std::vector<std::unique_ptr<ListenPoint>> points;
    Datagrams datagrams;

  private:
    struct FlushTask {
        Server *server;
    };
    static void on_flush(void *context);
    static void on_retry(void *context);
    static void on_sweep(void *context);
    static void on_deferred(void *context);
    void flush();
    void free_retired();
    void create_socket(Request &request, Reply &reply);
    Socket *new_socket(const Caller &caller, uint16_t family, State state);
    int answer(Socket &socket, Request &request, Descriptor &program, Reply &reply);
    void stack_failed(Stack *stack);

    std::vector<Address> name_servers_; // of the host
    netcon_policy policy_;
    uint64_t service_, epoch_, serial_;
    RpcServer rpc_;
    Questions questions_{rpc_};
    std::map<uint64_t, std::shared_ptr<Stack>> networks_;
    std::map<uint64_t, uint64_t> failure_ids_; // of the stacks' on_failure
    std::map<uint64_t, uint32_t> interfaces_;  // never forgotten: an index is not given twice
    void interfaces(Request &request, Reply &reply) const;
    std::unordered_map<uint64_t, Socket *> by_id_;
    std::unordered_map<uid_t, size_t> sockets_of_user_;
    size_t sockets_max_;
    Socket *sockets_ = nullptr;
    size_t socket_count_ = 0;
    Socket *dirty_first_ = nullptr, *dirty_last_ = nullptr;
    Socket *retired_ = nullptr;
    std::vector<uint64_t> failed_; // ids, a ring of the latest
    size_t failed_at_ = 0;
    struct End {
        uint64_t id;
        int error;
    };
    std::vector<End> ends_; // a ring of the latest
    size_t ends_at_ = 0;
    struct Spent {
        uint64_t id = 0;
        Options options;
    };
    std::vector<Spent> spent_; // a ring of the latest
    size_t spent_at_ = 0;
    std::vector<uint64_t> retrying_;
    FlushTask *flush_task_ = nullptr;
    netcon_timer *retry_timer_ = nullptr, *sweep_timer_ = nullptr, *deferred_timer_ = nullptr;
    bool retry_armed_ = false, sweep_armed_ = false, deferred_armed_ = false;
};

} // namespace netcon::server
