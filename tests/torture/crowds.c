/* crowds.c: operations that are many calls, for several actors at the same time.
 *
 * What each of them says is the same however their calls interleave: a stream has one writer and one reader, a queue of connections
 * is emptied by counts, and everything else is private.
 */
#include "torture.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PIECE 20000

/* A call that a signal may interrupt. */
#define RESUMED(call)                                                                                                              \
    ({                                                                                                                             \
        long done_;                                                                                                                \
        do                                                                                                                         \
            done_ = (call);                                                                                                        \
        while (done_ < 0 && errno == EINTR);                                                                                       \
        done_;                                                                                                                     \
    })

/* Where a private exercise failed. */
#define STEP(condition)                                                                                                            \
    do {                                                                                                                           \
        errno = 0;                                                                                                                 \
        if (!(condition)) {                                                                                                        \
            fault = __LINE__ * 1000 + errno;                                                                                       \
            goto end;                                                                                                              \
        }                                                                                                                          \
    } while (0)

static int connect_through(int fd, const struct sockaddr_storage *address, socklen_t length) {
    if (connect(fd, (const void *)address, length) == 0) return 0;
    if (errno != EINTR) return -1;
    struct pollfd polled = {.fd = fd, .events = POLLOUT};
    RESUMED(poll(&polled, 1, STUCK_MS));
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    errno = error;
    return error ? -1 : 0;
}

static bool send_all(int fd, const unsigned char *data, size_t length) {
    while (length) {
        long n = RESUMED(send(fd, data, length, MSG_NOSIGNAL));
        if (n <= 0) return false;
        data += n;
        length -= (size_t)n;
    }
    return true;
}

static bool receive_all(int fd, unsigned char *data, size_t length) {
    while (length) {
        long n = RESUMED(recv(fd, data, length, MSG_WAITALL));
        if (n <= 0) return false;
        data += n;
        length -= (size_t)n;
    }
    return true;
}

/* A listener, a connection over it, bytes both ways, the end: all private. Returns 0, or line * 1000 + errno. */
static int exercise_stream(long seed) {
    struct sockaddr_storage address, peer;
    socklen_t length = make_address(&address, false, 0), size = sizeof peer;
    unsigned char out[700], in[700];
    int fault = 0, listener = -1, client = -1, server = -1;
    for (size_t i = 0; i < sizeof out; i++)
        out[i] = pattern(seed, i);
    STEP((listener = socket(family, SOCK_STREAM | (seed & 1 ? SOCK_CLOEXEC : 0), 0)) >= 0);
    STEP(bind(listener, (void *)&address, length) == 0);
    STEP(listen(listener, 3) == 0);
    STEP(getsockname(listener, (void *)&address, &length) == 0);
    STEP((client = socket(family, SOCK_STREAM | (seed & 2 ? SOCK_NONBLOCK : 0), 0)) >= 0);
    if (seed & 2) {
        STEP(connect(client, (void *)&address, length) == 0 || errno == EINPROGRESS);
        struct pollfd polled = {.fd = client, .events = POLLOUT};
        STEP(RESUMED(poll(&polled, 1, STUCK_MS)) == 1 && polled.revents == POLLOUT);
        STEP(fcntl(client, F_SETFL, 0) == 0);
    } else {
        STEP(connect_through(client, &address, length) == 0);
    }
    STEP((server = (int)RESUMED(accept(listener, (void *)&peer, &size))) >= 0);
    struct sockaddr_storage mine;
    length = sizeof mine;
    STEP(getsockname(client, (void *)&mine, &length) == 0 && port_of(&mine) == port_of(&peer));
    STEP(send_all(client, out, sizeof out) && receive_all(server, in, sizeof in) && memcmp(in, out, sizeof in) == 0);
    STEP(shutdown(client, SHUT_WR) == 0);
    STEP(RESUMED(recv(server, in, 1, 0)) == 0);
    memset(in, 0, sizeof in);
    STEP(send_all(server, out, sizeof out) && receive_all(client, in, sizeof in) && memcmp(in, out, sizeof in) == 0);
    STEP(close(server) == 0);
    server = -1;
    STEP(RESUMED(read(client, in, 1)) == 0);
end:
    if (listener >= 0) close(listener);
    if (client >= 0) close(client);
    if (server >= 0) close(server);
    return fault;
}

