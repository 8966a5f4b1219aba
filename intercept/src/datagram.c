/* datagram.c: see datagram.h.
 *
 * Receiving: the header is one more part in front of the program's own, so that the kernel copies each byte once, cuts what does
 * not fit and blocks, wakes and restarts as it does for any socket. An empty message may be a nudge: an error has come for the
 * socket, and SO_ERROR tells which.
 *
 * Sending: a message to the pair, which cannot fail for a reason that only the network knows. What the kernel checks at once is
 * checked here. Where a program may act on an errno that the service alone can tell (a broadcast address without SO_BROADCAST), and
 * where the message cannot have a header because the socket is connected and bare, the datagram goes by RPC.
 */
#include "datagram.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/uio.h>

#include "address.h"
#include "ancillary.h"
#include "environment.h"
#include "kernel.h"
#include "memory.h"
#include "names.h"
#include "policy.h"
#include "socket.h"

_Static_assert(sizeof(struct netcon_datagram_header) == 40, "layout of a datagram's header");

#define PARTS_MAX 1024 /* UIO_MAXIOV; a framed message has one less for the program */
#define ECHO_HEAD 8    /* of an ICMP echo request, without which a ping socket sends nothing */
#define HEADER sizeof(struct netcon_datagram_header)

long datagram_mode(int descriptor) {
    int mode = 0;
    socklen_t length = sizeof mode;
    long done = raw(SYS_getsockopt, descriptor, SOL_SOCKET, SO_PRIORITY, &mode, &length);
    return done < 0 ? done : mode;
}

/* A service that does not know the socket is another one, started since. */
static long gone(long error) { return error == -EBADF ? -ENETDOWN : error; }

long datagram_error(int descriptor, const struct netcon_name_program *name) {
    int error = 0;
    struct rpc_call call = call_about(NETCON_RPC_GETSOCKOPT, descriptor, name);
    call.args[0] = SOL_SOCKET;
    call.args[1] = SO_ERROR;
    call.args[2] = sizeof error;
    call.reply = &error;
    call.reply_room = sizeof error;
    long done = rpc_call(&call);
    close_descriptor(call.reply_descriptor);
    return done < 0 ? gone(done) : error > 0 && error < 4096 ? -error : 0;
}

static long ask_address(uint16_t operation, int descriptor, const struct netcon_name_program *name, struct netcon_address *out) {
    struct rpc_call call = call_about(operation, descriptor, name);
    memset(out, 0, sizeof *out);
    call.reply = out;
    call.reply_room = sizeof *out;
    long done = rpc_call(&call);
    close_descriptor(call.reply_descriptor);
    return gone(done);
}

long datagram_peer(int descriptor, const struct netcon_name_program *name, struct netcon_address *peer) {
    if (datagram_mode(descriptor) == NETCON_DATAGRAM_FRAMED) return -ENOTCONN;
    return ask_address(NETCON_RPC_GETPEERNAME, descriptor, name, peer);
}

bool datagram_is_fresh(int descriptor, const struct netcon_name_program *name) {
    struct netcon_address local;
    static const uint8_t any[16];
    return ask_address(NETCON_RPC_GETSOCKNAME, descriptor, name, &local) == 0 && local.port == 0 &&
           memcmp(local.ip, any, sizeof any) == 0;
}

long datagram_queued(int descriptor) {
    long head = datagram_mode(descriptor) == NETCON_DATAGRAM_BARE ? 0 : (long)HEADER;
    long length = raw(SYS_recvfrom, descriptor, NULL, 0, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT, NULL, NULL);
    return length > head ? length - head : 0;
}

/* ---- receiving ---- */

static char *byte_of(const struct iovec *parts, size_t count, size_t offset) {
    for (size_t i = 0; i < count; offset -= parts[i++].iov_len)
        if (offset < parts[i].iov_len) return (char *)parts[i].iov_base + offset;
    return NULL;
}

/* The socket was connected by another thread while this one waited for a header: what came in its place are the first bytes of the
 * payload, which `length` bytes in the parts follow. */
static void put_before(const struct iovec *parts, size_t count, const void *head, size_t head_length, size_t length) {
    for (size_t i = length; i-- > 0;) {
        char *to = byte_of(parts, count, i + head_length);
        if (to) *to = *byte_of(parts, count, i);
    }
    for (size_t i = 0; i < head_length; i++) {
        char *to = byte_of(parts, count, i);
        if (to) *to = ((const char *)head)[i];
    }
}

