/* datagram.hpp: UDP sockets, ICMP ("ping") sockets, raw ICMP sockets.
 *
 * Theory of operation. The pair is of type SOCK_SEQPACKET, one message is one datagram, its form depends on the socket's mode
 * (socket_rpc.h, "datagrams"). There is no queue of ours in either direction:
 *
 *   out   S is readable -> the message is read -> one of the stacks gets it at once (send). A stack whose outbox is crowded stops
 * the reading, so that P's send buffer fills and the program blocks or sees EAGAIN, as on a kernel socket. in    lwIP hands a
 * packet to `arrive` -> the sockets that Linux would choose are found (receivers) -> sendmsg on S, straight from lwIP's buffers.
 * S's send buffer is the program's SO_RCVBUF: what does not fit is dropped and counted.
 *
 * UDP to an address of the same stack does not go through lwIP: `send` calls `deliver`.
 *
 * A socket bound to an address is on the network that has it, one connected on the network of its peer; any other is on all
 * networks, unless SO_BINDTODEVICE, or the network of the request that made it, narrows that.
 */
#pragma once

#include <sys/uio.h>

#include <cerrno>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "address.hpp"
#include "descriptor.hpp"
#include "options.hpp"
#include "ports.hpp"
#include "questions.hpp"
#include "rpc_server.hpp"
#include "stack.hpp"

namespace netcon::server {

class Datagrams;
class Server;

/* A datagram on its way to programs. */
struct Packet {
    uint64_t network;
    Address source, destination; // with ports (0 but for UDP)
    uint8_t ttl, tos;
    bool to_all; // a group, or a broadcast
    const iovec *parts;
    size_t count;
};

constexpr size_t packet_parts_max = 320; // more than a reassembled packet has

class DatagramSocket {
  public:
    enum class Kind { udp, ping, raw };

    DatagramSocket(Datagrams &owner, Kind kind, const netcon_rpc_request &header, uint64_t network, uid_t uid);
    DatagramSocket(const DatagramSocket &) = delete;
    int take_pair(Descriptor service_end, uint64_t id);
    /* Is this the other end of our pair? Its cookie has been looked at already; this excludes a pair that was registered under it.
     */
    bool is_program_end(int fd) const;

    /* -- requests: 0 or the errno that Linux would give -- */
    int bind(const netcon_address &wanted, uint64_t on_network, uint16_t flags);
    int connect(const netcon_address &wanted, uint64_t on_network, uint16_t flags, int program);
    int send_to(const uint8_t *message, size_t length, uint64_t on_network, uint16_t flags, int program, Reply &reply);
    int shutdown(int how) const { return how < SHUT_RD || how > SHUT_RDWR ? EINVAL : connected ? 0 : ENOTCONN; }
    int local_name(Reply &reply) const;
    int peer_name(Reply &reply) const;
    int set_option(int level, int name, const uint8_t *value, uint32_t length, int program);
    int get_option(int level, int name, uint32_t capacity, int program, Reply &reply);
    int control(uint32_t request, const uint8_t *data, uint32_t length, Reply &reply) const;

    /* -- work -- */
    /* What the program has written. */
    void collect(uint32_t events);
    /* What was written before a request counts before it: a kernel's calls are in order. */
    void collect_before_a_request();
    /* Under the trap, too: nothing here owns across it, or throws. */
    void deliver(const Packet &packet);
    /* An ICMP error about a connection of ours: 0 or an errno. */
    void fail(int error);
    /* Does this packet's addressing fit? How well (Linux's compute_score), or -1. */
    int score(const Packet &packet) const;
    void want_input(bool want);

    Datagrams &owner;
    const Kind kind;
    const uint16_t family, type, protocol;
    const uid_t uid;
    uint64_t id = 0, serial = 0;
    Descriptor pair;
    Options options;
    DatagramOptions datagram;
    Binding binding;
    Address local, remote; // remote: while connected
    uint64_t network;      // 0: all
    bool connected = false, bound = false, retired = false, waiting = false;
    uint64_t dropped = 0;

