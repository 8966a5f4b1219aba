/* calls.c: one call of a program on the descriptors that a script names, and what it says, without numbers that may differ.
 *
 * Whatever may block is asked to only when the script makes sure that it ends; EINTR is what a storm of signals gives, and the
 * call is made again, as programs do. An answer EAGAIN that is not the expected one is asked for again, for a while.
 */
#include "torture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define BUFFER 65536

unsigned char pattern(long seed, size_t at) { return (unsigned char)((seed * 131 + (long)at * 7 + (long)(at >> 8)) & 255); }

uint32_t hashed(uint32_t hash, const void *data, size_t length) {
    const unsigned char *bytes = data;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ bytes[i]) * 16777619u;
    return hash;
}

socklen_t make_address(struct sockaddr_storage *address, bool any, unsigned port) {
    memset(address, 0, sizeof *address);
    address->ss_family = family;
    if (family == AF_INET6) {
        struct sockaddr_in6 *six = (void *)address;
        inet_pton(AF_INET6, any ? "::" : own_address, &six->sin6_addr);
        six->sin6_port = htons((uint16_t)port);
        return sizeof *six;
    }
    struct sockaddr_in *four = (void *)address;
    inet_pton(AF_INET, any ? "0.0.0.0" : own_address, &four->sin_addr);
    four->sin_port = htons((uint16_t)port);
    return sizeof *four;
}

unsigned port_of(const struct sockaddr_storage *address) {
    return ntohs(address->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)address)->sin6_port
                                                : ((const struct sockaddr_in *)address)->sin_port);
}

/* An address as the script's world knows it: "any", "here", "other"; and the slot whose port it has. */
static void say_address(char *text, const struct sockaddr_storage *address, socklen_t length) {
    if (length < 2 || address->ss_family != family) {
        say(text, "no address");
        return;
    }
    char shown[INET6_ADDRSTRLEN] = "";
    const void *ip = family == AF_INET6 ? (const void *)&((const struct sockaddr_in6 *)address)->sin6_addr
                                        : (const void *)&((const struct sockaddr_in *)address)->sin_addr;
    inet_ntop(family, ip, shown, sizeof shown);
    bool any = strcmp(shown, family == AF_INET6 ? "::" : "0.0.0.0") == 0;
    say(text, any ? "any" : strcmp(shown, own_address) == 0 ? "here" : "elsewhere");
    unsigned port = port_of(address);
    if (port == 0) {
        say(text, " no port");
        return;
    }
    for (int slot = 0; slot < SLOTS; slot++)
        if (atomic_load(&shared->ports[slot]) == port) {
            say(text, " port of %d", slot);
            return;
        }
    say(text, " unknown port");
}

static void learn_port(int slot) {
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    if (getsockname(fds[slot], (void *)&address, &length) == 0) atomic_store(&shared->ports[slot], port_of(&address));
}

/* Nagle's algorithm would hold a script's small pieces back for as long as the other end's delayed acknowledgement takes. */
static void send_at_once(int fd) {
    int yes = 1, saved = errno;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    errno = saved;
}

static void outcome(char *text, long done) {
    if (done < 0)
        say(text, "error %d", errno);
    else
        say(text, "%ld", done);
}

static void made_number(char *text, int fd) {
    if (fd >= 0 && loose)
        say(text, "made");
    else
        outcome(text, fd);
}

/* Whether the call is to be made once more: the network has not come to it, or a signal came. */
static bool again(const struct line *line, long done, int64_t *end) {
    if (done >= 0) return false;
    if (errno == EINTR) return true;
    if (errno != EAGAIN) return false;
    if (*end == 0) *end = now_ms() + PATIENCE_MS;
    if (!expected(line) || strcmp(expected(line), "error 11") == 0 || now_ms() > *end) {
        errno = EAGAIN;
        return false;
    }
    usleep(500);
    return true;
}

static void say_bits(char *text, short bits) {
    static const struct {
        short bit;
        char letter;
    } letters[] = {{POLLIN, 'i'},  {POLLOUT, 'o'}, {POLLRDHUP, 'r'}, {POLLHUP, 'h'},
                   {POLLERR, 'e'}, {POLLPRI, 'p'}, {POLLNVAL, 'n'}};
    for (size_t i = 0; i < sizeof letters / sizeof *letters; i++)
        if (bits & letters[i].bit) say(text, "%c", letters[i].letter);
    say(text, ".");
}

