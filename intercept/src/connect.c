/* connect.c: connect.
 *
 * The service answers at once and connects on its own. While it does, its end's queue is full, so the program's end is not
 * writable; when it is done the end gets its name C and is drained, or gets its name F and is closed. So waiting for a
 * connection is waiting for POLLOUT, for this library and for the program's own poll, select or epoll.
 *
 * A failed end is spent. A further connect makes the service answer with a new pair, which takes the number of the old one.
 */
#include <fcntl.h>
#include <poll.h>
#include <sys/time.h>

#include "address.h"
#include "environment.h"
#include "kernel.h"
#include "memory.h"
#include "names.h"
#include "policy.h"
#include "socket.h"
#include "wrapped.h"

/* The error of a failed socket, which this takes: a second call says 0. */
static long take_error(int descriptor) {
    int error = 0;
    socklen_t length = sizeof error;
    raw(SYS_getsockopt, descriptor, SOL_SOCKET, SO_ERROR, &error, &length);
    return error;
}

/* The kernel tells each failed attempt by connect once: one whose error SO_ERROR has taken, by ECONNABORTED. Whether it was told is
 * kept in SO_PRIORITY of the program's end, which is inert there (datagram.h); the next attempt has another end. */
static void told(int descriptor) {
    int yes = 1;
    raw(SYS_setsockopt, descriptor, SOL_SOCKET, SO_PRIORITY, &yes, sizeof yes);
}

static bool was_told(int descriptor) {
    int value = 1;
    socklen_t length = sizeof value;
    raw(SYS_getsockopt, descriptor, SOL_SOCKET, SO_PRIORITY, &value, &length);
    return value;
}

/* Waits until the connection is there or not. */
static long wait_connected(int descriptor) {
    struct timeval limit = {0};
    socklen_t length = sizeof limit;
    long done = raw(SYS_getsockopt, descriptor, SOL_SOCKET, SO_SNDTIMEO, &limit, &length);
    if (done < 0) return done;
    bool limited = limit.tv_sec || limit.tv_usec;
    struct timespec left = {limit.tv_sec, limit.tv_usec * 1000};
    struct pollfd wanted = {.fd = descriptor, .events = POLLOUT};
    done = raw(SYS_ppoll, &wanted, 1, limited ? &left : NULL, NULL, 8);
    if (done < 0) return done;
    if (done == 0) return -EINPROGRESS;
    struct netcon_name_service name;
    switch (names_service(descriptor, &name)) {
    case 'C':
        return 0;
    case 'F':
        take_error(descriptor);
        told(descriptor);
        return name.error > 0 ? -name.error : -ECONNREFUSED;
    default:
        return wanted.revents & (POLLERR | POLLHUP) ? -ENETDOWN : -EINVAL; /* the service is gone, or has let it go */
    }
}

/* Nothing to wait for: the service changes the mode and what is queued, and answers. */
static long connect_datagrams(int descriptor, const struct netcon_name_program *name, const struct netcon_address *wanted,
                              const struct sockaddr *address, socklen_t length) {
    struct rpc_call call = call_about(NETCON_RPC_CONNECT, descriptor, name);
    long done = policy_ask(NETCON_POLICY_CONNECT, name, wanted, &call);
    if (done == 0) {
        call.data = wanted;
        call.data_length = sizeof *wanted;
        done = policy_answer(NETCON_POLICY_CONNECT, name, wanted, rpc_call(&call));
        close_descriptor(call.reply_descriptor);
    }
    if (done != -NETCON_RPC_TO_HOST) return done;
    done = socket_give_to_kernel(descriptor, name, wanted);
    return done < 0 ? done : raw(SYS_connect, descriptor, address, length);
}

/* Disconnecting UDP also takes its binding to an interface, and one that is kept on `lo` for loopback could go anywhere. */
static long connect_of_kernel(int descriptor, const struct sockaddr *address, socklen_t length) {
    char device[16] = {0};
    socklen_t size = sizeof device;
    bool disconnects = length >= sizeof address->sa_family && !is_impossible(address) && address->sa_family == AF_UNSPEC;
    bool kept = disconnects && raw(SYS_getsockopt, descriptor, SOL_SOCKET, SO_BINDTODEVICE, device, &size) == 0 &&
                memcmp(device, "lo", 3) == 0;
    long done = raw(SYS_connect, descriptor, address, length);
    if (kept) raw(SYS_setsockopt, descriptor, SOL_SOCKET, SO_BINDTODEVICE, device, 3);
    return done;
}

long virtual_connect(int descriptor, const struct sockaddr *address, socklen_t length) {
    struct netcon_name_program name;
    struct netcon_name_service service;
    struct netcon_address wanted;
    if (!names_program(descriptor, &name)) return connect_of_kernel(descriptor, address, length);
    long done = address_read(&wanted, descriptor, name.family, address, length, false);
    if (done < 0) return done;
    if (is_datagrams(&name)) return connect_datagrams(descriptor, &name, &wanted, address, length);
    char kind = names_service(descriptor, &service);
    if (kind == 'F' && wanted.family == AF_UNSPEC) told(descriptor); /* forgotten; SO_ERROR still has it */
    if (kind == 'F' && !was_told(descriptor)) {
        told(descriptor);
        if (!take_error(descriptor)) return -ECONNABORTED;
        return service.error > 0 ? -service.error : -ECONNREFUSED;
    }
    long open_flags = raw(SYS_fcntl, descriptor, F_GETFL);
    bool waits = open_flags >= 0 && !(open_flags & O_NONBLOCK);
    struct rpc_call call = call_about(NETCON_RPC_CONNECT, descriptor, &name);
    done = kind == 'C' || kind == 'L' ? 0 : policy_ask(NETCON_POLICY_CONNECT, &name, &wanted, &call);
    call.args[0] = waits;
    call.data = &wanted;
    call.data_length = sizeof wanted;
    if (done == 0) done = policy_answer(NETCON_POLICY_CONNECT, &name, &wanted, rpc_call(&call));
    if (done == -NETCON_RPC_TO_HOST) {
        done = socket_give_to_kernel(descriptor, &name, &wanted);
        return done < 0 ? done : raw(SYS_connect, descriptor, address, length);
    }
    if (call.reply_descriptor >= 0) {
        long replaced = socket_replace(descriptor, call.reply_descriptor);
        if (replaced < 0) return replaced;
    }
    if (waits && (done == -EINPROGRESS || done == -EALREADY)) return wait_connected(descriptor);
    return done;
}