  private:
    struct Membership {
        uint64_t network;
        Address group;
    };
    struct Outgoing {
        Address to, source;
        uint64_t network = 0;
        int ttl = -1, tos = -1;
        uint16_t flags = 0; // of the request
        bool to_names = false;
        uint8_t *data = nullptr;
        size_t length = 0;
    };
    friend class Datagrams;

    int policy_protocol() const;
    int claim(const Address &at, uint64_t on_network);
    void disconnect();
    uint64_t narrowed(uint64_t on_network) const;
    int mode() const;
    void change_mode(int before, int program);
    uint8_t ancillary(bool v4) const;
    netcon_datagram_header head(const Packet &packet) const;
    bool put(iovec *parts, size_t count);
    int take_error(int program);
    int parse(const uint8_t *message, size_t length, Outgoing &out) const;
    int send(Outgoing &out);
    int choose_stack(Outgoing &out, std::shared_ptr<Stack> &stack) const;
    /* name_service.cpp: what the service answers in the place of the host's name servers. */
    int choose_names(Outgoing &out, std::shared_ptr<Stack> &stack) const;
    void ask_names(const Outgoing &out, uint64_t network);
    int prepare_icmp(Outgoing &out) const;
    static void on_pair(void *context, int fd, uint32_t events);
    int membership(bool join, const Address &group, uint64_t on_network);
    int group_option(int level, int name, const uint8_t *value, uint32_t length, bool &known);
    int multicast_interface(int level, const uint8_t *value, uint32_t length);
    void leave_all();

    uint64_t default_network_;
    int error_ = 0;
    bool to_names_ = false; // connected to a name server that the service is
    bool virtual_ = false;  // connected to a loopback address that the run's policy wants to be virtual
    bool nudged_ = false, reading_ = false, ended_ = false;
    std::vector<Membership> memberships_;
};

class Datagrams {
  public:
    explicit Datagrams(Server &server);
    ~Datagrams();

    /* SOCKET of a type that is not a stream's. */
    int create(Request &request);
    DatagramSocket *find(uint64_t id) const;
    int answer(DatagramSocket &socket, Request &request, Reply &reply);
    void add_network(uint64_t network, const std::shared_ptr<Stack> &stack);
    void remove_network(uint64_t network);
    void retire(DatagramSocket &socket);
    void free_retired() { retired_.clear(); }
    void close();

    /* UDP to programs. False: no socket wants it. */
    bool deliver(const Packet &packet);
    /* Does a program wait for datagrams there, on its loopback? */
    bool has_receiver(const Address &at) const;
    void answer_query(const Asker &asker, const std::string &data);
    void index(DatagramSocket &socket);
    void unindex(DatagramSocket &socket);
    /* Is `group` wanted on `network` by any socket (but `except`)? */
    bool group_is_used(uint64_t network, const Address &group, const DatagramSocket *except) const;
    void room();
    /* As Server::notice_closed. */
    void notice_closed(uint16_t port);
    /* Sockets joined or left: whoever announces groups looks again (`groups_changes`). */
    void groups_changed() { groups_changes++; }
    uint64_t groups_changes = 0;

    size_t count() const { return by_id_.size(); }
    Server &server;
    PortTable udp_ports, ping_ports;
    uint64_t received = 0, sent = 0, dropped = 0, malformed = 0, unsendable = 0;
    std::unique_ptr<uint8_t[]> buffer; // of the message at hand, written by a program

  private:
    static bool on_packet(void *watch, pbuf *packet);
    bool arrive_udp(Stack &stack, Packet &packet, pbuf *data);
    void arrive_icmp(Stack &stack, Packet &packet, pbuf *data, size_t head, bool v6);
    void icmp_error(uint64_t network, const uint8_t *message, size_t length, bool v6);

    struct Watch {
        Datagrams *owner;
        Stack *stack;
        uint64_t network;
    };
    std::unordered_map<uint64_t, std::unique_ptr<Watch>> watches_;
    std::unordered_map<uint64_t, std::unique_ptr<DatagramSocket>> by_id_;
    std::unordered_map<uint16_t, std::vector<DatagramSocket *>> by_port_; // UDP
    std::vector<DatagramSocket *> icmp_;                                  // ping and raw
    std::vector<std::unique_ptr<DatagramSocket>> retired_;
};

} // namespace netcon::server