/* observe (SLOT KIND)...: event bits, of all at once; of kind 1 the bytes that wait, too. */
static void observe(const struct line *line, char *text) {
    struct pollfd polled[ARGUMENTS / 2];
    int count = line->count / 2;
    for (int i = 0; i < count; i++)
        polled[i] = (struct pollfd){.fd = fds[line->a[2 * i]], .events = POLLIN | POLLOUT | POLLRDHUP | POLLPRI};
    int done;
    do
        done = poll(polled, (nfds_t)count, 0);
    while (done < 0 && errno == EINTR);
    if (done < 0) say(text, "error %d ", errno);
    for (int i = 0; i < count; i++) {
        int queued = -1;
        say(text, "%ld:", line->a[2 * i]);
        say_bits(text, polled[i].revents);
        if (line->a[2 * i + 1] & 1 && ioctl(polled[i].fd, FIONREAD, &queued) == 0) say(text, "%d", queued);
        say(text, " ");
    }
}

/* select SLOT...: which can be read, written, have an exception. */
static void look_by_select(const struct line *line, char *text) {
    fd_set sets[3];
    int top = 0, done;
    do {
        for (int k = 0; k < 3; k++) {
            FD_ZERO(&sets[k]);
            for (int i = 0; i < line->count; i++) {
                int fd = fds[line->a[i]];
                if (fd < 0 || fd >= FD_SETSIZE) continue;
                FD_SET(fd, &sets[k]);
                if (fd >= top) top = fd + 1;
            }
        }
        struct timeval now = {0};
        done = select(top, &sets[0], &sets[1], &sets[2], &now);
    } while (done < 0 && errno == EINTR);
    outcome(text, done);
    for (int i = 0; done >= 0 && i < line->count; i++) {
        int fd = fds[line->a[i]];
        if (fd >= 0 && fd < FD_SETSIZE)
            say(text, " %ld:%d%d%d", line->a[i], !!FD_ISSET(fd, &sets[0]), !!FD_ISSET(fd, &sets[1]), !!FD_ISSET(fd, &sets[2]));
    }
}

/* epoll_wait SLOT: what is ready, by the slots that were added, in their order. Level-triggered. */
static void look_by_epoll(const struct line *line, char *text) {
    struct epoll_event events[ARGUMENTS];
    int done;
    do
        done = epoll_wait(fds[line->a[0]], events, ARGUMENTS, 0);
    while (done < 0 && errno == EINTR);
    outcome(text, done);
    for (int slot = 0; done > 0 && slot < SLOTS; slot++)
        for (int i = 0; i < done; i++)
            if (events[i].data.u32 == (uint32_t)slot) {
                say(text, " %d:", slot);
                say_bits(text, (short)events[i].events);
            }
}

static void open_socket(const struct line *line, char *text) {
    static const int kinds[] = {SOCK_STREAM, SOCK_DGRAM};
    int flags = (line->a[2] & 1 ? SOCK_NONBLOCK : 0) | (line->a[2] & 2 ? SOCK_CLOEXEC : 0);
    int fd = line->a[2] & 4 ? (int)syscall(SYS_socket, family, kinds[line->a[1]] | flags, 0)
                            : socket(family, kinds[line->a[1]] | flags, 0);
    if (fd >= 0) fds[line->a[0]] = fd;
    made_number(text, fd);
}

/* bind SLOT HOW OTHER: to an address here (0) or any (1), to a free port or that of OTHER (-1: none). */
static void bind_socket(const struct line *line, char *text) {
    struct sockaddr_storage address;
    unsigned port = line->a[2] < 0 ? 0 : atomic_load(&shared->ports[line->a[2]]);
    socklen_t length = make_address(&address, line->a[1], port);
    int done = bind(fds[line->a[0]], (void *)&address, length);
    outcome(text, done);
    if (done == 0) learn_port((int)line->a[0]);
}