static size_t room_of(const struct iovec *parts, size_t count) {
    size_t room = 0;
    for (size_t i = 0; i < count; i++)
        room += parts[i].iov_len;
    return room;
}

/* An empty message: a datagram of no bytes, a nudge, or the end. Returns 0 for the first. */
static long judge_empty(int descriptor, const struct netcon_name_program *name, int flags) {
    long error = datagram_error(descriptor, name);
    if (error < 0 || !names_hung_up(descriptor, 0x2000 /* POLLRDHUP */)) return error;
    /* Shut down by the program itself: who waits gets 0, who does not wait gets nothing. */
    long open_flags = raw(SYS_fcntl, descriptor, F_GETFL);
    return flags & MSG_DONTWAIT || open_flags & O_NONBLOCK ? -EAGAIN : 0;
}

static long give_peer(int descriptor, const struct netcon_name_program *name, const struct netcon_datagram_header *header,
                      struct msghdr *message) {
    struct netcon_address peer;
    if (!message->msg_name) return 0;
    if (header->flags & NETCON_DATAGRAM_PEER) {
        peer = address_of_header(header->peer, header->port, header->interface);
    } else {
        long done = ask_address(NETCON_RPC_GETPEERNAME, descriptor, name, &peer);
        if (done == -ENOTCONN) message->msg_namelen = 0; /* disconnected since */
        if (done < 0) return done == -ENOTCONN ? 0 : done;
    }
    return address_write(&peer, name->family, message->msg_name, &message->msg_namelen);
}

/* One message. Returns the length of the payload, or -errno; -ERESTART if it was a nudge whose error somebody else has taken. */
static long receive_one(int descriptor, const struct netcon_name_program *name, struct msghdr *message, int flags) {
    struct netcon_datagram_header header = {0};
    long mode = datagram_mode(descriptor);
    if (mode < 0) return mode;
    size_t count = message->msg_iovlen, first = mode == NETCON_DATAGRAM_BARE ? 0 : 1;
    struct iovec parts[count + 1];
    parts[0] = (struct iovec){&header, sizeof header};
    for (size_t i = 0; i < count; i++)
        parts[first + i] = message->msg_iov[i];
    struct msghdr inner = {.msg_iov = parts, .msg_iovlen = first + count};
    long length = raw(SYS_recvmsg, descriptor, &inner, flags);
    if (length == -ECONNRESET) return -ENETDOWN; /* the service ended with datagrams of ours unread */
    if (length < 0) return length;
    bool empty = length == 0 && !(inner.msg_flags & MSG_TRUNC);
    message->msg_flags = inner.msg_flags & MSG_TRUNC;
    if (empty) {
        long done = judge_empty(descriptor, name, flags);
        if (done < 0) return done;
    }
    if (first && !empty) {
        size_t head = (size_t)length < HEADER ? (size_t)length : HEADER;
        if (head < HEADER || header.magic != NETCON_DATAGRAM_MAGIC) {
            size_t room = room_of(message->msg_iov, count), rest = (size_t)length - head;
            put_before(message->msg_iov, count, &header, head, rest < room ? rest : room);
            memset(&header, 0, sizeof header);
            if ((size_t)length > room) message->msg_flags |= MSG_TRUNC;
            length = (size_t)length > room && !(flags & MSG_TRUNC) ? (long)room : length;
        } else if (header.flags & NETCON_DATAGRAM_ERROR) {
            long error = datagram_error(descriptor, name);
            return error < 0 ? error : -ERESTART;
        } else {
            length -= (long)HEADER;
        }
    }
    long done = give_peer(descriptor, name, &header, message);
    if (done < 0) return done;
    ancillary_write(message, &header, name->family);
    return length;
}

long datagram_receive(int descriptor, const struct netcon_name_program *name, struct msghdr *message, int flags) {
    if (flags & MSG_ERRQUEUE) return -EAGAIN; /* the service keeps none */
    if (flags & MSG_OOB) {
        if (name->protocol != IPPROTO_UDP) return -EOPNOTSUPP;
        flags &= ~MSG_OOB; /* UDP ignores it, AF_UNIX does not */
    }
    if (message->msg_iovlen > PARTS_MAX) return -EMSGSIZE;
    if (message->msg_iovlen == PARTS_MAX) message->msg_iovlen--; /* the header needs one: the last is not filled */
    long done;
    do
        done = receive_one(descriptor, name, message, flags);
    while (done == -ERESTART);
    return done;
}

