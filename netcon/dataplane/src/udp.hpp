/* udp.hpp: the wire's UDP sockets, IPv4 and IPv6.
 *
 * Theory of operation
 *
 * In: a readable socket is read once a batch, up to 64 datagrams with one recvmmsg, never more than surely fit into the up
 * ring; when none fits, the socket is not watched for input until there is room, and the kernel's buffer fills behind it.
 * Out: a run of datagrams for one socket goes straight from the down ring with one sendmmsg. A kernel that takes no more
 * (EAGAIN) stops the draining until EPOLLOUT: a busy network pushes back on the engine. That takes milliseconds; a socket
 * that stays blocked for longer is stuck (its neighbour does not answer, its device stands still), and must not hold up the
 * others: until EPOLLOUT, what is for it is counted and dropped. A datagram that the kernel refuses for another reason is
 * counted and gone, as on any UDP socket.
 *
 * Don't-fragment is cleared, because whole packets of up to 10 024 bytes rely on IP fragmentation (vl1 §3.4). A datagram for
 * no socket, or one that is closed, leaves from every socket of its family (vl1 §5.13).
 */
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <map>

#include "engine_rings.hpp"

namespace netcon {

class UdpSockets final : public RingPort {
  public:
    explicit UdpSockets(EngineRings &rings);
    ~UdpSockets() override;

    /* Open a socket bound to `ip` (4 or 16 bytes) and `*port`, which becomes what the kernel gave, and to the interface
     * `device` unless that is "". Its number (1 and up) or -errno. Reactor thread, like all here. */
    int open(const uint8_t *ip, size_t ip_length, uint32_t scope, const char *device, uint16_t *port);
    void close(int number);
    /* Send what still can be sent, and close all. */
    void close_all();

    void drain() override;
    void up_room() override;

    static constexpr int batch = 64;
    static constexpr int buffer_bytes = 1 << 20;
    static constexpr uint64_t stuck_us = 100'000;

  private:
    struct Socket {
        UdpSockets *owner;
        int number;
        Fd fd;
        int family;
        uint32_t scope;       /* IPv6: of the address it is bound to; link-local destinations need one */
        bool paused = false;  /* the up ring is full */
        bool blocked = false; /* the kernel's send buffer is full; draining waits for it, or it is stuck */
        Counted<&LiveObjects::sockets> counted;
    };
    union Address {
        sockaddr any;
        sockaddr_in v4;
        sockaddr_in6 v6;
    };
    /* One message's address, buffer and ttl, as sendmmsg and recvmmsg want them. */
    struct Message {
        Address address;
        iovec buffer;
        alignas(cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int))];
    };

    static socklen_t make_address(Address &address, const uint8_t *ip, size_t ip_length, uint16_t port, uint32_t scope);
    void ready(Socket &socket, uint32_t events);
    void receive(Socket &socket);
    void rewatch(Socket &socket);
    void block(Socket &socket);
    void unblock();
    void fill(Socket &socket, Record *record, int index);
    bool send_run(Socket &socket, Record *first);
    void drop_run(Record *first);
    bool send_from_all(Record *record);

    EngineRings &rings_;
    std::map<int, std::unique_ptr<Socket>> sockets_;
    int last_number_ = 0;
    Socket *waiting_ = nullptr; /* draining waits for this one */
    netcon_timer *stuck_timer_; /* until then */
    int sent_from_ = 0;         /* of the oldest record, when it leaves from every socket: the last that is done */
    Message messages_[batch];
    mmsghdr headers_[batch];
    std::unique_ptr<uint8_t[]> buffers_;
};

} // namespace netcon