/* A blocking connect that a signal interrupts goes on by itself (docs/intercept.md). */
static void connect_socket(const struct line *line, char *text) {
    struct sockaddr_storage address;
    socklen_t length = make_address(&address, false, atomic_load(&shared->ports[line->a[1]]));
    int fd = fds[line->a[0]], done = connect(fd, (void *)&address, length), error = errno;
    if (done < 0 && error == EINTR) {
        struct pollfd polled = {.fd = fd, .events = POLLOUT};
        do
            done = poll(&polled, 1, PATIENCE_MS);
        while (done < 0 && errno == EINTR);
        socklen_t size = sizeof error;
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
        done = error ? -1 : 0;
    }
    errno = error;
    outcome(text, done);
    learn_port((int)line->a[0]);
    send_at_once(fd);
}

/* accept SLOT NEW FLAGS: 1 nonblocking, 2 close-on-exec, 4 by accept, 8 without an address. */
static void accept_socket(const struct line *line, char *text) {
    struct sockaddr_storage address;
    socklen_t length;
    int fd, flags = (line->a[2] & 1 ? SOCK_NONBLOCK : 0) | (line->a[2] & 2 ? SOCK_CLOEXEC : 0);
    int64_t end = 0;
    do {
        length = sizeof address;
        void *where = line->a[2] & 8 ? NULL : &address;
        fd = line->a[2] & 4 ? accept(fds[line->a[0]], where, where ? &length : NULL)
                            : accept4(fds[line->a[0]], where, where ? &length : NULL, flags);
    } while (again(line, fd, &end));
    made_number(text, fd);
    if (fd < 0) return;
    fds[line->a[1]] = fd;
    send_at_once(fd);
    if (line->a[2] & 8) return;
    say(text, " from ");
    say_address(text, &address, length);
}

/* send SLOT LENGTH SEED HOW FLAGS OTHER: OTHER is the slot of the destination, or -1. */
static void send_bytes(const struct line *line, char *text) {
    static _Thread_local unsigned char data[BUFFER];
    size_t length = (size_t)line->a[1];
    int fd = fds[line->a[0]], flags = (int)line->a[4] | MSG_NOSIGNAL;
    for (size_t i = 0; i < length; i++)
        data[i] = pattern(line->a[2], i);
    struct sockaddr_storage address;
    socklen_t size = line->a[5] < 0 ? 0 : make_address(&address, false, atomic_load(&shared->ports[line->a[5]]));
    struct iovec parts[2] = {{data, length / 2}, {data + length / 2, length - length / 2}};
    struct mmsghdr message = {
        .msg_hdr = {.msg_name = size ? &address : NULL, .msg_namelen = size, .msg_iov = parts, .msg_iovlen = 2}};
    long done;
    int64_t end = 0;
    do
        switch (line->a[3]) {
        case 0:
            done = size ? sendto(fd, data, length, flags, (void *)&address, size) : send(fd, data, length, flags);
            break;
        case 1:
            done = sendmsg(fd, &message.msg_hdr, flags);
            break;
        case 2:
            done = sendmmsg(fd, &message, 1, (unsigned)flags);
            if (done == 1) done = message.msg_len;
            break;
        case 3:
            done = write(fd, data, length);
            break;
        default:
            done = writev(fd, parts, 2);
        }
    while (again(line, done, &end));
    outcome(text, done);
}

/* recv SLOT LENGTH HOW FLAGS ADDRESS */
static void receive_bytes(const struct line *line, char *text) {
    static _Thread_local unsigned char data[BUFFER];
    size_t length = (size_t)line->a[1];
    int fd = fds[line->a[0]], flags = (int)line->a[3];
    struct sockaddr_storage address;
    struct iovec parts[2] = {{data, length / 2}, {data + length / 2, length - length / 2}};
    struct mmsghdr message;
    bool wants = line->a[4];
    socklen_t size = 0;
    long done;
    int64_t end = 0;
    memset(data, 0, length);
    do {
        size = sizeof address;
        message = (struct mmsghdr){
            .msg_hdr = {.msg_name = wants ? &address : NULL, .msg_namelen = wants ? size : 0, .msg_iov = parts, .msg_iovlen = 2}};
        switch (line->a[2]) {
        case 0:
            done = wants ? recvfrom(fd, data, length, flags, (void *)&address, &size) : recv(fd, data, length, flags);
            break;
        case 1:
            done = recvmsg(fd, &message.msg_hdr, flags);
            size = message.msg_hdr.msg_namelen;
            break;
        case 2:
            done = recvmmsg(fd, &message, 1, (unsigned)flags, NULL);
            if (done == 1) done = message.msg_len;
            size = message.msg_hdr.msg_namelen;
            break;
        case 3:
            done = read(fd, data, length);
            break;
        default:
            done = readv(fd, parts, 2);
        }
    } while (again(line, done, &end));
    outcome(text, done);
    if (done < 0) return;
    say(text, " %08x", hashed(HASH_START, data, (size_t)done < length ? (size_t)done : length));
    if (line->a[2] == 1) say(text, " flags %x", message.msg_hdr.msg_flags & (MSG_TRUNC | MSG_CTRUNC));
    if (wants && line->a[2] <= 2 && done >= 0) {
        say(text, " from ");
        if (size)
            say_address(text, &address, size);
        else
            say(text, "nobody");
    }
}

