/* probe.c: a program whose every step must go as it goes on kernel sockets. Built with gcc and with musl-gcc by the tests.
 *
 *   probe COMMAND [ADDRESS] ...     exits 0, or says which step went wrong
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

#define STEP(condition)                                                                                                            \
    do {                                                                                                                           \
        if (!(condition)) {                                                                                                        \
            printf("line %d: %s (errno %d, %s)\n", __LINE__, #condition, errno, strerror(errno));                                  \
            exit(1);                                                                                                               \
        }                                                                                                                          \
    } while (0)
#define FAILS(call, error) STEP((call) == -1 && errno == (error))

union address {
    struct sockaddr any;
    struct sockaddr_in ipv4;
    struct sockaddr_in6 ipv6;
};

static socklen_t parse(const char *text, int port, union address *out) {
    memset(out, 0, sizeof *out);
    if (strchr(text, ':')) {
        out->ipv6.sin6_family = AF_INET6;
        out->ipv6.sin6_port = htons(port);
        STEP(inet_pton(AF_INET6, text, &out->ipv6.sin6_addr) == 1);
        return sizeof out->ipv6;
    }
    out->ipv4.sin_family = AF_INET;
    out->ipv4.sin_port = htons(port);
    STEP(inet_pton(AF_INET, text, &out->ipv4.sin_addr) == 1);
    return sizeof out->ipv4;
}

/* A connected pair over the network; `*listener` stays open if asked for. */
static void make_connection(const char *host, int *client, int *server, int *listener_out) {
    union address address, seen;
    socklen_t length = parse(host, 0, &address), seen_length;
    int listener = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    STEP(listener >= 0);
    STEP(bind(listener, &address.any, length) == 0);
    STEP(listen(listener, 5) == 0);
    seen_length = sizeof seen;
    STEP(getsockname(listener, &seen.any, &seen_length) == 0 && seen_length == length && seen.ipv4.sin_port != 0);
    *client = socket(address.any.sa_family, SOCK_STREAM, IPPROTO_TCP);
    STEP(*client >= 0);
    STEP(connect(*client, &seen.any, seen_length) == 0);
    seen_length = sizeof seen;
    *server = accept4(listener, &seen.any, &seen_length, SOCK_CLOEXEC | SOCK_NONBLOCK);
    STEP(*server >= 0 && seen_length == length);
    STEP(fcntl(*server, F_GETFD) == FD_CLOEXEC && (fcntl(*server, F_GETFL) & O_NONBLOCK));
    STEP(fcntl(*server, F_SETFL, 0) == 0);
    union address local;
    socklen_t local_length = sizeof local;
    STEP(getsockname(*client, &local.any, &local_length) == 0 && local_length == length);
    STEP(memcmp(&local, &seen, 8) == 0);
    if (listener_out)
        *listener_out = listener;
    else
        close(listener);
}

static void receive_exactly(int descriptor, const char *text) {
    char got[64] = {0};
    size_t want = strlen(text), have = 0;
    while (have < want) {
        ssize_t more = recv(descriptor, got + have, want - have, 0);
        STEP(more > 0);
        have += (size_t)more;
    }
    STEP(memcmp(got, text, want) == 0);
}