static int exercise_datagrams(long seed) {
    struct sockaddr_storage address[2], from;
    socklen_t length = make_address(&address[0], false, 0), size;
    unsigned char out[300], in[400];
    int fault = 0, ends[2] = {-1, -1};
    for (size_t i = 0; i < sizeof out; i++)
        out[i] = pattern(seed, i);
    for (int i = 0; i < 2; i++) {
        length = make_address(&address[i], false, 0);
        STEP((ends[i] = socket(family, SOCK_DGRAM, 0)) >= 0);
        STEP(bind(ends[i], (void *)&address[i], length) == 0 && getsockname(ends[i], (void *)&address[i], &length) == 0);
    }
    STEP(RESUMED(sendto(ends[0], out, sizeof out, 0, (void *)&address[1], length)) == sizeof out);
    size = sizeof from;
    STEP(RESUMED(recvfrom(ends[1], in, sizeof in, 0, (void *)&from, &size)) == sizeof out && memcmp(in, out, sizeof out) == 0);
    STEP(port_of(&from) == port_of(&address[0]));
    STEP(connect(ends[1], (void *)&address[0], length) == 0);
    STEP(RESUMED(write(ends[1], out, 9)) == 9 && RESUMED(recv(ends[0], in, sizeof in, 0)) == 9);
end:
    for (int i = 0; i < 2; i++)
        if (ends[i] >= 0) close(ends[i]);
    return fault;
}

/* A connection's end passed through a channel to ourselves, and used by its new number. */
static int exercise_passing(long seed) {
    struct sockaddr_storage address;
    socklen_t length = make_address(&address, false, 0);
    int fault = 0, listener = -1, client = -1, server = -1, channel[2] = {-1, -1}, passed = -1;
    unsigned char out[100], in[100];
    for (size_t i = 0; i < sizeof out; i++)
        out[i] = pattern(seed, i);
    STEP((listener = socket(family, SOCK_STREAM, 0)) >= 0);
    STEP(listen(listener, 3) == 0 && getsockname(listener, (void *)&address, &length) == 0);
    unsigned port = port_of(&address);
    length = make_address(&address, false, port);
    STEP((client = socket(family, SOCK_STREAM, 0)) >= 0 && connect_through(client, &address, length) == 0);
    STEP((server = (int)RESUMED(accept(listener, NULL, NULL))) >= 0);
    STEP(socketpair(AF_UNIX, SOCK_STREAM, 0, channel) == 0);
    char byte = 'p';
    struct iovec part = {&byte, 1};
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(&control.header), &client, sizeof client);
    STEP(RESUMED(sendmsg(channel[0], &message, 0)) == 1);
    close(client);
    client = -1;
    STEP(RESUMED(recvmsg(channel[1], &message, 0)) == 1 && message.msg_controllen >= sizeof control.header);
    memcpy(&passed, CMSG_DATA(&control.header), sizeof passed);
    STEP(send_all(passed, out, sizeof out) && receive_all(server, in, sizeof in) && memcmp(in, out, sizeof in) == 0);
    STEP(close(passed) == 0);
    passed = -1;
    STEP(RESUMED(recv(server, in, 1, 0)) == 0);
end:
    for (int *fd = (int[]){listener, client, server, channel[0], channel[1], passed, -2}; *fd != -2; fd++)
        if (*fd >= 0) close(*fd);
    return fault;
}

static int exercise(long seed, long turns) {
    for (long i = 0; i < turns; i++) {
        int fault = (seed + i) % 4 == 3   ? exercise_datagrams(seed + i)
                    : (seed + i) % 4 == 2 ? exercise_passing(seed + i)
                                          : exercise_stream(seed + i);
        if (fault) return fault;
    }
    return 0;
}

