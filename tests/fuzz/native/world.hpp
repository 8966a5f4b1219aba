/* world.hpp: a reactor turned by hand, a stack and a socket server, for the targets that need them, and a client of socket RPC.
 *
 * Theory of operation. Time is virtual. The stack and the reactor live as long as the process, for libFuzzer cannot forget a loaded
 * library; each input gets a socket server of its own, whose end resets the connections. What else an input leaves in lwIP
 * (neighbours, fragments) the following ones meet.
 */
#pragma once
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "../../../netcon/dataplane/src/reactor.hpp"
#include "server.hpp"

namespace fuzz {

/* Takes an input apart. At its end everything is 0. */
struct Bytes {
    const uint8_t *at, *end;
    explicit operator bool() const { return at < end; }
    uint8_t u8() { return at < end ? *at++ : 0; }
    uint16_t u16() {
        unsigned high = u8();
        return static_cast<uint16_t>(high << 8 | u8());
    }
    std::vector<uint8_t> take(size_t most) {
        size_t count = std::min(most, static_cast<size_t>(end - at));
        std::vector<uint8_t> taken(at, at + count);
        at += count;
        return taken;
    }
};

inline void must(bool fine) {
    if (!fine) abort();
}

constexpr uint64_t network = 0xce350aeff9cafe01;
constexpr uint8_t our_mac[6] = {2, 0, 0, 0, 0, 1}, peer_mac[6] = {2, 0, 0, 0, 0, 2};
constexpr uint8_t our_ip4[4] = {10, 1, 0, 1}, peer_ip4[4] = {10, 1, 0, 2};

struct World {
    netcon_reactor reactor{true};
    uint64_t now = 1'000'000;
    std::shared_ptr<netcon::Stack> stack;
    netcon_ethernet_end peer{};
    uint32_t last_sequence = 0; /* behind the latest segment of the stack */
    uint16_t last_port = 0;     /* from which it came */

    World() {
        must(reactor.opened() == 0);
        netcon::StackConfig config;
        std::memcpy(config.mac.data(), our_mac, 6);
        config.name = "ztfuzz";
        config.seed = 1;
        config.memory_limit = size_t{64} << 20;
        stack = netcon::Stack::create(reactor.api(), config);
        peer = {NETCON_ETHERNET_END_ABI, sizeof peer, this, on_frames, [](void *) {}, [](void *, const netcon_ethernet_end *) {}};
        stack->end()->attach(stack->end()->self, &peer);
        ip_addr_t ip{};
        ip.type = IPADDR_TYPE_V4;
        std::memcpy(&ip.u_addr.ip4.addr, our_ip4, 4);
        must(stack->add_address(ip, 24) == ERR_OK);
        ip_addr_t ip6{};
        ip6.type = IPADDR_TYPE_V6;
        const uint8_t six[16] = {0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
        std::memcpy(ip6.u_addr.ip6.addr, six, 16);
        must(stack->add_address(ip6, 64) == ERR_OK);
        turn(5'000'000);
    }

    void turn(uint64_t more_us = 0) {
        now += more_us;
        reactor.turn(now);
    }
    void settle() {
        turn(1'000'000);
        must(stack->running()); /* an assertion of lwIP's ended it */
    }
    void receive(std::vector<uint8_t> &frame) {
        netcon_frame one{frame.data(), static_cast<uint32_t>(frame.size())};
        stack->end()->deliver(stack->end()->self, &one, 1);
    }
    static size_t on_frames(void *self, const netcon_frame *frames, size_t count) {
        auto *world = static_cast<World *>(self);
        for (size_t i = 0; i < count; i++) {
            const uint8_t *data = frames[i].data;
            must(frames[i].length >= 14 && frames[i].length <= 14 + 65535);
            if (frames[i].length >= 54 && data[12] == 8 && data[13] == 0 && data[23] == 6) {
                uint32_t sequence;
                std::memcpy(&sequence, data + 38, 4);
                unsigned payload = (data[16] << 8 | data[17]) - 20u - (data[46] >> 4) * 4u;
                world->last_sequence = __builtin_bswap32(sequence) + payload + ((data[47] & 3) != 0);
                world->last_port = static_cast<uint16_t>(data[34] << 8 | data[35]);
            }
        }
        return count;
    }
};

inline World &world() {
    static World *one = new World; /* for ever: there is no order of destruction to think of */
    return *one;
}

/* A socket server and a program that speaks to it. */
struct Program {
    World &w = world();
    std::unique_ptr<netcon::server::Server> server = std::make_unique<netcon::server::Server>(w.reactor.api(), 7, 9);
    std::string path = std::string("/tmp/netcon-fuzz-") + std::to_string(getpid());
    int rpc = -1;
    struct Socket {
        int descriptor; /* P */
        uint64_t id;
        uint16_t family, type, protocol;
    };
    std::vector<Socket> sockets;

