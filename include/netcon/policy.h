/* policy.h: where a program's traffic goes, as a small fixed table. The service enforces its own; the library asks that of the run
 * (NETCON_POLICY) first. `netcon/policy.py` makes tables from the language that people write (docs/policy.md).
 *
 * Lines are asked in order and the first that fits decides. Where none fits, joined networks decide by their addresses and
 * routes, and what no network carries goes where `fallback` says.
 *
 * NETCON_POLICY is "1:" and the bytes of the table (its head and `count` rules) in hexadecimal digits. Integers are in host order:
 * both sides are on one machine.
 */
#ifndef NETCON_POLICY_H
#define NETCON_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NETCON_POLICY_RULES_MAX 64u
#define NETCON_POLICY_TEXT_PREFIX "1:"

enum netcon_policy_target {
    NETCON_POLICY_UNDECIDED = 0, /* no line fits */
    NETCON_POLICY_NETWORK = 1,   /* `network`, or 0: the one that has the address or a route */
    NETCON_POLICY_HOST = 2,      /* the library makes a socket of the kernel */
    NETCON_POLICY_VIRTUAL = 3,   /* a network's own loopback */
    NETCON_POLICY_REFUSE = 4,
};

enum netcon_policy_direction {
    NETCON_POLICY_CONNECT = 1, /* destinations of connect, sendto, sendmsg */
    NETCON_POLICY_BIND = 2,
    NETCON_POLICY_IPV6_ONLY = 4, /* not a direction: a short IPv6 prefix is not to fit IPv4-mapped addresses */
};

enum netcon_policy_protocol {
    NETCON_POLICY_TCP = 1,
    NETCON_POLICY_UDP = 2,
    NETCON_POLICY_ICMP = 4, /* ping and raw sockets, of both families; they have no port */
};

/* 32 bytes. */
struct netcon_policy_rule {
    uint8_t ip[16]; /* IPv4 is IPv4-mapped; bits behind the prefix are 0 */
    uint64_t network;
    uint8_t prefix;     /* 0 to 128: of IPv4 96 more than people write. 0: any address of either family */
    uint8_t directions; /* bits of netcon_policy_direction */
    uint8_t protocols;  /* bits of netcon_policy_protocol; 0: all */
    uint8_t target;
    uint16_t first_port, last_port; /* 0 to 65535: all, and what has no port */
};

struct netcon_policy {
    uint8_t count;
    uint8_t fallback; /* NETCON_POLICY_HOST or NETCON_POLICY_REFUSE; of a run's also NETCON_POLICY_UNDECIDED: ask the service */
    uint8_t raw;      /* 1: raw ICMP sockets are allowed */
    uint8_t names;    /* names of no network, and the host's name servers: as fallback; of a service's UNDECIDED is REFUSE */
    uint8_t reserved[4];
    struct netcon_policy_rule rules[NETCON_POLICY_RULES_MAX];
};

#define NETCON_POLICY_HEAD_SIZE offsetof(struct netcon_policy, rules)

/* The rule that decides, or NULL. `ip`: 16 bytes, IPv4-mapped. */
static inline const struct netcon_policy_rule *netcon_policy_match(const struct netcon_policy *policy, int direction, int protocol,
                                                                   const uint8_t *ip, uint16_t port) {
    for (unsigned i = 0; i < policy->count && i < NETCON_POLICY_RULES_MAX; i++) {
        const struct netcon_policy_rule *rule = &policy->rules[i];
        static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
        unsigned four = 0, whole = rule->prefix / 8u, rest = rule->prefix % 8u, at = 0;
        if (!(rule->directions & direction) || (rule->protocols && !(rule->protocols & protocol))) continue;
        if (port < rule->first_port || port > rule->last_port) continue;
        while (four < sizeof mapped && ip[four] == mapped[four])
            four++;
        if ((rule->directions & NETCON_POLICY_IPV6_ONLY) && four == sizeof mapped) continue;
        while (at < whole && ip[at] == rule->ip[at])
            at++;
        if (at == whole && (!rest || !((ip[whole] ^ rule->ip[whole]) >> (8u - rest)))) return rule;
    }
    return NULL;
}

/* Is this a table, `size` bytes long? Nothing that comes from outside is asked before. */
static inline bool netcon_policy_is_valid(const struct netcon_policy *policy, size_t size) {
    if (size < NETCON_POLICY_HEAD_SIZE || policy->count > NETCON_POLICY_RULES_MAX ||
        size != NETCON_POLICY_HEAD_SIZE + policy->count * sizeof(struct netcon_policy_rule))
        return false;
    if (policy->raw > 1 || (policy->fallback != NETCON_POLICY_UNDECIDED && policy->fallback != NETCON_POLICY_HOST &&
                            policy->fallback != NETCON_POLICY_REFUSE))
        return false;
    if (policy->names != NETCON_POLICY_UNDECIDED && policy->names != NETCON_POLICY_HOST && policy->names != NETCON_POLICY_REFUSE)
        return false;
    for (unsigned i = 0; i < policy->count; i++) {
        const struct netcon_policy_rule *rule = &policy->rules[i];
        if (rule->prefix > 128 || rule->target < NETCON_POLICY_NETWORK || rule->target > NETCON_POLICY_REFUSE ||
            rule->first_port > rule->last_port)
            return false;
    }
    return true;
}

#ifdef __cplusplus
}
#endif
#endif