/* Datagrams through every call, with whatever is in the padding of musl's structs. */
static void datagram_calls(const char *host) {
    union address there, seen;
    char buffer[16], control[64];
    socklen_t length = parse(host, 0, &there);
    int server = socket(there.any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0),
        client = socket(there.any.sa_family, SOCK_DGRAM, IPPROTO_UDP);
    STEP(server >= 0 && client >= 0 && fcntl(server, F_GETFD) == FD_CLOEXEC);
    STEP(bind(server, &there.any, length) == 0 && getsockname(server, &there.any, &length) == 0);
    FAILS(send(client, "x", 1, 0), EDESTADDRREQ);

    struct iovec parts[2] = {{"ab", 2}, {"cde", 3}};
    struct mmsghdr messages[2];
    memset(messages, 0x7f, sizeof messages);
    for (int i = 0; i < 2; i++) {
        messages[i].msg_hdr.msg_name = &there;
        messages[i].msg_hdr.msg_namelen = length;
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
        messages[i].msg_hdr.msg_control = NULL;
        messages[i].msg_hdr.msg_controllen = 0;
    }
    STEP(sendmmsg(client, messages, 2, 0) == 2 && messages[0].msg_len == 2 && messages[1].msg_len == 3);
    socklen_t seen_length = sizeof seen;
    STEP(recvfrom(server, buffer, sizeof buffer, 0, &seen.any, &seen_length) == 2 && seen_length == length);

    int on = 1;
    int level = there.any.sa_family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
    STEP(setsockopt(server, level, level == IPPROTO_IP ? IP_RECVTTL : IPV6_RECVHOPLIMIT, &on, sizeof on) == 0);
    struct iovec room = {buffer, sizeof buffer};
    struct msghdr message;
    memset(&message, 0x7f, sizeof message);
    message.msg_name = &seen;
    message.msg_namelen = sizeof seen;
    message.msg_iov = &room;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    STEP(sendto(client, "ttl", 3, 0, &there.any, length) == 3);
    STEP(recvmsg(server, &message, 0) == 3 && memcmp(buffer, "cde", 3) == 0); /* came before the option was set */
    message.msg_controllen = sizeof control;
    STEP(recvmsg(server, &message, 0) == 3 && message.msg_namelen == length && message.msg_flags == 0);
    struct cmsghdr *item = CMSG_FIRSTHDR(&message);
    STEP(item && item->cmsg_level == level && item->cmsg_len == CMSG_LEN(sizeof(int)) && CMSG_NXTHDR(&message, item) == NULL);

    STEP(connect(client, &there.any, length) == 0 && send(client, "", 0, 0) == 0 && recv(server, buffer, 1, 0) == 0);
    int queued = -1;
    STEP(ioctl(client, FIONREAD, &queued) == 0 && queued == 0);
    close(server);
    close(client);
}

