/* options.c: getsockopt and setsockopt.
 *
 * AF_UNIX silently accepts options that mean nothing to it (SO_KEEPALIVE, SO_LINGER, SO_REUSEADDR) and refuses others, so
 * nothing passes to the kernel but the few options that work natively on the program's end. Round trips decide throughput:
 * what servers set for each connection or each response is dropped (hints) or posted, never waited for.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>

#include "datagram.h"
#include "environment.h"
#include "kernel.h"
#include "memory.h"
#include "names.h"
#include "socket.h"
#include "wrapped.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#define UDP_GRO 104
#endif

#ifndef SO_RCVTIMEO_NEW
#define SO_RCVTIMEO_NEW 66
#define SO_SNDTIMEO_NEW 67
#endif

/* The kernel's limits (include/net/tcp.h): MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL, MAX_TCP_KEEPCNT. */
#define KEEPALIVE_SECONDS_MAX 32767
#define KEEPALIVE_COUNT_MAX 127

enum handling {
    BY_SERVICE, /* a round trip */
    BY_KERNEL,  /* works on the program's end as it is */
    BY_NAMES,   /* read only, answered from the names */
    AS_HINT,    /* dropped, answered 0 */
    POSTED,     /* set without waiting */
};

static enum handling handling_of(int level, int option) {
    if (level == SOL_SOCKET) switch (option) {
        case SO_RCVTIMEO:
        case SO_SNDTIMEO:
        case SO_RCVTIMEO_NEW:
        case SO_SNDTIMEO_NEW:
        case SO_RCVLOWAT:
        case SO_COOKIE:
            return BY_KERNEL;
        case SO_TYPE:
        case SO_DOMAIN:
        case SO_PROTOCOL:
        case SO_ACCEPTCONN:
        case SO_ERROR:
            return BY_NAMES;
        case SO_KEEPALIVE:
            return POSTED;
        }
    if (level == IPPROTO_TCP) switch (option) {
        case TCP_CORK:
        case TCP_QUICKACK:
            return AS_HINT;
        case TCP_NODELAY:
        case TCP_KEEPIDLE:
        case TCP_KEEPINTVL:
        case TCP_KEEPCNT:
            return POSTED;
        }
    return BY_SERVICE;
}

/* Gives a value to the program, cut to its room as the kernel does. */
static long give(void *value, socklen_t *length, const void *whole, socklen_t size) {
    if (is_impossible(length) || is_impossible(value)) return -EFAULT;
    if ((int)*length < 0) return -EINVAL;
    if (*length > size) *length = size;
    memcpy(value, whole, *length);
    return 0;
}

/* The kernel's word first, which clears it; the true error of a failed connect is in the name of the service's end. */
static long get_error(int descriptor, void *value, socklen_t *length) {
    struct netcon_name_program name;
    long done = raw(SYS_getsockopt, descriptor, SOL_SOCKET, SO_ERROR, value, length);
    int error = 0;
    if (done == 0 && names_datagrams(descriptor, &name)) {
        done = datagram_error(descriptor, &name);
        if (done == -ENETDOWN) return done;
        error = (int)-done;
        return give(value, length, &error, sizeof error);
    }
    if (done < 0 || *length < sizeof error) return done;
    memcpy(&error, value, sizeof error);
    if (error == ECONNRESET) error = (int)-socket_end(descriptor);
    memcpy(value, &error, sizeof error);
    return 0;
}

long socket_end(int descriptor) {
    struct netcon_name_program name;
    struct netcon_name_service service;
    int error = 0;
    if (!names_program(descriptor, &name)) return -ECONNRESET;
    char kind = names_service(descriptor, &service);
    if (kind == 'F' && service.error > 0) return -service.error;
    if (kind != 'C') return -ECONNRESET;
    struct rpc_call call = call_about(NETCON_RPC_GETSOCKOPT, descriptor, &name);
    call.args[0] = SOL_SOCKET;
    call.args[1] = SO_ERROR;
    call.args[2] = sizeof error;
    call.reply = &error;
    call.reply_room = sizeof error;
    call.optional = true; /* it may have ended because the service did */
    long done = rpc_call(&call);
    close_descriptor(call.reply_descriptor);
    return done < 0 || error <= 0 || error >= 4096 ? -ECONNRESET : -error;
}