    Program() {
        server->add_network(network, w.stack);
        must(server->rpc().listen(path, network, 0600) == 0);
        dial();
    }
    ~Program() {
        close(rpc);
        for (Socket &each : sockets)
            close(each.descriptor);
        w.turn(1000);
        server.reset();
        w.settle();
    }
    void dial() {
        if (rpc >= 0) close(rpc);
        rpc = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::memcpy(address.sun_path, path.data(), path.size());
        must(connect(rpc, reinterpret_cast<sockaddr *>(&address), sizeof address) == 0);
        w.turn();
    }
    /* One message with descriptors. */
    void send(const void *message, size_t length, const int *fds, size_t count) {
        alignas(cmsghdr) char control[CMSG_SPACE(8 * sizeof(int))] = {};
        iovec part{const_cast<void *>(message), length};
        msghdr out{};
        out.msg_iov = &part;
        out.msg_iovlen = 1;
        if (count) {
            out.msg_control = control;
            out.msg_controllen = CMSG_SPACE(count * sizeof(int));
            cmsghdr *c = CMSG_FIRSTHDR(&out);
            c->cmsg_level = SOL_SOCKET;
            c->cmsg_type = SCM_RIGHTS;
            c->cmsg_len = CMSG_LEN(count * sizeof(int));
            std::memcpy(CMSG_DATA(c), fds, count * sizeof(int));
        }
        if (sendmsg(rpc, &out, MSG_NOSIGNAL) < 0 && (errno == EPIPE || errno == ECONNRESET)) dial(); /* it did not like us */
        w.turn();
    }
    /* A request about a socket (0: none), with a reply end or posted. */
    void ask(uint16_t operation, const Socket *about, const int32_t *args, const void *data, size_t length, bool posted) {
        std::vector<uint8_t> message(sizeof(netcon_rpc_request) + length);
        netcon_rpc_request header{};
        header.magic = NETCON_RPC_MAGIC;
        header.version = NETCON_RPC_VERSION;
        header.operation = operation;
        header.flags = posted ? NETCON_RPC_POSTED : 0;
        if (about)
            header.socket = about->id, header.family = about->family, header.type = about->type, header.protocol = about->protocol;
        if (args) std::memcpy(header.args, args, sizeof header.args);
        header.data_length = static_cast<uint32_t>(length);
        std::memcpy(message.data(), &header, sizeof header);
        if (length) std::memcpy(message.data() + sizeof header, data, length);
        int pair[2] = {-1, -1}, fds[2];
        size_t count = 0;
        if (about) fds[count++] = about->descriptor;
        if (!posted) {
            must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
            fds[count++] = pair[1];
        }
        send(message.data(), message.size(), fds, count);
        if (!posted) finish(pair);
    }
    /* A reply, if there is one, has the form it must have. Its descriptor is closed. */
    static void finish(int pair[2]) {
        close(pair[1]);
        alignas(cmsghdr) char control[CMSG_SPACE(8 * sizeof(int))];
        struct {
            netcon_rpc_reply head;
            uint8_t data[NETCON_RPC_DATA_MAX];
        } reply;
        iovec part{&reply, sizeof reply};
        msghdr in{};
        in.msg_iov = &part;
        in.msg_iovlen = 1;
        in.msg_control = control;
        in.msg_controllen = sizeof control;
        ssize_t got = recvmsg(pair[0], &in, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        if (got > 0) {
            must(static_cast<size_t>(got) == sizeof(netcon_rpc_reply) + reply.head.data_length);
            must(reply.head.magic == NETCON_RPC_MAGIC && reply.head.error >= 0 && reply.head.error <= NETCON_RPC_TO_HOST);
            for (cmsghdr *c = CMSG_FIRSTHDR(&in); c; c = CMSG_NXTHDR(&in, c))
                if (c->cmsg_type == SCM_RIGHTS) {
                    int fd;
                    std::memcpy(&fd, CMSG_DATA(c), sizeof fd);
                    close(fd);
                }
        }
        close(pair[0]);
    }
    /* socket(): a pair, P named, S given to the service. */
    Socket &make(uint16_t family, uint16_t type, uint16_t protocol, bool posted = true) {
        int pair[2];
        must(socketpair(AF_UNIX, (type == SOCK_STREAM ? SOCK_STREAM : SOCK_SEQPACKET) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) ==
             0);
        Socket made{pair[0], 0, family, type, protocol};
        socklen_t size = sizeof made.id;
        must(getsockopt(pair[0], SOL_SOCKET, 57 /* SO_COOKIE */, &made.id, &size) == 0);
        static uint16_t spare = 0;
        netcon_name_program name{7, made.id, family, type, protocol, ++spare};
        bind_name(pair[0], 'P', &name, sizeof name);
        Socket as_service = made;
        as_service.descriptor = pair[1];
        ask(NETCON_RPC_SOCKET, &as_service, nullptr, nullptr, 0, posted);
        close(pair[1]);
        sockets.push_back(made);
        return sockets.back();
    }
    static void bind_name(int fd, char kind, const void *packed, size_t length) {
        static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::string text = std::string("\0znc1", 5) + kind;
        auto *bytes = static_cast<const uint8_t *>(packed);
        for (size_t i = 0; i < length * 8; i += 6) {
            unsigned two = bytes[i / 8] << 8 | (i / 8 + 1 < length ? bytes[i / 8 + 1] : 0);
            text += digits[two >> (10 - i % 8) & 63];
        }
        std::memcpy(address.sun_path, text.data(), text.size());
        bind(fd, reinterpret_cast<sockaddr *>(&address), static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + text.size()));
    }
    static netcon_address place(uint16_t port, const uint8_t *ip = our_ip4) {
        netcon_address address{};
        address.family = AF_INET;
        address.port = port;
        std::memcpy(address.ip, ip, 4);
        return address;
    }
};

} // namespace fuzz