static void say_fault(char *text, int fault) {
    if (fault)
        say(text, "line %d errno %d", fault / 1000, fault % 1000);
    else
        say(text, "well");
}

/* forks CHILDREN TURNS SEED */
static void fork_crowd(const struct line *line, char *text) {
    pid_t pids[32];
    int fault = 0;
    long count = line->a[0];
    storm_pause(true);
    for (long i = 0; i < count; i++)
        if ((pids[i] = fork()) == 0) {
            storm_forget();
            int found = exercise(line->a[2] + 17 * i, line->a[1]);
            if (found) dprintf(2, "torture: line %d errno %d\n", found / 1000, found % 1000);
            _exit(found ? 1 : 0);
        }
    storm_pause(false);
    for (long i = 0; i < count; i++) {
        int status = -1;
        RESUMED(waitpid(pids[i], &status, 0));
        fault |= status;
    }
    say(text, "%d", fault);
}

struct exercise {
    long seed, turns;
    int fault;
};

static void *thread_exercise(void *argument) {
    struct exercise *one = argument;
    one->fault = exercise(one->seed, one->turns);
    return NULL;
}

/* threads COUNT TURNS SEED */
static void thread_crowd(const struct line *line, char *text) {
    pthread_t ids[32];
    struct exercise all[32];
    for (long i = 0; i < line->a[0]; i++) {
        all[i] = (struct exercise){line->a[2] + 17 * i, line->a[1], 0};
        if (pthread_create(&ids[i], NULL, thread_exercise, &all[i])) say(text, "no thread ");
    }
    for (long i = 0; i < line->a[0]; i++) {
        pthread_join(ids[i], NULL);
        say_fault(text, all[i].fault);
        say(text, " ");
    }
}

