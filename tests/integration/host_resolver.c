/* host_resolver.c: stands for the C library's resolver on the host, for tests: preloaded behind the intercept library, it is what
 * that one finds as "the real" function. It knows one name and one address and hands numbers on to the C library. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **list) {
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    if (!node || !hints || (hints->ai_flags & AI_NUMERICHOST)) return real(node, service, hints, list);
    if (strcmp(node, "www.example.org") != 0) return EAI_AGAIN;
    return real("192.0.2.80", service, hints, list);
}

int getnameinfo(const struct sockaddr *address, socklen_t length, char *host, socklen_t room, char *port, socklen_t port_room,
                int flags) {
    static int (*real)(const struct sockaddr *, socklen_t, char *, socklen_t, char *, socklen_t, int);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "getnameinfo");
    if (!host || (flags & NI_NUMERICHOST)) return real(address, length, host, room, port, port_room, flags);
    snprintf(host, room, "host.example.org");
    return 0;
}
