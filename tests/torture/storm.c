/* storm.c: a timer signals this process at 10 kHz, and the handler makes calls on sockets of its own.
 *
 * The handler's sockets have numbers from 700 on, out of the way of those that the script's operations get and count on: a
 * connection of which both ends are here, a listener nobody connects to, and a datagram socket connected to itself. Everything that
 * it does must succeed or say EAGAIN, whatever call of the library the signal came into.
 */
#include "torture.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FIRST 700
#define PERIOD_NS 100000

enum { CLIENT, SERVER, LISTENER, DATAGRAMS, OWN };

static int own[OWN] = {-1, -1, -1, -1};
static timer_t timer;
static bool raging;
static atomic_uint signals;
static atomic_int fault; /* 1000 * step + errno of the first call that failed */
static atomic_long sent, received;

static void blame(int step) {
    int none = 0;
    atomic_compare_exchange_strong(&fault, &none, step * 1000 + errno);
}

static void handle(int number) {
    (void)number;
    int saved = errno;
    unsigned turn = atomic_fetch_add(&signals, 1);
    char bytes[64];
    long n = send(own[CLIENT], "signal", 6, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0)
        atomic_fetch_add(&sent, n);
    else if (errno != EAGAIN)
        blame(1);
    n = recv(own[SERVER], bytes, sizeof bytes, MSG_DONTWAIT);
    if (n > 0)
        atomic_fetch_add(&received, n);
    else if (n == 0 || errno != EAGAIN)
        blame(2);
    if (turn % 8 == 0) {
        if (accept4(own[LISTENER], NULL, NULL, SOCK_CLOEXEC) >= 0 || errno != EAGAIN) blame(3);
        if (send(own[DATAGRAMS], "datagram", 8, MSG_DONTWAIT) < 0 && errno != EAGAIN) blame(4);
        if (recv(own[DATAGRAMS], bytes, sizeof bytes, MSG_DONTWAIT) < 0 && errno != EAGAIN) blame(5);
    }
    if (turn % 32 == 0) { /* by a round trip to the service */
        struct sockaddr_storage address;
        socklen_t length = sizeof address;
        if (getsockname(own[DATAGRAMS], (void *)&address, &length) != 0) blame(6);
        int yes = 1;
        if (setsockopt(own[SERVER], SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof yes) != 0) blame(7);
    }
    errno = saved;
}

static int high(int fd) {
    if (fd < 0) return fd;
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, FIRST);
    close(fd);
    return moved;
}

static bool make_own(void) {
    struct sockaddr_storage address;
    socklen_t length = make_address(&address, false, 0);
    own[LISTENER] = high(socket(family, SOCK_STREAM, 0));
    if (bind(own[LISTENER], (void *)&address, length) || listen(own[LISTENER], 4)) return false;
    if (getsockname(own[LISTENER], (void *)&address, &length)) return false;
    own[CLIENT] = high(socket(family, SOCK_STREAM, 0));
    if (connect(own[CLIENT], (void *)&address, length)) return false;
    own[SERVER] = high(accept(own[LISTENER], NULL, NULL));
    if (own[SERVER] < 0 || fcntl(own[LISTENER], F_SETFL, O_NONBLOCK)) return false;
    length = make_address(&address, false, 0);
    own[DATAGRAMS] = high(socket(family, SOCK_DGRAM, 0));
    if (bind(own[DATAGRAMS], (void *)&address, length) || getsockname(own[DATAGRAMS], (void *)&address, &length)) return false;
    return connect(own[DATAGRAMS], (void *)&address, length) == 0;
}

static void set_period(long period) {
    struct itimerspec every = {{0, period}, {0, period}};
    timer_settime(timer, 0, &every, NULL);
}

void storm_begin(bool restart, char *text) {
    atomic_store(&signals, 0);
    atomic_store(&fault, 0);
    if (!make_own()) {
        say(text, "error %d", errno);
        return;
    }
    struct sigaction action = {.sa_handler = handle, .sa_flags = restart ? SA_RESTART : 0};
    sigaction(SIGUSR1, &action, NULL);
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    if (timer_create(CLOCK_MONOTONIC, &event, &timer) != 0) {
        say(text, "error %d", errno);
        return;
    }
    raging = true;
    set_period(PERIOD_NS);
    say(text, "begun");
}

static void close_own(void) {
    for (int i = 0; i < OWN; i++) {
        if (own[i] >= 0) close(own[i]);
        own[i] = -1;
    }
}

void storm_end(char *text) {
    for (int64_t end = now_ms() + PATIENCE_MS; raging && atomic_load(&signals) < 8 && now_ms() < end;)
        usleep(200);
    if (raging) timer_delete(timer);
    raging = false;
    signal(SIGUSR1, SIG_IGN); /* one that is pending is dropped */
    if (atomic_load(&fault) || atomic_load(&signals) == 0)
        say(text, "step %d said errno %d", atomic_load(&fault) / 1000, atomic_load(&fault) % 1000);
    else
        say(text, "no call failed");
    close_own();
}

void storm_pause(bool pause) {
    if (raging) set_period(pause ? 0 : PERIOD_NS);
}

void storm_forget(void) {
    raging = false;
    signal(SIGUSR1, SIG_IGN);
    close_own();
}