/* ---- sending ---- */

/* An error that has come for a connected socket is told to who sends next. Looks at the first message without taking it. */
static long pending_error(int descriptor, const struct netcon_name_program *name, long mode) {
    struct netcon_datagram_header first;
    size_t room = mode == NETCON_DATAGRAM_BARE ? 0 : sizeof first;
    long length = raw(SYS_recvfrom, descriptor, &first, room, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT, NULL, NULL);
    bool nudged = mode == NETCON_DATAGRAM_BARE
                      ? length == 0
                      : length == (long)sizeof first && first.magic == NETCON_DATAGRAM_MAGIC && first.flags & NETCON_DATAGRAM_ERROR;
    return nudged ? datagram_error(descriptor, name) : 0;
}

/* By RPC: the service sends and tells the errno. */
static long send_by_service(int descriptor, const struct netcon_name_program *name, const struct rpc_call *asked,
                            const struct netcon_datagram_header *header, const struct msghdr *message, size_t length) {
    struct rpc_call call = call_about(NETCON_RPC_SENDTO, descriptor, name);
    call.network = asked->network;
    call.flags = asked->flags;
    call.data = header;
    call.data_length = sizeof *header;
    call.tail = message->msg_iov;
    call.tail_count = message->msg_iovlen;
    call.tail_length = (uint32_t)length;
    long done = rpc_call(&call);
    close_descriptor(call.reply_descriptor);
    return done < 0 ? gone(done) : (long)length;
}

static long send_by_pair(int descriptor, const struct netcon_name_program *name, const struct netcon_datagram_header *header,
                         const struct msghdr *message, int flags) {
    size_t first = header ? 1 : 0;
    struct iovec parts[message->msg_iovlen + 1];
    parts[0] = (struct iovec){(void *)header, sizeof *header};
    for (size_t i = 0; i < message->msg_iovlen; i++)
        parts[first + i] = message->msg_iov[i];
    struct msghdr inner = {.msg_iov = parts, .msg_iovlen = first + message->msg_iovlen};
    long sent = raw(SYS_sendmsg, descriptor, &inner, flags | MSG_NOSIGNAL);
    if (sent == -EPIPE || sent == -ECONNRESET || sent == -ECONNREFUSED || sent == -ENOTCONN) {
        long error = datagram_error(descriptor, name);
        return error < 0 ? error : -EPIPE; /* shut down by the program itself, or gone in this moment */
    }
    return sent < 0 || !header ? sent : sent - (long)sizeof *header;
}

/* What the kernel's ping sockets check of the message itself. */
static long check_echo(const struct netcon_name_program *name, const struct msghdr *message, size_t length) {
    uint8_t request = name->family == AF_INET ? 8 : 128;
    if (length < ECHO_HEAD) return -EINVAL;
    const uint8_t *type = (const uint8_t *)byte_of(message->msg_iov, message->msg_iovlen, 0);
    const uint8_t *code = (const uint8_t *)byte_of(message->msg_iov, message->msg_iovlen, 1);
    return *type == request && *code == 0 ? 0 : -EINVAL;
}

/* Perhaps the broadcast address of a subnet: which are, and whether the program may, the service knows. */
static bool may_be_broadcast(const struct netcon_address *to) {
    static const uint8_t all[4] = {255, 255, 255, 255};
    return to->family == AF_INET && (to->ip[3] == 255 || memcmp(to->ip, all, sizeof all) == 0);
}

/* Only the service knows, and without an answer the datagram would be lost. */
static bool may_be_host(const struct netcon_address *to, uint8_t flags) {
    if (!address_is_loopback(to)) return policy_has_host();
    return !(flags & NETCON_DATAGRAM_VIRTUAL) && !(rpc_policy() & NETCON_RPC_POLICY_VIRTUAL);
}

