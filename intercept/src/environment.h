/* environment.h: what the environment told the library, copied when it was loaded.
 *
 * Servers overwrite their environment with a process title (sshd, nginx, postgres, redis), so a pointer into it would later
 * read the title: every value is copied into static buffers by the constructor. After that nothing here changes, but that tracing
 * ends.
 *
 *   NETCON_SOCK       path of a service's RPC socket. Trusted as it is.
 *   ZT_NC_NWID        a network id, 16 hexadecimal digits, or up to 16 of them with commas between: networks of one service,
 *                     among which the destination chooses. Without NETCON_SOCK its RPC socket is $XDG_RUNTIME_DIR/.ztnc_<id> or
 *                     /tmp/.ztnc_<id> (of the first), trusted only if its owner is our user or root.
 *   NETCON_NETWORK    a network id: the network of new sockets, whatever the path's default is.
 *   NETCON_POLICY     the run's policy (netcon/policy.h). A malformed one is a fault: closed.
 *   NETCON_TRACE      absolute path of a tracer's socket (trace.h).
 *
 * Unless one of the first two is set and not empty the library does nothing.
 */
#ifndef NETCON_ENVIRONMENT_H
#define NETCON_ENVIRONMENT_H

#include <stdbool.h>
#include <stdint.h>

#define NETWORKS_MAX 16
#define SOCKET_PATH_MAX 108 /* sun_path, with its NUL */

enum activity { ACTIVITY_UNKNOWN, ACTIVITY_NONE, ACTIVITY_FULL };

struct service_path {
    char text[SOCKET_PATH_MAX]; /* empty: none */
    bool trusted;               /* whoever owns it */
};

struct settings {
    int activity;
    uint64_t network;                 /* of new sockets; 0: the path's default, or those of the list */
    uint64_t networks[NETWORKS_MAX];  /* a list, of which the service is told; the destination chooses among them */
    unsigned network_count;           /* 0: there is no list */
    const char *fault;                /* why no service can be reached whatever happens, or NULL */
    struct service_path paths[2];     /* tried in this order */
    char trace_path[SOCKET_PATH_MAX]; /* empty: nobody traces */
    bool musl;                        /* the program's C library is not glibc: its struct msghdr has undefined padding */
};

extern struct settings settings;

/* The kept variables, "NAME=value", and how many. */
#define KEPT_MAX 32
extern const char *kept_variables[KEPT_MAX];
extern int kept_count;
/* Some did not fit: sockets and new programs are refused. */
extern bool kept_too_much;

/* Reads the environment if the constructor has not run yet: another library's constructor may call a wrapped function first. */
bool read_environment(char **environment);

/* The program's environment as it is now. */
char **current_environment(void);

static inline bool is_active(void) {
    if (__builtin_expect(settings.activity == ACTIVITY_UNKNOWN, 0)) return read_environment(current_environment());
    return settings.activity == ACTIVITY_FULL;
}

/**
 * complain() - one line on standard error, once in the life of the process
 * @where: a path, or NULL
 * @why: what is wrong
 *
 * Standard error is left alone if it is a socket of an internet family: a program may have closed it and reused the number.
 */
void complain(const char *where, const char *why);

/* The same every time: a program that may not be executed. */
void complain_always(const char *where, const char *why);

#endif