/* expect SLOT BITS: wait until all the bits (of poll) show. */
static void await_bits(const struct line *line, char *text) {
    struct pollfd polled = {.fd = fds[line->a[0]], .events = (short)line->a[1]};
    int64_t end = now_ms() + PATIENCE_MS;
    while (poll(&polled, 1, 100) < 1 && now_ms() < end)
        ;
    say_bits(text, polled.revents & (short)line->a[1]);
}

/* name SLOT PEER */
static void name_socket(const struct line *line, char *text) {
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    int done = (line->a[1] ? getpeername : getsockname)(fds[line->a[0]], (void *)&address, &length);
    outcome(text, done);
    say(text, " ");
    if (done == 0) say_address(text, &address, length);
}

static const struct {
    int level, name;
} options[] = {
    {SOL_SOCKET, SO_TYPE},       {SOL_SOCKET, SO_DOMAIN},    {SOL_SOCKET, SO_PROTOCOL},
    {SOL_SOCKET, SO_ACCEPTCONN}, {SOL_SOCKET, SO_ERROR},     {SOL_SOCKET, SO_REUSEADDR},
    {SOL_SOCKET, SO_KEEPALIVE},  {IPPROTO_TCP, TCP_NODELAY}, {SOL_SOCKET, SO_REUSEPORT},
};

static void get_option(const struct line *line, char *text) {
    int value = -1;
    socklen_t length = sizeof value;
    outcome(text, getsockopt(fds[line->a[0]], options[line->a[1]].level, options[line->a[1]].name, &value, &length));
    say(text, " = %d", options[line->a[1]].name == SO_DOMAIN ? value == family : value);
}

static void set_option(const struct line *line, char *text) {
    int value = (int)line->a[2];
    struct linger linger = {1, 0};
    bool lingers = line->a[1] < 0;
    outcome(text, lingers ? setsockopt(fds[line->a[0]], SOL_SOCKET, SO_LINGER, &linger, sizeof linger)
                          : setsockopt(fds[line->a[0]], options[line->a[1]].level, options[line->a[1]].name, &value, sizeof value));
}

/* copy SLOT NEW HOW: dup, fcntl, dup2 or dup3 onto what NEW is. */
static void copy_descriptor(const struct line *line, char *text) {
    int from = fds[line->a[0]], to = fds[line->a[1]], made;
    switch (line->a[2]) {
    case 0:
        made = dup(from);
        break;
    case 1:
        made = fcntl(from, F_DUPFD_CLOEXEC, 20);
        break;
    case 2:
        made = dup2(from, to);
        break;
    default:
        made = dup3(from, to, O_CLOEXEC);
    }
    if (made >= 0) fds[line->a[1]] = made;
    made_number(text, made);
}

/* range FIRST LAST FLAGS: close_range over the numbers of two slots; -1: from 3, to the end. */
static void close_numbers(const struct line *line, char *text) {
    unsigned first = line->a[0] < 0 ? 3 : (unsigned)fds[line->a[0]], last = line->a[1] < 0 ? ~0u : (unsigned)fds[line->a[1]];
    if (last < first) {
        unsigned other = first;
        first = last;
        last = other;
    }
    long done = syscall(SYS_close_range, first, last, line->a[2]);
    outcome(text, done);
    if (done == 0 && line->a[2] == 0)
        for (int slot = 0; slot < SLOTS; slot++)
            if (fds[slot] >= 0 && (unsigned)fds[slot] >= first && (unsigned)fds[slot] <= last) fds[slot] = -1;
}