static void data_calls(const char *host) {
    int client, server;
    char buffer[32];
    union address address;
    make_connection(host, &client, &server, NULL);
    socklen_t length = parse(host, 9, &address);

    /* The address of a stream is ignored when sending, and none is given when receiving. */
    STEP(sendto(client, "abc", 3, 0, &address.any, length) == 3);
    length = sizeof address;
    memset(&address, 0x55, sizeof address);
    STEP(recvfrom(server, buffer, 3, MSG_WAITALL, &address.any, &length) == 3 && length == 0);
    STEP(address.any.sa_family == 0x5555 && memcmp(buffer, "abc", 3) == 0);

    struct iovec parts[2] = {{"de", 2}, {"f", 1}};
    struct msghdr message;
    memset(&message, 0x7f, sizeof message); /* musl: whatever is in the padding must not matter */
    message.msg_name = &address;
    message.msg_namelen = sizeof address;
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    message.msg_control = NULL;
    message.msg_controllen = 0;
    message.msg_flags = 0;
    STEP(sendmsg(client, &message, MSG_NOSIGNAL) == 3);
    struct iovec room = {buffer, 3};
    message.msg_iov = &room;
    message.msg_iovlen = 1;
    message.msg_namelen = sizeof address;
    STEP(recvmsg(server, &message, MSG_WAITALL) == 3 && message.msg_namelen == 0 && message.msg_controllen == 0);
    STEP(memcmp(buffer, "def", 3) == 0);

    /* The error queue is empty; TRUNC discards. */
    STEP(send(client, "0123456789", 10, 0) == 10);
    receive_exactly(server, "0");
    FAILS(recv(server, buffer, 5, MSG_ERRQUEUE), EAGAIN);
    memset(buffer, 'x', sizeof buffer);
    STEP(recv(server, buffer, 4, MSG_PEEK | MSG_TRUNC) >= 1);
    STEP(recv(server, buffer, 4, MSG_TRUNC | MSG_WAITALL) == 4 && buffer[0] == 'x');
    receive_exactly(server, "56789");
    FAILS(sendto(client, "x", 1, MSG_FASTOPEN, &address.any, sizeof address.ipv4), EISCONN);

    struct mmsghdr several[2];
    memset(several, 0, sizeof several);
    struct iovec first = {"gh", 2}, second = {"i", 1};
    several[0].msg_hdr.msg_iov = &first;
    several[1].msg_hdr.msg_iov = &second;
    several[0].msg_hdr.msg_iovlen = several[1].msg_hdr.msg_iovlen = 1;
    several[0].msg_hdr.msg_name = several[1].msg_hdr.msg_name = &address;
    several[0].msg_hdr.msg_namelen = several[1].msg_hdr.msg_namelen = sizeof address.ipv4;
    STEP(sendmmsg(client, several, 2, 0) == 2 && several[0].msg_len == 2 && several[1].msg_len == 1);
    struct pollfd readable = {server, POLLIN, 0};
    STEP(poll(&readable, 1, 10000) == 1);
    int queued = 0;
    do
        STEP(ioctl(server, FIONREAD, &queued) == 0);
    while (queued < 3);
    first.iov_base = buffer, second.iov_base = buffer + 2;
    several[0].msg_hdr.msg_namelen = several[1].msg_hdr.msg_namelen = sizeof address;
    struct timespec limit = {5, 0};
    STEP(recvmmsg(server, several, 2, MSG_WAITFORONE, &limit) == 2 && several[0].msg_hdr.msg_namelen == 0);
    STEP(memcmp(buffer, "ghi", 3) == 0);

    /* Descriptors in control data are dropped, not passed to the service. */
    char control[CMSG_SPACE(sizeof(int))] = {0};
    message = (struct msghdr){
        .msg_iov = &(struct iovec){"j", 1}, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &client, sizeof client);
    STEP(sendmsg(client, &message, 0) == 1);
    receive_exactly(server, "j");

    int value = -1;
    STEP(ioctl(client, SIOCATMARK, &value) == 0 && value == 0);
    STEP(ioctl(client, TIOCOUTQ, &value) == 0 && value >= 0);
    STEP(shutdown(client, SHUT_WR) == 0);
    STEP(recv(server, buffer, 1, 0) == 0);
    close(client), close(server);
}

