/* data.c: the calls that move bytes and that an AF_UNIX descriptor would answer differently from TCP.
 *
 * The plain forms (no address, no unusual flag) of a connected stream are the kernel's: read and write without a look at the
 * descriptor, recv and send after one look at the name of its other end, which tells it from the others: datagrams (datagram.c),
 * and streams that are not connected, of which the pair would take and give bytes.
 */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>

#include "datagram.h"
#include "environment.h"
#include "kernel.h"
#include "memory.h"
#include "names.h"
#include "socket.h"
#include "wrapped.h"

#ifndef MSG_FASTOPEN
#define MSG_FASTOPEN 0x20000000
#endif

/* Flags that mean something else, or nothing, on AF_UNIX: the error queue is empty, TRUNC discards without copying, and a WAITALL
 * that ends early takes the error that ended it. */
#define UNUSUAL_RECEIVE (MSG_ERRQUEUE | MSG_TRUNC | MSG_WAITALL)
#define MESSAGES_MAX 1024 /* UIO_MAXIOV */

/* PLAIN: a connected stream of ours in a call that an AF_UNIX stream answers as TCP does. */
enum kind { NOT_OURS, PLAIN, STREAM, DATAGRAMS };

static enum kind kind_of(int descriptor, bool plain, struct netcon_name_program *name) {
    int connected = plain ? names_connected(descriptor) : -1;
    if (connected >= 0) return connected ? PLAIN : NOT_OURS;
    if (!names_program(descriptor, name)) return NOT_OURS;
    return is_datagrams(name) ? DATAGRAMS : STREAM;
}

static long true_end(int descriptor, long done) { return done == -ECONNRESET ? socket_end(descriptor) : done; }

static long broken_pipe(int flags) {
    if (!(flags & MSG_NOSIGNAL)) raw(SYS_tgkill, raw(SYS_getpid), raw(SYS_gettid), SIGPIPE);
    return -EPIPE;
}

/* A stream of ours was sent to, without the signal. TCP tells first why a connection has ended, or was not made; then EPIPE. */
static long true_refusal(int descriptor, long done, int flags) {
    if (done != -EPIPE) return done;
    int error = 0;
    socklen_t length = sizeof error;
    raw(SYS_getsockopt, descriptor, SOL_SOCKET, SO_ERROR, &error, &length);
    return error == ECONNRESET ? socket_end(descriptor) : broken_pipe(flags);
}

/* recv with MSG_TRUNC on TCP: takes up to `length` bytes and copies none; with MSG_PEEK only counts them. */
static long discard(int descriptor, size_t length, int flags) {
    char waste[16384];
    size_t total = 0;
    flags &= ~MSG_TRUNC;
    if (flags & MSG_PEEK) {
        int queued = 0;
        long done = raw(SYS_recvfrom, descriptor, waste, length ? 1 : 0, flags, NULL, NULL);
        if (done <= 0) return done;
        done = raw(SYS_ioctl, descriptor, FIONREAD, &queued);
        if (done < 0) return done;
        return (size_t)queued < length ? queued : (long)length;
    }
    do {
        size_t room = length - total < sizeof waste ? length - total : sizeof waste;
        int now = total && !(flags & MSG_WAITALL) ? flags | MSG_DONTWAIT : flags;
        long done = raw(SYS_recvfrom, descriptor, waste, room, now, NULL, NULL);
        if (done <= 0) return total ? (long)total : done;
        total += (size_t)done;
    } while (total < length);
    return (long)total;
}

/* Waits as recv would; takes nothing. False: an error or a signal is next, or nothing for as long as recv may wait. */
static bool more_comes(int descriptor, int flags) {
    struct timeval limit = {0};
    struct timespec left = {0}, *until = &left;
    struct pollfd wanted = {.fd = descriptor, .events = POLLIN};
    socklen_t length = sizeof limit;
    long open_flags = raw(SYS_fcntl, descriptor, F_GETFL);
    if (!(flags & MSG_DONTWAIT) && open_flags >= 0 && !(open_flags & O_NONBLOCK)) {
        raw(SYS_getsockopt, descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, &length);
        left = (struct timespec){limit.tv_sec, limit.tv_usec * 1000};
        if (!left.tv_sec && !left.tv_nsec) until = NULL;
    }
    int queued = 0;
    if (raw(SYS_ppoll, &wanted, 1, until, NULL, 8) != 1) return false;
    return !(wanted.revents & POLLERR) || (raw(SYS_ioctl, descriptor, FIONREAD, &queued) == 0 && queued > 0);
}