static void make_two(const struct line *line, char *text, bool channel) {
    int ends[2];
    int done = channel ? socketpair(AF_UNIX, SOCK_STREAM, 0, ends) : pipe(ends);
    outcome(text, done);
    if (done < 0) return;
    fds[line->a[0]] = ends[0];
    fds[line->a[1]] = ends[1];
    for (int i = 0; i < 2; i++) {
        say(text, " ");
        made_number(text, ends[i]);
    }
}

/* pass CHANNEL SLOT; take CHANNEL NEW */
static void pass_descriptor(const struct line *line, char *text, bool takes) {
    char byte = 'd';
    struct iovec part = {&byte, 1};
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    if (takes) {
        long done;
        do
            done = recvmsg(fds[line->a[0]], &message, 0);
        while (done < 0 && errno == EINTR);
        int fd = -1;
        if (done > 0 && message.msg_controllen >= sizeof(struct cmsghdr)) memcpy(&fd, CMSG_DATA(&control.header), sizeof fd);
        if (fd >= 0) fds[line->a[1]] = fd;
        outcome(text, done);
        say(text, " ");
        made_number(text, fd);
        return;
    }
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(&control.header), &fds[line->a[1]], sizeof(int));
    outcome(text, sendmsg(fds[line->a[0]], &message, MSG_NOSIGNAL));
}

static void control_epoll(const struct line *line, char *text) {
    struct epoll_event event = {.events = (uint32_t)line->a[3], .data.u32 = (uint32_t)line->a[1]};
    outcome(text, epoll_ctl(fds[line->a[0]], (int)line->a[2], fds[line->a[1]], &event));
}

static void flags_of(const struct line *line, char *text) {
    outcome(text, fcntl(fds[line->a[0]], line->a[1] ? F_GETFD : F_GETFL) & (line->a[1] ? FD_CLOEXEC : O_NONBLOCK | O_ACCMODE));
}

bool perform_call(const struct line *line, char *text) {
    const char *name = line->name;
    const long *a = line->a;
#define IS(what) (strcmp(name, what) == 0)
    if IS ("observe")
        settle(line, text, observe);
    else if IS ("select")
        settle(line, text, look_by_select);
    else if IS ("epoll_wait")
        settle(line, text, look_by_epoll);
    else if IS ("socket")
        open_socket(line, text);
    else if IS ("bind")
        bind_socket(line, text);
    else if IS ("listen") {
        int done = listen(fds[a[0]], (int)a[1]);
        outcome(text, done);
        if (done == 0) learn_port((int)a[0]);
    } else if IS ("connect")
        connect_socket(line, text);
    else if IS ("accept")
        accept_socket(line, text);
    else if IS ("send")
        send_bytes(line, text);
    else if IS ("recv")
        receive_bytes(line, text);
    else if IS ("await")
        await_bits(line, text);
    else if IS ("shutdown")
        outcome(text, shutdown(fds[a[0]], (int)a[1]));
    else if IS ("name")
        name_socket(line, text);
    else if IS ("get")
        get_option(line, text);
    else if IS ("set")
        set_option(line, text);
    else if IS ("copy")
        copy_descriptor(line, text);
    else if IS ("range")
        close_numbers(line, text);
    else if IS ("channel")
        make_two(line, text, true);
    else if IS ("pipe")
        make_two(line, text, false);
    else if IS ("pass")
        pass_descriptor(line, text, false);
    else if IS ("take")
        pass_descriptor(line, text, true);
    else if IS ("epoll")
        made_number(text, fds[a[0]] = epoll_create1(a[1] ? EPOLL_CLOEXEC : 0));
    else if IS ("control")
        control_epoll(line, text);
    else if IS ("flags")
        flags_of(line, text);
    else if IS ("nonblock")
        outcome(text, fcntl(fds[a[0]], F_SETFL, a[1] ? O_NONBLOCK : 0));
    else if IS ("cloexec")
        outcome(text, fcntl(fds[a[0]], F_SETFD, a[1] ? FD_CLOEXEC : 0));
    else if IS ("close") {
        outcome(text, close(fds[a[0]]));
        fds[a[0]] = -1;
    } else
        return false;
    return true;
}