/* The same steps by number. */
static void by_number(const char *host) {
    union address address, seen;
    socklen_t length = parse(host, 0, &address), seen_length = sizeof seen;
    int family = address.any.sa_family, on = 1, type = 0;
    int listener = (int)syscall(SYS_socket, family, SOCK_STREAM, 0);
    STEP(listener >= 0);
    STEP(syscall(SYS_setsockopt, listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
    STEP(syscall(SYS_bind, listener, &address, length) == 0);
    STEP(syscall(SYS_listen, listener, 5) == 0);
    STEP(syscall(SYS_getsockname, listener, &seen, &seen_length) == 0 && seen.any.sa_family == family);
    int client = (int)syscall(SYS_socket, family, SOCK_STREAM, 0);
    STEP(client >= 0);
    seen_length = sizeof type;
    STEP(syscall(SYS_getsockopt, client, SOL_SOCKET, SO_DOMAIN, &type, &seen_length) == 0 && type == family);
    STEP(syscall(SYS_connect, client, &seen, length) == 0);
    int server = (int)syscall(SYS_accept4, listener, NULL, NULL, 0);
    STEP(server >= 0);
    seen_length = sizeof seen;
    STEP(syscall(SYS_getpeername, server, &seen, &seen_length) == 0 && seen.any.sa_family == family);
    STEP(syscall(SYS_sendto, client, "abc", 3, 0, &address, length) == 3);
    receive_exactly(server, "abc");
    STEP(syscall(SYS_shutdown, client, SHUT_WR) == 0);
    FAILS(syscall(SYS_io_uring_setup, 4, NULL), ENOSYS);
    STEP(syscall(SYS_getpid) == getpid());
    close(listener), close(client), close(server);
}

/* A server shows its title by overwriting its arguments and its environment. */
static void overwritten_environment(char **arguments, const char *host) {
    char *end = arguments[0];
    char host_copy[64];
    int client, server;
    snprintf(host_copy, sizeof host_copy, "%s", host);
    for (char **text = environ; *text; text++)
        end = *text + strlen(*text);
    memset(arguments[0], 'x', (size_t)(end - arguments[0]));
    environ = NULL;
    make_connection(host_copy, &client, &server, NULL);
}

/* The cached connection to the service outlives chroot, and not closefrom. */
static void after_chroot(const char *host) {
    int client, server, listener;
    make_connection(host, &client, &server, &listener);
    STEP(chroot("/proc/self/fdinfo") == 0 && chdir("/") == 0);
    make_connection(host, &client, &server, &listener);
    STEP(setgid(65534) == 0 && setuid(65534) == 0);
    make_connection(host, &client, &server, &listener);
    int next;
    union address address;
    socklen_t length = sizeof address;
    STEP(getsockname(listener, &address.any, &length) == 0);
    next = socket(address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    STEP(next >= 0 && connect(next, &address.any, length) == -1 && errno == EINPROGRESS);
    STEP(syscall(SYS_close_range, 100, ~0u, 0) == 0);
    FAILS(socket(AF_INET, SOCK_STREAM, 0), ENETDOWN);
    /* What needs no RPC goes on. */
    struct pollfd connected = {next, POLLOUT, 0};
    STEP(poll(&connected, 1, 10000) == 1 && connected.revents == POLLOUT);
    server = accept(listener, NULL, NULL);
    STEP(server >= 0);
    STEP(write(next, "on", 2) == 2);
    receive_exactly(server, "on");
}

/* Starts itself by each way there is, with an environment that lacks everything; `environment` then says what arrived. */
static void start(const char *way, const char *self) {
    char *arguments[] = {(char *)self, "environment", NULL}, *bare[] = {"OWN=1", NULL};
    pid_t child;
    int status;
    if (strcmp(way, "execv") == 0) environ = bare, execv(self, arguments);
    if (strcmp(way, "execve") == 0) execve(self, arguments, bare);
    if (strcmp(way, "execvp") == 0) environ = bare, execvp(self, arguments);
    if (strcmp(way, "execvpe") == 0) execvpe(self, arguments, bare);
    if (strcmp(way, "execl") == 0) environ = bare, execl(self, self, "environment", (char *)NULL);
    if (strcmp(way, "execle") == 0) execle(self, self, "environment", (char *)NULL, bare);
    if (strcmp(way, "execlp") == 0) environ = bare, execlp(self, self, "environment", (char *)NULL);
    if (strcmp(way, "fexecve") == 0) fexecve(open(self, O_RDONLY), arguments, bare);
    if (strcmp(way, "execveat") == 0) syscall(SYS_execveat, AT_FDCWD, self, arguments, bare, 0);
    if (strcmp(way, "syscall") == 0) syscall(SYS_execve, self, arguments, bare);
    if (strcmp(way, "vfork") == 0) {
        child = vfork();
        if (child == 0) {
            execve(self, arguments, bare);
            _exit(127);
        }
        STEP(child > 0 && waitpid(child, &status, 0) == child);
        exit(WEXITSTATUS(status));
    }
    if (strcmp(way, "posix_spawn") == 0 || strcmp(way, "posix_spawnp") == 0) {
        int error = way[11] ? posix_spawnp(&child, self, NULL, NULL, arguments, bare)
                            : posix_spawn(&child, self, NULL, NULL, arguments, bare);
        errno = error;
        STEP(error == 0 && waitpid(child, &status, 0) == child);
        exit(WEXITSTATUS(status));
    }
    if (strcmp(way, "empty") == 0) execve(self, arguments, NULL);
    printf("%s: %s\n", way, strerror(errno));
    exit(1);
}

struct echo {
    int listener;
    int connections;
};

static void *echo_server(void *argument) {
    struct echo *echo = argument;
    for (int i = 0; i < echo->connections; i++) {
        char buffer[4096];
        ssize_t got;
        int peer = accept(echo->listener, NULL, NULL);
        STEP(peer >= 0);
        while ((got = read(peer, buffer, sizeof buffer)) > 0)
            STEP(write(peer, buffer, (size_t)got) == got);
        close(peer);
    }
    return NULL;
}

struct talk {
    union address address;
    socklen_t length;
    int connections;
};

static void *echo_client(void *argument) {
    struct talk *talk = argument;
    for (int i = 0; i < talk->connections; i++) {
        int peer = socket(talk->address.any.sa_family, SOCK_STREAM, 0), on = 1;
        STEP(peer >= 0);
        STEP(setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
        STEP(connect(peer, &talk->address.any, talk->length) == 0);
        STEP(write(peer, "ping", 4) == 4);
        receive_exactly(peer, "ping");
        close(peer);
    }
    return NULL;
}

/* Many threads share the listener, the cached connection to the service, and nothing else. */
static void threads(const char *host) {
    enum { WORKERS = 4, EACH = 25 };
    pthread_t servers[WORKERS], clients[WORKERS];
    struct talk talk = {.connections = EACH};
    talk.length = parse(host, 0, &talk.address);
    struct echo echo = {socket(talk.address.any.sa_family, SOCK_STREAM, 0), EACH};
    STEP(bind(echo.listener, &talk.address.any, talk.length) == 0 && listen(echo.listener, 64) == 0);
    STEP(getsockname(echo.listener, &talk.address.any, &talk.length) == 0);
    for (int i = 0; i < WORKERS; i++)
        STEP(pthread_create(&servers[i], NULL, echo_server, &echo) == 0 &&
             pthread_create(&clients[i], NULL, echo_client, &talk) == 0);
    for (int i = 0; i < WORKERS; i++)
        STEP(pthread_join(servers[i], NULL) == 0 && pthread_join(clients[i], NULL) == 0);
}

/* Connects to an address given by the caller, and says the error. */
static void try_connect(const char *host, const char *port) {
    union address address;
    socklen_t length = parse(host, atoi(port), &address);
    int peer = socket(address.any.sa_family, SOCK_STREAM, 0);
    if (peer < 0)
        printf("socket: %s\n", strerror(errno));
    else
        printf("connect: %s\n", connect(peer, &address.any, length) == 0 ? "Success" : strerror(errno));
}

int main(int count, char **arguments) {
    const char *command = arguments[1], *host = count > 2 ? arguments[2] : "";
    alarm(60);
    if (strcmp(command, "datagrams") == 0)
        datagram_calls(host);
    else if (strcmp(command, "data") == 0)
        data_calls(host);
    else if (strcmp(command, "number") == 0)
        by_number(host);
    else if (strcmp(command, "title") == 0)
        overwritten_environment(arguments, host);
    else if (strcmp(command, "chroot") == 0)
        after_chroot(host);
    else if (strcmp(command, "threads") == 0)
        threads(host);
    else if (strcmp(command, "connect") == 0)
        try_connect(host, arguments[3]);
    else if (strcmp(command, "start") == 0)
        start(host, arguments[0]);
    else if (strcmp(command, "environment") == 0) {
        for (char **text = environ; *text; text++)
            puts(*text);
        return 0;
    } else
        return 2;
    puts("done");
    return 0;
}
