/* rpc_server.hpp: receives socket RPC requests (socket_rpc.h) and sends the replies.
 *
 * One SOCK_SEQPACKET listening socket per path. A client is a connection to it; a message on it is a request, with at most a
 * subject and a reply end as SCM_RIGHTS. Everything that arrives is hostile until checked:
 *
 *   - it is received with room for as many descriptors as one message can carry, so that none is closed inside recvmsg;
 *   - descriptors that the request does not need, or that are not what they should be, go to the Closer;
 *   - a client has a turn of a few dozen requests, then the others have theirs;
 *   - a reply is sent without waiting, and dropped when it cannot be sent;
 *   - connections are counted per process and per user, and the table of descriptors can be full: then new clients are
 *     turned away with the descriptor that is kept in reserve for this, and the loop does not spin.
 *
 * Who the caller is, is the kernel's word (SCM_CREDENTIALS), taken per message: a connection may be inherited.
 */
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "descriptor.hpp"
#include "netcon/reactor.h"
#include "netcon/socket_rpc.h"

namespace netcon::server {

struct Caller {
    pid_t pid = 0;
    uid_t uid = 0;
};

/* A request whose form is right. `subject` is unverified: if nobody takes it, it goes to the Closer. */
struct Request {
    const netcon_rpc_request *header;
    uint64_t network; // the header's, or the connection's
    uint64_t path_network;
    uint64_t *client_network; // what requests without one of their own get on this connection; HELLO may set it
    Caller caller;
    Descriptor subject;
    Descriptor reply_end; // none if the request is posted; who takes it answers later (RpcServer::answer)
};

struct Reply {
    int error = 0;
    int value = 0;
    uint32_t length = 0;
    alignas(8) uint8_t data[NETCON_RPC_DATA_MAX];
    Descriptor descriptor; // sent along, then closed
};

class RequestHandler {
  public:
    virtual void handle(Request &request, Reply &reply) = 0;

  protected:
    ~RequestHandler() = default;
};

struct RpcCounters {
    uint64_t requests = 0;     // well-formed, handled
    uint64_t bad_requests = 0; // malformed, or with the wrong descriptors
    uint64_t refused = 0;      // clients turned away: too many connections, or no descriptor left
    uint64_t lost_replies = 0; // could not be sent without waiting
};

class RpcServer {
  public:
    RpcServer(const netcon_reactor_api *reactor, RequestHandler &handler, Closer &closer);
    ~RpcServer();
    RpcServer(const RpcServer &) = delete;

    /* Reactor thread only. 0 or an errno. */
    int listen(const std::string &path, uint64_t network, mode_t mode);
    bool unlisten(const std::string &path);

    /* Every reply tells it: bits of netcon_rpc_policy. */
    void set_policy(uint16_t bits) { policy_ = bits; }
    /* Sends the one reply to a request, and closes its reply end. `data`: in the place of the reply's own, of any length. */
    void answer(Descriptor reply_end, uint16_t operation, Reply &reply, const std::string *data = nullptr);

    const RpcCounters &counters() const { return counters_; }
    size_t clients() const { return clients_.size(); }

  private:
    struct Path {
        RpcServer *server;
        std::string name;
        uint64_t network;
        Descriptor fd;
        dev_t device;
        ino_t inode;
    };
    struct Client {
        RpcServer *server;
        Path *path;
        uint64_t network; // the path's default, or what HELLO named
        Descriptor fd;
        Caller peer;
    };

    static void on_path(void *context, int fd, uint32_t events);
    static void on_pause_over(void *context);
    static void on_client(void *context, int fd, uint32_t events);
    void accept(Path &path);
    bool turn_away(Path &path);
    bool within_budget(const Caller &peer) const;
    /* False: the client is gone, or must go. */
    bool receive_one(Client &client, bool &received);
    bool dispatch(Client &client, size_t length, bool truncated, std::vector<int> &fds, Caller caller);
    void send_reply(int fd, uint16_t operation, Reply &reply, const std::string *data);
    void drop(Client &client);

    const netcon_reactor_api *reactor_;
    RequestHandler &handler_;
    Closer &closer_;
    RpcCounters counters_;
    uint16_t policy_ = 0;
    Descriptor reserve_;
    netcon_timer *pause_ = nullptr; // of all paths, while there is no descriptor even to turn a client away
    std::vector<std::unique_ptr<Path>> paths_;
    std::unordered_map<int, std::unique_ptr<Client>> clients_;
    std::unordered_map<pid_t, unsigned> clients_of_process_;
    std::unordered_map<uid_t, unsigned> clients_of_user_;
    std::vector<int> fds_; // of the message at hand
    alignas(8) uint8_t message_[sizeof(netcon_rpc_request) + NETCON_RPC_SENDTO_MAX];
};

} // namespace netcon::server
