/* policy.c: see policy.h. The table is read once, by the constructor, and never changes. */
#include "policy.h"

#include <errno.h>
#include <netinet/in.h>

#include "address.h"
#include "environment.h"
#include "memory.h"
#include "names.h"

#define DNS_PORT 53

static struct netcon_policy policy; /* without NETCON_POLICY: no line, and UNDECIDED */

static int digit_of(char text) {
    if (text >= '0' && text <= '9') return text - '0';
    if (text >= 'a' && text <= 'f') return text - 'a' + 10;
    return -1;
}

bool policy_read(const char *text) {
    uint8_t *at = (uint8_t *)&policy, *end = at + sizeof policy;
    bool valid = starts_with(text, NETCON_POLICY_TEXT_PREFIX);
    memset(&policy, 0, sizeof policy);
    for (text += valid ? sizeof NETCON_POLICY_TEXT_PREFIX - 1 : 0; valid && *text; text += 2) {
        int high = digit_of(text[0]), low = high < 0 ? -1 : digit_of(text[1]);
        valid = low >= 0 && at < end;
        if (valid) *at++ = (uint8_t)(high << 4 | low);
    }
    valid = valid && netcon_policy_is_valid(&policy, (size_t)(at - (uint8_t *)&policy));
    if (!valid) memset(&policy, 0, sizeof policy);
    return valid;
}

static int protocol_of(const struct netcon_name_program *name) {
    return name->protocol == IPPROTO_TCP   ? NETCON_POLICY_TCP
           : name->protocol == IPPROTO_UDP ? NETCON_POLICY_UDP
                                           : NETCON_POLICY_ICMP;
}

static const struct netcon_policy_rule *rule_for(int direction, const struct netcon_name_program *name,
                                                 const struct netcon_address *address) {
    uint8_t ip[16];
    address_to_header(address, ip);
    return netcon_policy_match(&policy, direction, protocol_of(name), ip, address->port);
}

static bool is_wildcard(const struct netcon_address *address) {
    static const uint8_t any[16];
    if (address->family == AF_INET6 && address_is_mapped(address->ip)) return memcmp(address->ip + 12, any, 4) == 0;
    return address->family && memcmp(address->ip, any, address->family == AF_INET ? 4 : 16) == 0;
}

long policy_ask(int direction, const struct netcon_name_program *name, const struct netcon_address *address,
                struct rpc_call *call) {
    call->network = settings.network;
    if (direction == NETCON_POLICY_CONNECT && policy.names)
        call->flags |= policy.names == NETCON_POLICY_HOST ? NETCON_RPC_NAMES_HOST : NETCON_RPC_NAMES_REFUSE;
    const struct netcon_policy_rule *rule = policy.count && address->family ? rule_for(direction, name, address) : NULL;
    if (!rule && policy.count && direction == NETCON_POLICY_CONNECT && is_wildcard(address)) {
        struct netcon_address here = {.family = AF_INET, .port = address->port, .ip = {127, 0, 0, 1}};
        rule = rule_for(direction, name, &here); /* this host: whether that is the virtual one */
        if (rule && rule->target != NETCON_POLICY_VIRTUAL) rule = NULL;
    }
    switch (rule ? rule->target : NETCON_POLICY_UNDECIDED) {
    case NETCON_POLICY_HOST:
        return -NETCON_RPC_TO_HOST;
    case NETCON_POLICY_REFUSE:
        return -EACCES;
    case NETCON_POLICY_VIRTUAL:
        call->flags |= NETCON_RPC_VIRTUAL;
        break;
    case NETCON_POLICY_NETWORK:
        if (rule->network) call->network = rule->network;
        if (address_is_loopback(address)) call->flags |= NETCON_RPC_VIRTUAL; /* a network's own: never the host's */
        break;
    }
    return 0;
}

long policy_answer(int direction, const struct netcon_name_program *name, const struct netcon_address *address, long done) {
    bool binds = direction == NETCON_POLICY_BIND;
    bool uncarried = done == (binds ? -EADDRNOTAVAIL : -ENETUNREACH);
    if ((done != -NETCON_RPC_TO_HOST && !uncarried) || (!policy.count && !policy.fallback && !policy.names)) return done;
    const struct netcon_policy_rule *rule = rule_for(direction, name, address);
    if (done == -NETCON_RPC_TO_HOST) {
        bool names = policy.names == NETCON_POLICY_HOST && address->port == DNS_PORT;
        bool wanted = !rule && (names || address_is_loopback(address) || policy.fallback != NETCON_POLICY_REFUSE);
        return wanted ? done : binds ? -EADDRNOTAVAIL : -ENETUNREACH;
    }
    return !rule && policy.fallback == NETCON_POLICY_HOST && !address_is_loopback(address) ? -NETCON_RPC_TO_HOST : done;
}

bool policy_has_host(void) {
    if (policy.fallback == NETCON_POLICY_HOST || policy.names == NETCON_POLICY_HOST || rpc_policy() & NETCON_RPC_POLICY_HOST)
        return true;
    for (unsigned i = 0; i < policy.count; i++)
        if (policy.rules[i].target == NETCON_POLICY_HOST) return true;
    return false;
}

bool policy_says_names(const struct netcon_address *to) { return policy.names && to->port == DNS_PORT; }

unsigned policy_names(unsigned status) {
    if (status == NETCON_RESOLVE_REFUSED && policy.names == NETCON_POLICY_HOST) return NETCON_RESOLVE_HOST;
    if (status == NETCON_RESOLVE_HOST && policy.names == NETCON_POLICY_REFUSE) return NETCON_RESOLVE_REFUSED;
    return status;
}
