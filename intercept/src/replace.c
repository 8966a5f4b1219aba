/* replace.c: another socket at the same number.
 *
 * dup3 is atomic: no other thread ever sees the number free. The other numbers and the epoll sets of this process follow
 * (copies.h). What another process has of the old socket stays the old one, which hangs up: a limit of the design, met by no
 * program of the compatibility list.
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/time.h>

#include "address.h"
#include "copies.h"
#include "kernel.h"
#include "memory.h"
#include "names.h"
#include "socket.h"
#include "wrapped.h"

/* Copies what the old socket has of the kernel's own. */
static void copy_time_limits(int from, int to) {
    static const int options[] = {SO_RCVTIMEO, SO_SNDTIMEO};
    for (unsigned i = 0; i < sizeof options / sizeof *options; i++) {
        struct timeval limit;
        socklen_t length = sizeof limit;
        if (raw(SYS_getsockopt, from, SOL_SOCKET, options[i], &limit, &length) == 0 && (limit.tv_sec || limit.tv_usec))
            raw(SYS_setsockopt, to, SOL_SOCKET, options[i], &limit, length);
    }
    int low = 1;
    socklen_t length = sizeof low;
    if (raw(SYS_getsockopt, from, SOL_SOCKET, SO_RCVLOWAT, &low, &length) == 0 && low > 1)
        raw(SYS_setsockopt, to, SOL_SOCKET, SO_RCVLOWAT, &low, length);
}

long socket_replace(int descriptor, int fresh) {
    long open_flags = raw(SYS_fcntl, descriptor, F_GETFL), close_flags = raw(SYS_fcntl, descriptor, F_GETFD);
    long done = open_flags < 0 ? open_flags : close_flags < 0 ? close_flags : 0;
    if (done == 0) {
        copy_time_limits(descriptor, fresh);
        done = raw(SYS_fcntl, fresh, F_SETFL, open_flags);
    }
    if (done == 0) {
        struct copies copies;
        copies_take(descriptor, &copies);
        done = raw(SYS_dup3, fresh, descriptor, close_flags & FD_CLOEXEC ? O_CLOEXEC : 0);
        if (done >= 0) copies_replace(&copies, fresh);
        copies_watch(&copies);
    }
    close_descriptor(fresh);
    return done < 0 ? done : 0;
}

/* Options that programs set before bind or connect and that the service gives back as they were set. */
static const struct {
    short level, name;
    bool only_ipv6;
} carried[] = {
    {SOL_SOCKET, SO_REUSEADDR, false},
    {SOL_SOCKET, SO_BROADCAST, false},
    {SOL_SOCKET, SO_TIMESTAMP, false},
    {IPPROTO_IP, IP_TTL, false},
    {IPPROTO_IP, IP_TOS, false},
    {IPPROTO_IP, IP_PKTINFO, false},
    {IPPROTO_IP, IP_RECVTTL, false},
    {IPPROTO_IP, IP_RECVTOS, false},
    {IPPROTO_IPV6, IPV6_RECVPKTINFO, true},
    {IPPROTO_IPV6, IPV6_RECVHOPLIMIT, true},
    {SOL_SOCKET, SO_REUSEPORT, false},
    {SOL_SOCKET, SO_KEEPALIVE, false},
    {SOL_SOCKET, SO_LINGER, false},
    {IPPROTO_TCP, TCP_NODELAY, false},
    {IPPROTO_TCP, TCP_KEEPIDLE, false},
    {IPPROTO_TCP, TCP_KEEPINTVL, false},
    {IPPROTO_TCP, TCP_KEEPCNT, false},
    {IPPROTO_TCP, TCP_USER_TIMEOUT, false},
    {IPPROTO_TCP, TCP_DEFER_ACCEPT, false},
    {IPPROTO_IPV6, IPV6_V6ONLY, true},
};