/* recv with MSG_WAITALL on TCP leaves the error that ends it early to the next call. `begun`: this is not the first part of it. */
static long receive_all(int descriptor, char *buffer, size_t length, int flags, bool begun) {
    size_t total = 0;
    while (total < length && (!(begun || total) || more_comes(descriptor, flags))) {
        long done = raw(SYS_recvfrom, descriptor, buffer + total, length - total, flags & ~MSG_WAITALL, NULL, NULL);
        if (done < 0 && !begun && !total) return done;
        if (done <= 0) break;
        total += (size_t)done;
    }
    return (long)total;
}

static long receive_all_parts(int descriptor, const struct msghdr *message, int flags) {
    long total = 0;
    for (size_t i = 0; i < message->msg_iovlen; i++) {
        const struct iovec *part = &message->msg_iov[i];
        long done = receive_all(descriptor, part->iov_base, part->iov_len, flags, total > 0);
        if (done < 0) return total ? total : done;
        total += done;
        if ((size_t)done < part->iov_len) break;
    }
    return total;
}

/* Whether a receive waits for all that it asks for, and not in vain. */
static bool wants_all(int flags, size_t room) { return (flags & (MSG_WAITALL | MSG_PEEK | MSG_TRUNC)) == MSG_WAITALL && room > 0; }

long virtual_recvfrom(int descriptor, void *buffer, size_t length, int flags, struct sockaddr *address, socklen_t *address_length) {
    struct netcon_name_program name;
    enum kind kind = kind_of(descriptor, !address && !(flags & UNUSUAL_RECEIVE), &name);
    if (kind <= PLAIN) return true_end(descriptor, raw(SYS_recvfrom, descriptor, buffer, length, flags, address, address_length));
    if (kind == DATAGRAMS) {
        struct iovec part = {buffer, length};
        struct msghdr message = {.msg_name = address, .msg_iov = &part, .msg_iovlen = 1};
        if (address && !address_length) return -EFAULT;
        if (address) message.msg_namelen = *address_length;
        long done = datagram_receive(descriptor, &name, &message, flags);
        if (done >= 0 && address) *address_length = message.msg_namelen;
        return done;
    }
    if (flags & MSG_ERRQUEUE) return -EAGAIN;
    if (names_unconnected(descriptor)) return -ENOTCONN;
    long done = flags & MSG_TRUNC          ? discard(descriptor, length, flags)
                : wants_all(flags, length) ? receive_all(descriptor, buffer, length, flags, false)
                                           : raw(SYS_recvfrom, descriptor, buffer, length, flags, NULL, NULL);
    if (done >= 0 && address && address_length) *address_length = 0;
    return true_end(descriptor, done);
}

/* A copy whose lengths have 32 bits, as musl has them: the other half is padding there, and undefined. */
static struct msghdr copied(const struct msghdr *message) {
    struct msghdr copy = *message;
    copy.msg_iovlen = (uint32_t)copy.msg_iovlen;
    copy.msg_controllen = (uint32_t)copy.msg_controllen;
    return copy;
}

static size_t room_of(const struct msghdr *message) {
    size_t room = 0;
    for (size_t i = 0; i < message->msg_iovlen && i < MESSAGES_MAX; i++)
        room += message->msg_iov[i].iov_len;
    return room;
}