/* pump SLOT BYTES SEED: by all the ways to write, in pieces of all sizes; drain SLOT BYTES SEED: the same for reading. */
static void pump(const struct line *line, char *text) {
    unsigned char *data = malloc(PIECE);
    unsigned state = (unsigned)line->a[2];
    size_t left = (size_t)line->a[1], at = 0;
    int fd = fds[line->a[0]];
    while (left) {
        state = state * 1103515245u + 12345u;
        size_t length = 1 + (state >> 8) % PIECE, half;
        if (length > left) length = left;
        half = length / 2;
        for (size_t i = 0; i < length; i++)
            data[i] = pattern(line->a[2], at + i);
        struct iovec parts[2] = {{data, half}, {data + half, length - half}};
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
        struct pollfd polled = {.fd = fd, .events = POLLOUT};
        long n;
        switch (state >> 24 & 3) {
        case 0:
            n = write(fd, data, length);
            break;
        case 1:
            n = writev(fd, parts, 2);
            break;
        case 2:
            n = sendmsg(fd, &message, MSG_NOSIGNAL);
            break;
        default:
            n = send(fd, data, length, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (n < 0 && errno == EAGAIN) RESUMED(poll(&polled, 1, STUCK_MS));
        }
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (n <= 0) {
            say(text, "error %d after %zu", errno, at);
            break;
        }
        at += (size_t)n;
        left -= (size_t)n;
    }
    if (!left) say(text, "wrote %zu", at);
    free(data);
}

static void drain(const struct line *line, char *text) {
    unsigned char *data = malloc(PIECE);
    unsigned state = (unsigned)line->a[2] + 99;
    size_t left = (size_t)line->a[1], at = 0, wrong = 0;
    int fd = fds[line->a[0]];
    while (left) {
        state = state * 1103515245u + 12345u;
        size_t length = 1 + (state >> 8) % PIECE, half;
        if (length > left) length = left;
        half = length / 2;
        struct iovec parts[2] = {{data, half}, {data + half, length - half}};
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
        struct pollfd polled = {.fd = fd, .events = POLLIN};
        long n;
        switch (state >> 24 & 3) {
        case 0:
            n = read(fd, data, length);
            break;
        case 1:
            n = recv(fd, data, length, state >> 23 & 1 ? MSG_WAITALL : 0);
            break;
        case 2:
            n = recvmsg(fd, &message, 0);
            break;
        default:
            n = recv(fd, data, length, MSG_DONTWAIT);
            if (n < 0 && errno == EAGAIN) RESUMED(poll(&polled, 1, STUCK_MS));
        }
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (n <= 0) {
            say(text, "error %d after %zu", n ? errno : 0, at);
            break;
        }
        for (long i = 0; i < n; i++)
            wrong += data[i] != pattern(line->a[2], at + (size_t)i);
        at += (size_t)n;
        left -= (size_t)n;
    }
    if (!left) say(text, "read %zu, %zu wrong", at, wrong);
    free(data);
}

/* serve LISTENER COUNT HOW: take so many connections, give each a byte, close. 0 blocking, 1 poll, 2 epoll. */
static void serve(const struct line *line, char *text) {
    int listener = fds[line->a[0]], set = -1;
    struct epoll_event event = {.events = EPOLLIN};
    if (line->a[2] == 2) {
        set = epoll_create1(EPOLL_CLOEXEC);
        epoll_ctl(set, EPOLL_CTL_ADD, listener, &event);
    }
    for (long taken = 0; taken < line->a[1];) {
        struct pollfd polled = {.fd = listener, .events = POLLIN};
        if (line->a[2] == 1) RESUMED(poll(&polled, 1, STUCK_MS));
        if (line->a[2] == 2) RESUMED(epoll_wait(set, &event, 1, STUCK_MS));
        int fd = (int)RESUMED(accept(listener, NULL, NULL));
        if (fd < 0 && errno == EAGAIN) continue; /* another one has taken it */
        if (fd < 0 || RESUMED(send(fd, "k", 1, MSG_NOSIGNAL)) != 1) {
            say(text, "error %d after %ld ", errno, taken);
            break;
        }
        close(fd);
        taken++;
    }
    if (set >= 0) close(set);
    say(text, "served");
}

/* visit LISTENER COUNT AT_ONCE: connect so many times, some at once; read the byte and the end of each. */
static void visit(const struct line *line, char *text) {
    struct sockaddr_storage address;
    socklen_t length = make_address(&address, false, atomic_load(&shared->ports[line->a[0]]));
    int made[16];
    for (long done = 0; done < line->a[1];) {
        int count = 0;
        for (; count < line->a[2] && done < line->a[1]; count++, done++) {
            made[count] = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0);
            if (made[count] < 0 || (connect(made[count], (void *)&address, length) != 0 && errno != EINPROGRESS)) {
                say(text, "error %d ", errno);
                return;
            }
        }
        for (int i = 0; i < count; i++) {
            char bytes[2];
            struct pollfd polled = {.fd = made[i], .events = POLLOUT};
            if (RESUMED(poll(&polled, 1, STUCK_MS)) != 1) say(text, "silence ");
            fcntl(made[i], F_SETFL, 0);
            long n = RESUMED(recv(made[i], bytes, 2, MSG_WAITALL));
            if (n != 1) say(text, "%ld (errno %d) ", n, n < 0 ? errno : 0);
            close(made[i]);
        }
    }
    say(text, "visited");
}

/* copies SLOT TURNS: of a descriptor that others use, at free numbers and over each other. */
static void copies(const struct line *line, char *text) {
    int fd = fds[line->a[0]];
    for (long i = 0; i < line->a[1]; i++) {
        int one = dup(fd), two = fcntl(fd, F_DUPFD_CLOEXEC, 600), three = dup3(one, two, O_CLOEXEC);
        if (one < 0 || two < 0 || three != two) say(text, "error %d ", errno);
        close(one);
        close(two);
    }
    say(text, "copied");
}