static long get_by_names(int descriptor, const struct netcon_name_program *name, int option, void *value, socklen_t *length) {
    int answer = option == SO_DOMAIN ? name->family : option == SO_TYPE ? name->type : name->protocol;
    if (option == SO_ACCEPTCONN)
        answer = names_service(descriptor, NULL) == 'L' && !names_hung_up(descriptor, POLLRDHUP); /* shut down: no more */
    return give(value, length, &answer, sizeof answer);
}

/* 0, or -ENOPROTOOPT for a level that a socket of this kind does not have. The kernel's getsockopt says EOPNOTSUPP on IPv4. */
static long lacks_level(const struct netcon_name_program *name, int level, int option) {
    if (level == SOL_SOCKET || level == IPPROTO_IP || (level == IPPROTO_IPV6 && name->family == AF_INET6)) return 0;
    if (level == IPPROTO_UDP && (option == UDP_SEGMENT || option == UDP_GRO)) return -ENOPROTOOPT; /* QUIC falls back */
    if (level == name->protocol) return 0;
    return name->type == SOCK_RAW && (level == SOL_RAW || level == IPPROTO_ICMPV6) ? 0 : -ENOPROTOOPT;
}

long virtual_getsockopt(int descriptor, int level, int option, void *value, socklen_t *length) {
    struct netcon_name_program name;
    enum handling handling = handling_of(level, option);
    if (handling == BY_NAMES && option == SO_ERROR) return get_error(descriptor, value, length);
    if (handling == BY_KERNEL || !names_program(descriptor, &name))
        return raw(SYS_getsockopt, descriptor, level, option, value, length);
    if (handling == BY_NAMES) return get_by_names(descriptor, &name, option, value, length);
    long absent = lacks_level(&name, level, option);
    if (absent) return absent == -ENOPROTOOPT && name.family == AF_INET && level != IPPROTO_UDP ? -EOPNOTSUPP : absent;
    if (handling == AS_HINT) return give(value, length, &(int){option == TCP_QUICKACK}, sizeof(int));
    if (is_impossible(length) || is_impossible(value)) return -EFAULT;
    if ((int)*length < 0) return -EINVAL;
    uint8_t answer[NETCON_RPC_DATA_MAX];
    struct rpc_call call = call_about(NETCON_RPC_GETSOCKOPT, descriptor, &name);
    call.args[0] = level;
    call.args[1] = option;
    call.args[2] = *length < sizeof answer ? (int32_t)*length : (int32_t)sizeof answer;
    call.reply = answer;
    call.reply_room = sizeof answer;
    long done = rpc_call(&call);
    close_descriptor(call.reply_descriptor);
    return done < 0 ? done : give(value, length, answer, call.reply_length);
}

/* A posted option has no reply that could refuse it, so what the kernel would refuse is refused here. */
static bool is_valid(int level, int option, int value) {
    if (level != IPPROTO_TCP || option == TCP_NODELAY) return true;
    return value >= 1 && value <= (option == TCP_KEEPCNT ? KEEPALIVE_COUNT_MAX : KEEPALIVE_SECONDS_MAX);
}

long virtual_setsockopt(int descriptor, int level, int option, const void *value, socklen_t length) {
    struct netcon_name_program name;
    enum handling handling = handling_of(level, option);
    if (handling == BY_KERNEL || !names_program(descriptor, &name))
        return raw(SYS_setsockopt, descriptor, level, option, value, length);
    if (handling == BY_NAMES) return -ENOPROTOOPT; /* read only on TCP too */
    long absent = lacks_level(&name, level, option);
    if (absent) return absent;
    if ((int)length < 0) return -EINVAL;
    if (length && is_impossible(value)) return -EFAULT;
    if (length > NETCON_RPC_DATA_MAX) return -EINVAL;
    struct rpc_call call = call_about(NETCON_RPC_SETSOCKOPT, descriptor, &name);
    call.args[0] = level;
    call.args[1] = option;
    call.data = value;
    call.data_length = length;
    if (handling == AS_HINT || handling == POSTED) {
        int number;
        if (length < sizeof number) return -EINVAL;
        memcpy(&number, value, sizeof number);
        if (handling == AS_HINT) return 0;
        if (!is_valid(level, option, number)) return -EINVAL;
        return rpc_post(&call);
    }
    long done = rpc_call(&call);
    close_descriptor(call.reply_descriptor);
    return done;
}