long virtual_recvmsg(int descriptor, struct msghdr *message, int flags) {
    if (!message) return raw(SYS_recvmsg, descriptor, message, flags);
    struct netcon_name_program name;
    enum kind kind = kind_of(descriptor, !message->msg_name && !(flags & UNUSUAL_RECEIVE), &name);
    bool ours = kind == STREAM;
    if (kind <= PLAIN && !settings.musl) return true_end(descriptor, raw(SYS_recvmsg, descriptor, message, flags));
    struct msghdr copy = copied(message);
    if (kind == DATAGRAMS) {
        if (copy.msg_name && (int)copy.msg_namelen < 0) return -EINVAL;
        long received = datagram_receive(descriptor, &name, &copy, flags);
        if (received < 0) return received;
        message->msg_namelen = copy.msg_namelen;
        message->msg_controllen = copy.msg_controllen;
        message->msg_flags = copy.msg_flags;
        return received;
    }
    if (ours && (flags & MSG_ERRQUEUE)) return -EAGAIN;
    if (ours) {
        if (names_unconnected(descriptor)) return -ENOTCONN;
        copy.msg_name = NULL;
        copy.msg_namelen = 0;
    }
    long done;
    if (ours && (flags & MSG_TRUNC)) {
        done = discard(descriptor, room_of(&copy), flags);
        copy.msg_controllen = 0;
        copy.msg_flags = 0;
    } else if (ours && wants_all(flags, room_of(&copy)) && copy.msg_iovlen <= MESSAGES_MAX) {
        done = receive_all_parts(descriptor, &copy, flags);
        copy.msg_controllen = 0;
        copy.msg_flags = 0;
    } else {
        done = raw(SYS_recvmsg, descriptor, &copy, flags);
    }
    if (done >= 0) {
        message->msg_namelen = copy.msg_namelen;
        message->msg_controllen = copy.msg_controllen;
        message->msg_flags = copy.msg_flags;
    }
    return true_end(descriptor, done);
}

