/* resolver.h: names and addresses, for the functions that programs call (addrinfo.c, hostent.c, dns.c).
 *
 * In this order: the program's own /etc/hosts; the service, which knows the members' names and asks the networks' DNS servers; and
 * the C library's own resolver, if the service says that policy lets this name go there (NETCON_RESOLVE_HOST). Numeric addresses
 * and service names are always left to the C library: that makes no traffic, and the answers are exactly its own.
 */
#ifndef NETCON_RESOLVER_H
#define NETCON_RESOLVER_H

#include <netcon/socket_rpc.h>
#include <stdbool.h>
#include <stddef.h>

#define RESOLVER_ADDRESSES 32

struct resolved {
    unsigned status; /* enum netcon_resolve_status */
    unsigned count;
    struct netcon_resolved_address addresses[RESOLVER_ADDRESSES];
    char name[NETCON_RESOLVE_NAME_MAX + 2]; /* canonical, or of the address; empty: none */
};

/**
 * resolver_name() - the addresses of a name, best first
 * @family: AF_INET, AF_INET6, or 0 for both
 * @flags: enum netcon_resolve_flags
 *
 * Return: 0, or -errno: the service could not be asked.
 */
long resolver_name(const char *name, int family, int flags, struct resolved *out);

/* The name of an address of `family`. IPv4-mapped ones are looked up as IPv4. Return as above. */
long resolver_address(int family, const void *ip, struct resolved *out);

/* A DNS query of `length` bytes. `flags`: enum netcon_resolve_flags. Return: the length of the response, at most `room` of which
 * are in `response`; -EREMOTE: the host's resolver may be asked; or -errno. */
long resolver_message(const void *query, size_t length, int flags, void *response, size_t room);

/* The function of the C library that ours takes the place of. */
void *resolver_real(const char *symbol);

/* The bytes of an address. */
static inline size_t resolver_width(int family) { return family == 2 ? 4 : 16; }

#endif