static void copy_options(int from, const struct netcon_name_program *name, int to) {
    for (unsigned i = 0; i < sizeof carried / sizeof *carried; i++) {
        uint8_t value[16], usual[16];
        socklen_t length = sizeof usual;
        if (carried[i].only_ipv6 && name->family != AF_INET6) continue;
        if (carried[i].level == IPPROTO_TCP && is_datagrams(name)) continue;
        struct rpc_call call = call_about(NETCON_RPC_GETSOCKOPT, from, name);
        call.args[0] = carried[i].level;
        call.args[1] = carried[i].name;
        call.args[2] = call.reply_room = sizeof value;
        call.reply = value;
        long done = rpc_call(&call);
        close_descriptor(call.reply_descriptor);
        if (done == -ENETDOWN || done == -EBADF) return; /* the service does not know this socket: nothing was set */
        if (done == 0 && raw(SYS_getsockopt, to, carried[i].level, carried[i].name, usual, &length) == 0 &&
            (length != call.reply_length || memcmp(value, usual, length) != 0))
            raw(SYS_setsockopt, to, carried[i].level, carried[i].name, value, call.reply_length);
    }
}

/* A port that the program has chosen by a wildcard bind() stays its port. */
static long carry_local(int from, const struct netcon_name_program *name, int to) {
    struct netcon_address local = {0};
    struct rpc_call call = call_about(NETCON_RPC_GETSOCKNAME, from, name);
    call.reply = &local;
    call.reply_room = sizeof local;
    long done = rpc_call(&call);
    close_descriptor(call.reply_descriptor);
    if (done < 0 || !local.port) return 0; /* not bound, or known to nobody */
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    done = address_write(&local, name->family, (struct sockaddr *)&address, &length);
    return done < 0 ? done : raw(SYS_bind, to, &address, length);
}

long socket_give_to_kernel(int descriptor, const struct netcon_name_program *name, const struct netcon_address *address) {
    long fresh = raw(SYS_socket, name->family, name->type | SOCK_CLOEXEC, name->protocol);
    if (fresh < 0) return fresh;
    long done = 0;
    copy_options(descriptor, name, (int)fresh);
    /* It may turn to another address at any time, and disconnect: one for loopback stays on that interface. First, for a port on
     * the wildcard would be open to the host's other interfaces. */
    if (address_is_loopback(address)) done = raw(SYS_setsockopt, fresh, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3);
    if (done == 0) done = carry_local(descriptor, name, (int)fresh);
    if (done < 0) {
        close_descriptor((int)fresh);
        return done;
    }
    return socket_replace(descriptor, (int)fresh);
}

/* Other than lo, whose index is 1 in every network namespace. */
static bool is_elsewhere(const void *index) {
    int number;
    memcpy(&number, index, sizeof number);
    return number != 0 && number != 1;
}

static bool names_interface(const struct msghdr *message) {
    const struct sockaddr_in6 *to = message->msg_name;
    if (!is_impossible(to) && message->msg_namelen >= sizeof *to && to->sin6_family == AF_INET6 && is_elsewhere(&to->sin6_scope_id))
        return true;
    size_t room = (uint32_t)message->msg_controllen; /* musl: the other half is undefined, of a length in it, too */
    const char *items = message->msg_control;
    if (is_impossible(items)) return false;
    for (size_t at = 0; at + sizeof(struct cmsghdr) <= room;) {
        struct cmsghdr item;
        memcpy(&item, items + at, sizeof item);
        size_t length = (uint32_t)item.cmsg_len, left = room - at;
        if (length < sizeof item || length > left) return false; /* the kernel refuses it */
        const char *data = items + at + CMSG_LEN(0);
        if (item.cmsg_level == IPPROTO_IP && item.cmsg_type == IP_PKTINFO && length >= CMSG_LEN(sizeof(struct in_pktinfo)) &&
            is_elsewhere(data + offsetof(struct in_pktinfo, ipi_ifindex)))
            return true;
        if (item.cmsg_level == IPPROTO_IPV6 && item.cmsg_type == IPV6_PKTINFO && length >= CMSG_LEN(sizeof(struct in6_pktinfo)) &&
            is_elsewhere(data + offsetof(struct in6_pktinfo, ipi6_ifindex)))
            return true;
        at += CMSG_ALIGN(length);
    }
    return false;
}

bool socket_leaves_loopback(int descriptor, const struct msghdr *message) {
    char device[16] = {0};
    socklen_t size = sizeof device;
    return names_interface(message) && raw(SYS_getsockopt, descriptor, SOL_SOCKET, SO_BINDTODEVICE, device, &size) == 0 &&
           memcmp(device, "lo", 3) == 0;
}
