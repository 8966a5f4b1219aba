/* socket.c: making sockets, naming them, and the calls that are answered from their names.
 *
 * socket() makes the pair itself and posts the service's end S without waiting: the program's end P is a working descriptor at
 * once, and what comes later on the same RPC connection finds the socket there. A descriptor's life:
 *
 *   fresh/bound   P has its name, S has none: the service answers
 *   listening     S is named L
 *   connected     S is named C
 *   failed        S is named F and closed; its name stays readable
 *
 * The pair of datagrams (UDP, ICMP, raw) is of SOCK_SEQPACKET and its S never has a name: such a socket may connect, connect again
 * and disconnect. Its mode is in SO_PRIORITY of P (datagram.h).
 */
#include "socket.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>

#include "address.h"
#include "datagram.h"
#include "environment.h"
#include "kernel.h"
#include "names.h"
#include "policy.h"
#include "wrapped.h"

/* One pair, named and posted. A name that someone else has bound first: another pair has another cookie. Returns P's number or
 * -errno; -EADDRINUSE if the name was taken, -EAGAIN if the service is not the one that the name says any more. */
static long make_socket(int family, int type, int protocol, int flags, uint64_t service) {
    /* The service's end must not leak into a program that another thread executes now. */
    int ends[2], buffer = PROGRAM_SEND_BUFFER;
    long done = raw(SYS_socketpair, AF_UNIX,
                    (type == SOCK_STREAM ? SOCK_STREAM : SOCK_SEQPACKET) | SOCK_CLOEXEC | (flags & SOCK_NONBLOCK), 0, ends);
    if (done < 0) return done;
    struct netcon_name_program name = {
        .service = service, .family = (uint16_t)family, .type = (uint16_t)type, .protocol = (uint16_t)protocol};
    uint64_t cookie = 0;
    socklen_t length = sizeof cookie;
    done = raw(SYS_getsockopt, ends[0], SOL_SOCKET, SO_COOKIE, &cookie, &length);
    name.socket = cookie;
    if (done == 0) done = names_bind(ends[0], &name);
    if (done == 0) done = raw(SYS_setsockopt, ends[0], SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    if (done == 0 && !(flags & SOCK_CLOEXEC)) done = raw(SYS_fcntl, ends[0], F_SETFD, 0);
    if (done == 0) {
        struct rpc_call call = call_about(NETCON_RPC_SOCKET, ends[1], &name);
        call.network = settings.network;
        call.args[0] = family;
        call.args[1] = type;
        call.args[2] = protocol;
        /* Whether a program may have the others is the owner's policy. */
        done = protocol == IPPROTO_TCP || protocol == IPPROTO_UDP ? rpc_post(&call) : rpc_call(&call);
        close_descriptor(call.reply_descriptor);
    }
    if (done == 0 && rpc_last_service() != service) done = -EAGAIN;
    close_descriptor(ends[1]);
    if (done == 0) return ends[0];
    close_descriptor(ends[0]);
    return done;
}

/* The protocol of a socket that the service has, or 0. */
static int protocol_of(int family, int type, int protocol) {
    switch (type) {
    case SOCK_STREAM:
        return protocol == 0 || protocol == IPPROTO_TCP ? IPPROTO_TCP : 0;
    case SOCK_DGRAM:
        if (protocol == 0 || protocol == IPPROTO_UDP) return IPPROTO_UDP;
        return protocol == (family == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6) ? protocol : 0;
    case SOCK_RAW:
        return protocol > 0 && protocol < IPPROTO_MAX ? protocol : 0;
    default:
        return 0;
    }
}

/* The kernel's errno for what it lacks as well; what it has and the service lacks would leave by the host's network. */
static long refuse(int family, int type, int protocol) {
    long made = raw(SYS_socket, family, type | SOCK_CLOEXEC, protocol);
    if (made < 0) return made;
    close_descriptor((int)made);
    return -EPROTONOSUPPORT;
}

long virtual_socket(int family, int wanted, int protocol) {
    int flags = wanted & (SOCK_NONBLOCK | SOCK_CLOEXEC), type = wanted & ~flags;
    switch (family) {
    case AF_INET:
    case AF_INET6:
        break;
    case AF_PACKET: /* frames on the host's interfaces; EPERM is what a program without privilege knows */
    case AF_XDP:
        return -EPERM;
    case AF_SMC: /* these carry a program's data over the host's IP, the first one by TCP and for everybody */
    case AF_RDS:
    case AF_TIPC:
    case AF_RXRPC:
    case AF_KCM:
        return -EAFNOSUPPORT;
    default:
        return raw(SYS_socket, family, wanted, protocol);
    }
    int known = protocol_of(family, type, protocol);
    if (!known) return refuse(family, wanted, protocol); /* MPTCP, SCTP: programs fall back */
    for (int attempt = 0; attempt < NAME_ATTEMPTS; attempt++) {
        uint64_t service;
        long done = rpc_service(&service);
        if (done == 0) done = make_socket(family, type, known, flags, service);
        if (done != -EADDRINUSE && done != -EAGAIN) return done;
    }
    return -ENOBUFS;
}

long virtual_bind(int descriptor, const struct sockaddr *address, socklen_t length) {
    struct netcon_name_program name;
    struct netcon_address wanted;
    if (!names_program(descriptor, &name)) return raw(SYS_bind, descriptor, address, length);
    long done = address_read(&wanted, descriptor, name.family, address, length, true);
    if (done < 0) return done;
    struct rpc_call call = call_about(NETCON_RPC_BIND, descriptor, &name);
    done = policy_ask(NETCON_POLICY_BIND, &name, &wanted, &call);
    if (done == 0) {
        call.data = &wanted;
        call.data_length = sizeof wanted;
        done = policy_answer(NETCON_POLICY_BIND, &name, &wanted, rpc_call(&call));
        close_descriptor(call.reply_descriptor);
    }
    if (done != -NETCON_RPC_TO_HOST) return done;
    done = socket_give_to_kernel(descriptor, &name, &wanted);
    return done < 0 ? done : raw(SYS_bind, descriptor, address, length);
}

long virtual_listen(int descriptor, int backlog) {
    struct netcon_name_program name;
    if (!names_program(descriptor, &name)) return raw(SYS_listen, descriptor, backlog);
    if (is_datagrams(&name)) return -EOPNOTSUPP;
    struct rpc_call call = call_about(NETCON_RPC_LISTEN, descriptor, &name);
    call.network = settings.network;
    call.args[0] = backlog;
    long done = rpc_call(&call);
    if (call.reply_descriptor < 0) return done;
    /* The old end was spent by a shutdown or a failed connect. */
    if (done == 0) return socket_replace(descriptor, call.reply_descriptor);
    close_descriptor(call.reply_descriptor);
    return done;
}

/* The service is told first: a native end of both directions looks to it like a close. A socket that is not connected is shut down,
 * and its readers wake, although the call fails. */
static long shut_datagrams(int descriptor, const struct netcon_name_program *name, int how) {
    bool connected = datagram_mode(descriptor) != NETCON_DATAGRAM_FRAMED;
    struct rpc_call call = call_about(NETCON_RPC_SHUTDOWN, descriptor, name);
    call.args[0] = how;
    long done = rpc_call(&call);
    close_descriptor(call.reply_descriptor);
    /* EBADF: both directions have been shut down already, and the service has let it go. */
    if (done < 0 && done != -ENOTCONN && done != -EBADF) return done;
    done = raw(SYS_shutdown, descriptor, how);
    return done < 0 ? done : connected ? 0 : -ENOTCONN;
}

long virtual_shutdown(int descriptor, int how) {
    struct netcon_name_program name;
    if (!names_program(descriptor, &name)) return raw(SYS_shutdown, descriptor, how);
    if (how < SHUT_RD || how > SHUT_RDWR) return -EINVAL;
    if (is_datagrams(&name)) return shut_datagrams(descriptor, &name, how);
    switch (names_service(descriptor, NULL)) {
    case 'C':
        /* A connection that was reset, or that both sides have ended, is none any more. */
        return names_hung_up(descriptor, POLLHUP) ? -ENOTCONN : raw(SYS_shutdown, descriptor, how);
    case 'L': {
        struct rpc_call call = call_about(NETCON_RPC_SHUTDOWN, descriptor, &name);
        call.args[0] = how;
        long done = rpc_call(&call);
        close_descriptor(call.reply_descriptor);
        if (done == 0 && how != SHUT_WR) accept_discard_queue(descriptor);
        return done;
    }
    default:
        return -ENOTCONN;
    }
}

long virtual_getsockname(int descriptor, struct sockaddr *address, socklen_t *length) {
    struct netcon_name_program name;
    struct netcon_name_service service;
    if (!names_program(descriptor, &name)) return raw(SYS_getsockname, descriptor, address, length);
    struct netcon_address local = {0};
    if (!is_datagrams(&name) && names_service(descriptor, &service)) {
        local = address_of_name(&service, false);
    } else {
        struct rpc_call call = call_about(NETCON_RPC_GETSOCKNAME, descriptor, &name);
        call.reply = &local;
        call.reply_room = sizeof local;
        long done = rpc_call(&call);
        close_descriptor(call.reply_descriptor);
        if (done < 0) return done;
    }
    return address_write(&local, name.family, address, length);
}

long virtual_getpeername(int descriptor, struct sockaddr *address, socklen_t *length) {
    struct netcon_name_program name;
    struct netcon_name_service service;
    if (!names_program(descriptor, &name)) return raw(SYS_getpeername, descriptor, address, length);
    if (is_datagrams(&name)) {
        struct netcon_address peer;
        long done = datagram_peer(descriptor, &name, &peer);
        return done < 0 ? done : address_write(&peer, name.family, address, length);
    }
    /* A connection that was reset, or that both sides have ended, has no peer any more. */
    if (names_service(descriptor, &service) != 'C' || names_hung_up(descriptor, POLLHUP)) return -ENOTCONN;
    struct netcon_address remote = address_of_name(&service, true);
    return address_write(&remote, name.family, address, length);
}