/* full KEEP: copies until the table is full, and then KEEP of them closed; undone by `empty`. */
static int fillers[1100], filled;

static void fill(const struct line *line, char *text) {
    int fd;
    while (filled < 1100 && (fd = dup(1)) >= 0)
        fillers[filled++] = fd;
    say(text, "%d errno %d", filled, errno);
    for (long i = 0; i < line->a[0] && filled > 0; i++)
        close(fillers[--filled]);
}

static void empty(char *text) {
    while (filled > 0)
        close(fillers[--filled]);
    say(text, "empty");
}

/* many PAIRS SEED DATAGRAMS: connections that are open at the same time, each used both ways; every other one is made again. Beside
 * them sockets for datagrams, each of which sends to the next. */
static void many(const struct line *line, char *text) {
    long pairs = line->a[0], fault = 0;
    long extra = line->a[2];
    int *ends = malloc((size_t)pairs * 2 * sizeof *ends), *others = malloc((size_t)extra * sizeof *others), listener = -1;
    struct sockaddr_storage address;
    socklen_t length = make_address(&address, false, 0);
    unsigned char out, in;
    memset(others, -1, (size_t)extra * sizeof *others);
    STEP((listener = socket(family, SOCK_STREAM, 0)) >= 0 && bind(listener, (void *)&address, length) == 0);
    STEP(listen(listener, 64) == 0 && getsockname(listener, (void *)&address, &length) == 0);
    for (long i = 0; i < extra; i++) {
        struct sockaddr_storage here;
        socklen_t size = make_address(&here, false, 0);
        STEP((others[i] = socket(family, SOCK_DGRAM, 0)) >= 0 && bind(others[i], (void *)&here, size) == 0);
        if (i == 0) continue;
        STEP(getsockname(others[i], (void *)&here, &size) == 0);
        STEP(RESUMED(sendto(others[i - 1], &i, sizeof i, 0, (void *)&here, size)) == sizeof i);
    }
    for (long i = 1, got = 0; i < extra; i++)
        STEP(RESUMED(recv(others[i], &got, sizeof got, 0)) == sizeof got && got == i);
    for (int round = 0; round < 2; round++) {
        for (long i = 0; i < pairs; i += 1 + round) {
            STEP((ends[2 * i] = socket(family, SOCK_STREAM, 0)) >= 0);
            STEP(connect_through(ends[2 * i], &address, length) == 0);
            STEP((ends[2 * i + 1] = (int)RESUMED(accept(listener, NULL, NULL))) >= 0);
        }
        for (long i = 0; i < 2 * pairs; i++) {
            out = pattern(line->a[1], (size_t)i);
            STEP(send_all(ends[i], &out, 1));
        }
        for (long i = 0; i < 2 * pairs; i++)
            STEP(receive_all(ends[i ^ 1], &in, 1) && in == pattern(line->a[1], (size_t)i));
        for (long i = 0; i < pairs; i += 2 - round)
            for (int end = 0; end < 2; end++)
                close(ends[2 * i + end]);
    }
end:
    close(listener);
    free(ends);
    for (long i = 0; i < extra; i++)
        close(others[i]);
    free(others);
    say_fault(text, (int)fault);
}

bool perform_crowd(const struct line *line, char *text) {
    const char *name = line->name;
#define IS(what) (strcmp(name, what) == 0)
    if IS ("exercise")
        say_fault(text, exercise(line->a[1], line->a[0]));
    else if IS ("forks")
        fork_crowd(line, text);
    else if IS ("threads")
        thread_crowd(line, text);
    else if IS ("pump")
        pump(line, text);
    else if IS ("drain")
        drain(line, text);
    else if IS ("serve")
        serve(line, text);
    else if IS ("visit")
        visit(line, text);
    else if IS ("copies")
        copies(line, text);
    else if IS ("full")
        fill(line, text);
    else if IS ("empty")
        empty(text);
    else if IS ("many")
        many(line, text);
    else
        return false;
    return true;
}