/* The socket becomes one of the kernel, unless it is bound or connected in a network: then it stays there. */
static long send_by_host(int descriptor, const struct netcon_name_program *name, const struct netcon_address *to,
                         const struct msghdr *message, int flags) {
    if (datagram_mode(descriptor) != NETCON_DATAGRAM_FRAMED || !datagram_is_fresh(descriptor, name)) return -ENETUNREACH;
    long done = socket_give_to_kernel(descriptor, name, to);
    if (done < 0) return done;
    return socket_leaves_loopback(descriptor, message) ? -ENETUNREACH : raw(SYS_sendmsg, descriptor, message, flags);
}

long datagram_send(int descriptor, const struct netcon_name_program *name, const struct msghdr *message, int flags) {
    struct netcon_address to = {0};
    struct netcon_datagram_header header = {.magic = NETCON_DATAGRAM_MAGIC};
    long done, mode = datagram_mode(descriptor);
    if (mode < 0) return mode;
    if (message->msg_iovlen >= PARTS_MAX) return -EMSGSIZE;
    size_t length = room_of(message->msg_iov, message->msg_iovlen);
    if (length > 65535) return -EMSGSIZE;
    bool udp = name->protocol == IPPROTO_UDP, echo = name->type == SOCK_DGRAM && !udp;
    if (echo && length < ECHO_HEAD) return -EINVAL;
    if (flags & MSG_OOB && !(udp && name->family == AF_INET6)) return -EOPNOTSUPP;
    if (echo && (done = check_echo(name, message, length)) < 0) return done;
    if (message->msg_name && (done = address_of_destination(&to, name->family, message->msg_name, message->msg_namelen)) < 0)
        return done;
    if (to.family && udp && to.port == 0) return -EINVAL;
    if (!to.family && mode == NETCON_DATAGRAM_FRAMED) return -EDESTADDRREQ;
    struct rpc_call ask = {.network = settings.network};
    bool by_service = false;
    if (to.family) {
        done = policy_ask(NETCON_POLICY_CONNECT, name, &to, &ask);
        if (done == -NETCON_RPC_TO_HOST) return send_by_host(descriptor, name, &to, message, flags);
        if (done < 0) return done;
        if (ask.flags & NETCON_RPC_VIRTUAL) header.flags |= NETCON_DATAGRAM_VIRTUAL;
        by_service = ask.network != settings.network || policy_says_names(&to) || may_be_host(&to, header.flags);
    }
    bool to_ipv4 = name->family == AF_INET || to.family == AF_INET || (to.family && address_is_mapped(to.ip));
    if (!to.family && name->family == AF_INET6 && message->msg_controllen) {
        struct netcon_address peer;
        to_ipv4 = datagram_peer(descriptor, name, &peer) == 0 && (peer.family == AF_INET || address_is_mapped(peer.ip));
    }
    if (udp && to.family && length > (to_ipv4 ? NETCON_DATAGRAM_PAYLOAD_MAX : NETCON_DATAGRAM_PAYLOAD6_MAX)) return -EMSGSIZE;
    if (udp && !to.family && length > (name->family == AF_INET ? NETCON_DATAGRAM_PAYLOAD_MAX : NETCON_DATAGRAM_PAYLOAD6_MAX))
        return -EMSGSIZE;
    if ((done = ancillary_read(&header, message, name->family, to_ipv4)) < 0) return done;
    if (mode != NETCON_DATAGRAM_FRAMED && (done = pending_error(descriptor, name, mode)) < 0) return done;
    flags &= ~(MSG_OOB | MSG_CONFIRM | MSG_MORE | MSG_EOR);
    if (mode == NETCON_DATAGRAM_BARE && !to.family && !header.flags) return send_by_pair(descriptor, name, NULL, message, flags);
    if (mode == NETCON_DATAGRAM_BARE && !to.family) {
        if ((done = datagram_peer(descriptor, name, &to)) < 0) return done;
    }
    if (to.family) {
        header.flags |= NETCON_DATAGRAM_PEER;
        header.port = to.port;
        if (!header.interface && to.family == AF_INET6) header.interface = (uint16_t)to.scope;
        address_to_header(&to, header.peer);
    }
    if (mode == NETCON_DATAGRAM_BARE || by_service || (to.family && may_be_broadcast(&to))) {
        done = send_by_service(descriptor, name, &ask, &header, message, length);
        if (to.family) done = policy_answer(NETCON_POLICY_CONNECT, name, &to, done);
        return done == -NETCON_RPC_TO_HOST ? send_by_host(descriptor, name, &to, message, flags) : done;
    }
    return send_by_pair(descriptor, name, &header, message, flags);
}
