/* accept.c: accept.
 *
 * A listener's queue holds one 64-byte record per connection, with the new descriptor; the kernel gives each record to one of
 * the processes and threads that wait. No RPC. Only a descriptor whose other end is named L is read: on any other one the
 * "record" would be bytes of a stream.
 *
 * The new descriptor gets its name here, not by the service: so the service can tell a connection that was accepted from one
 * that was still in the queue when its listener was closed, which it resets as the kernel does.
 */
#include <fcntl.h>
#include <sys/socket.h>

#include "address.h"
#include "kernel.h"
#include "memory.h"
#include "names.h"
#include "socket.h"
#include "wrapped.h"

/* With a full table recvmsg would take the record and drop its descriptor: the connection would be lost. */
static long probe_free_number(int descriptor) {
    long probe = raw(SYS_fcntl, descriptor, F_DUPFD_CLOEXEC, 0);
    if (probe < 0) return probe == -EINVAL ? -EMFILE : probe;
    close_descriptor((int)probe);
    return 0;
}

/* Takes one record. Returns the new descriptor or -errno. */
static long take_record(int listener, struct netcon_accept_record *record, int flags) {
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {record, sizeof *record};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    long length = raw(SYS_recvmsg, listener, &message, flags | MSG_CMSG_CLOEXEC);
    if (length < 0) return length == -ECONNRESET ? -EINVAL : length;
    int accepted = -1;
    if (message.msg_controllen >= sizeof control.header && control.header.cmsg_level == SOL_SOCKET &&
        control.header.cmsg_type == SCM_RIGHTS && control.header.cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(&accepted, CMSG_DATA(&control.header), sizeof accepted);
    if (accepted >= 0 && length == sizeof *record && record->magic == NETCON_ACCEPT_MAGIC) return accepted;
    close_descriptor(accepted);
    if (message.msg_flags & MSG_CTRUNC) return -EMFILE; /* another thread took the last number after the probe */
    return -EINVAL; /* end of file or a record without descriptor: it does not listen any more */
}

/* A name that someone else has bound first: another value in its unused field makes another one. */
static long name_accepted(int accepted, const struct netcon_name_program *listener) {
    struct netcon_name_program name = *listener; /* the same service, family and protocol */
    uint64_t cookie = 0;
    socklen_t length = sizeof cookie;
    long done = raw(SYS_getsockopt, accepted, SOL_SOCKET, SO_COOKIE, &cookie, &length);
    if (done < 0) return done;
    name.socket = cookie;
    name.reserved = 0;
    for (int attempt = 0; attempt < NAME_ATTEMPTS; attempt++) {
        done = names_bind(accepted, &name);
        if (done != -EADDRINUSE) return done;
        uint16_t other = (uint16_t)attempt;
        raw(SYS_getrandom, &other, sizeof other, 0);
        name.reserved = other;
    }
    return done;
}

void accept_discard_queue(int descriptor) {
    struct netcon_accept_record record;
    long accepted;
    while ((accepted = take_record(descriptor, &record, MSG_DONTWAIT)) >= 0)
        close_descriptor((int)accepted);
}

long virtual_accept4(int descriptor, struct sockaddr *address, socklen_t *length, int flags) {
    struct netcon_name_program name;
    struct netcon_accept_record record;
    if (!names_program(descriptor, &name)) return raw(SYS_accept4, descriptor, address, length, flags);
    if (flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) return -EINVAL;
    if (is_datagrams(&name)) return -EOPNOTSUPP;
    if (names_service(descriptor, NULL) != 'L') return -EINVAL;
    long done = probe_free_number(descriptor);
    if (done < 0) return done;
    long accepted = take_record(descriptor, &record, 0);
    if (accepted < 0) return accepted;
    done = name_accepted((int)accepted, &name);
    if (done == 0) done = raw(SYS_fcntl, accepted, F_SETFL, flags & SOCK_NONBLOCK ? O_NONBLOCK : 0);
    if (done == 0 && !(flags & SOCK_CLOEXEC)) done = raw(SYS_fcntl, accepted, F_SETFD, 0);
    if (done == 0 && address) done = address_write(&record.peer, name.family, address, length);
    if (done == 0) return accepted;
    close_descriptor((int)accepted);
    return done;
}

long virtual_accept(int descriptor, struct sockaddr *address, socklen_t *length) {
    return virtual_accept4(descriptor, address, length, 0);
}