static long long now_nanoseconds(void) {
    struct timespec now;
    raw(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}

long virtual_recvmmsg(int descriptor, struct mmsghdr *messages, unsigned int count, int flags, struct timespec *timeout) {
    struct netcon_name_program name;
    enum kind kind = kind_of(descriptor, false, &name);
    if (!settings.musl && kind == NOT_OURS) return raw(SYS_recvmmsg, descriptor, messages, count, flags, timeout);
    if (kind == STREAM) { /* the one call that tells a pending error before what is queued */
        int error = 0;
        socklen_t length = sizeof error;
        if (virtual_getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error) return -error;
    }
    /* As in the kernel the time limit is looked at after each message only. */
    long long end = timeout ? now_nanoseconds() + timeout->tv_sec * 1000000000ll + timeout->tv_nsec : LLONG_MAX;
    unsigned int got = 0;
    while (got < count && got < MESSAGES_MAX) {
        long done = virtual_recvmsg(descriptor, &messages[got].msg_hdr, flags & ~MSG_WAITFORONE);
        if (done < 0) return got ? (long)got : done;
        messages[got++].msg_len = (unsigned int)done;
        if (flags & MSG_WAITFORONE) flags |= MSG_DONTWAIT;
        if ((done == 0 && kind != DATAGRAMS) || (timeout && now_nanoseconds() >= end)) break;
    }
    return got;
}

/* connect and send in one call; programs fall back to two. */
static long refuse_fastopen(int descriptor) { return names_service(descriptor, NULL) == 'C' ? -EISCONN : -EOPNOTSUPP; }

long virtual_sendto(int descriptor, const void *buffer, size_t length, int flags, const struct sockaddr *address,
                    socklen_t address_length) {
    struct netcon_name_program name;
    enum kind kind = kind_of(descriptor, !address && !(flags & MSG_FASTOPEN), &name);
    if (kind == NOT_OURS) {
        struct msghdr message = {.msg_name = (void *)address, .msg_namelen = address_length};
        return socket_leaves_loopback(descriptor, &message)
                   ? -ENETUNREACH
                   : raw(SYS_sendto, descriptor, buffer, length, flags, address, address_length);
    }
    if (kind == DATAGRAMS) {
        struct iovec part = {(void *)buffer, length};
        struct msghdr message = {.msg_name = (void *)address, .msg_namelen = address_length, .msg_iov = &part, .msg_iovlen = 1};
        return datagram_send(descriptor, &name, &message, flags);
    }
    if (kind == STREAM && (flags & MSG_FASTOPEN)) return refuse_fastopen(descriptor);
    if (kind == STREAM && names_unconnected(descriptor)) return broken_pipe(flags);
    return true_refusal(descriptor, raw(SYS_sendto, descriptor, buffer, length, flags | MSG_NOSIGNAL, NULL, 0), flags);
}

/* musl's struct cmsghdr has a 32-bit length and padding where the kernel has 64 bits. */
static long send_from_musl(int descriptor, struct msghdr *copy, int flags) {
    union {
        struct cmsghdr header;
        char bytes[2048];
    } control;
    if (copy->msg_controllen > sizeof control) return -ENOMEM; /* as musl itself */
    if (copy->msg_controllen) {
        memcpy(&control, copy->msg_control, copy->msg_controllen);
        copy->msg_control = &control;
        for (size_t at = 0; at + sizeof(struct cmsghdr) <= copy->msg_controllen;) {
            struct cmsghdr *header = (struct cmsghdr *)(void *)(control.bytes + at);
            header->cmsg_len = (uint32_t)header->cmsg_len;
            if (header->cmsg_len < sizeof *header) break;
            at += CMSG_ALIGN(header->cmsg_len);
        }
    }
    return raw(SYS_sendmsg, descriptor, copy, flags);
}

long virtual_sendmsg(int descriptor, const struct msghdr *message, int flags) {
    if (!message) return raw(SYS_sendmsg, descriptor, message, flags);
    bool unusual = message->msg_name || (uint32_t)message->msg_controllen || (flags & MSG_FASTOPEN);
    struct netcon_name_program name;
    enum kind kind = kind_of(descriptor, !unusual, &name);
    if (kind == NOT_OURS && unusual && socket_leaves_loopback(descriptor, message)) return -ENETUNREACH;
    if (kind == NOT_OURS && !settings.musl) return raw(SYS_sendmsg, descriptor, message, flags);
    struct msghdr copy = copied(message);
    if (kind == DATAGRAMS) {
        if (!copy.msg_namelen) copy.msg_name = NULL; /* as the kernel; sendto says EINVAL */
        return datagram_send(descriptor, &name, &copy, flags);
    }
    if (kind == NOT_OURS) return send_from_musl(descriptor, &copy, flags);
    if (kind == STREAM && (flags & MSG_FASTOPEN)) return refuse_fastopen(descriptor);
    if (kind == STREAM && names_unconnected(descriptor)) return broken_pipe(flags);
    copy.msg_name = NULL;
    copy.msg_namelen = 0;
    /* TCP ignores descriptors in control data; the service's end must not get them. */
    copy.msg_control = NULL;
    copy.msg_controllen = 0;
    return true_refusal(descriptor, raw(SYS_sendmsg, descriptor, &copy, flags | MSG_NOSIGNAL), flags);
}

long virtual_sendmmsg(int descriptor, struct mmsghdr *messages, unsigned int count, int flags) {
    struct netcon_name_program name;
    bool native = !settings.musl && kind_of(descriptor, false, &name) == NOT_OURS;
    for (unsigned int i = 0; native && !is_impossible(messages) && i < count && i < MESSAGES_MAX; i++)
        native = !socket_leaves_loopback(descriptor, &messages[i].msg_hdr);
    if (native) return raw(SYS_sendmmsg, descriptor, messages, count, flags);
    unsigned int sent = 0;
    while (sent < count && sent < MESSAGES_MAX) {
        long done = virtual_sendmsg(descriptor, &messages[sent].msg_hdr, flags);
        if (done < 0) return sent ? (long)sent : done;
        messages[sent++].msg_len = (unsigned int)done;
    }
    return sent;
}

ssize_t wrapped_recv(int descriptor, void *buffer, size_t length, int flags) {
    return result(is_active() ? entered_recvfrom(descriptor, buffer, length, flags, NULL, NULL)
                              : raw(SYS_recvfrom, descriptor, buffer, length, flags, NULL, NULL));
}

ssize_t wrapped_send(int descriptor, const void *buffer, size_t length, int flags) {
    return result(is_active() ? entered_sendto(descriptor, buffer, length, flags, NULL, 0)
                              : raw(SYS_sendto, descriptor, buffer, length, flags, NULL, 0));
}

/* glibc's own answer to an overflow found by _FORTIFY_SOURCE, which alone calls the two functions below. */
extern void __chk_fail(void) __attribute__((weak, noreturn));

static void check_room(size_t length, size_t room) {
    if (length <= room) return;
    if (__chk_fail) __chk_fail();
    __builtin_trap();
}

ssize_t wrapped___recv_chk(int descriptor, void *buffer, size_t length, size_t room, int flags) {
    check_room(length, room);
    return wrapped_recv(descriptor, buffer, length, flags);
}

ssize_t wrapped___recvfrom_chk(int descriptor, void *buffer, size_t length, size_t room, int flags, struct sockaddr *address,
                               socklen_t *address_length) {
    check_room(length, room);
    return wrapped_recvfrom(descriptor, buffer, length, flags, address, address_length);
}
