/* routes.c: which way a packet goes: the longest prefix among the addresses' own and the managed routes of the network's
 * configuration.
 *
 * Theory of operation. There is one link, so a route decides two things: from which address (netif) a packet leaves, which lwIP
 * asks through its routing hooks, and which neighbour gets it, which link.c asks when lwIP hands it a packet. Equal prefixes: an
 * address's own wins over a managed route, an earlier one over a later one.
 */
#include "core_hooks.h"
#include "core_internal.h"
#include "lwip/ip6.h"

static struct lwip_core_route *routes;
static size_t route_count;

static bool prefix_matches(const void *a, const void *b, uint8_t bits) {
    const uint8_t *x = a, *y = b;
    uint8_t whole = bits / 8, rest = bits % 8;
    return memcmp(x, y, whole) == 0 && (rest == 0 || ((x[whole] ^ y[whole]) >> (8 - rest)) == 0);
}

err_t core_set_routes(const struct lwip_core_route *given, size_t count) {
    struct lwip_core_route *copy = NULL;
    if (count > 0) {
        copy = core_allocate(count * sizeof *copy);
        if (copy == NULL) return ERR_MEM;
        memcpy(copy, given, count * sizeof *copy);
        for (size_t i = 0; i < count; i++)
            if (IP_IS_V6_VAL(copy[i].gateway)) ip6_addr_assign_zone(ip_2_ip6(&copy[i].gateway), IP6_UNICAST, &core_netif);
    }
    core_release(routes);
    routes = copy;
    route_count = count;
    return ERR_OK;
}

/* The managed route with the longest prefix longer than `longer_than` (-1: any), or NULL. */
static const struct lwip_core_route *managed_route(const void *destination, bool is_ip6, int longer_than) {
    const struct lwip_core_route *best = NULL;
    for (size_t i = 0; i < route_count; i++)
        if (IP_IS_V6_VAL(routes[i].network) == is_ip6 && routes[i].bits > longer_than &&
            prefix_matches(destination, &routes[i].network, routes[i].bits)) {
            best = &routes[i];
            longer_than = best->bits;
        }
    return best;
}

/* The netif whose address's prefix contains `destination`, the longest one; its length in `bits` (-1 if none). */
static struct netif *on_link_ip4(const ip4_addr_t *destination, int *bits) {
    struct netif *netif, *best = NULL;
    *bits = -1;
    NETIF_FOREACH(netif) {
        int length = __builtin_popcount(netif_ip4_netmask(netif)->addr);
        if (netif != &core_loopback && !ip4_addr_isany(netif_ip4_addr(netif)) && length > *bits &&
            ip4_addr_net_eq(destination, netif_ip4_addr(netif), netif_ip4_netmask(netif))) {
            best = netif;
            *bits = length;
        }
    }
    return best;
}

static struct netif *first_with_ip4(void) {
    struct netif *netif;
    NETIF_FOREACH(netif)
    if (netif != &core_loopback && !ip4_addr_isany(netif_ip4_addr(netif))) return netif;
    return NULL;
}

const ip4_addr_t *core_next_hop_ip4(const ip4_addr_t *destination) {
    int bits;
    struct netif *netif = on_link_ip4(destination, &bits);
    const struct lwip_core_route *route = managed_route(destination, false, bits);
    if (route == NULL) return netif != NULL || ip4_addr_islinklocal(destination) ? destination : NULL;
    return IP_IS_ANY_TYPE_VAL(route->gateway) ? destination : ip_2_ip4(&route->gateway);
}

struct netif *core_route_ip4(const ip4_addr_t *source, const ip4_addr_t *destination) {
    int bits;
    struct netif *netif, *from = NULL;
    if (ip4_addr_isloopback(destination)) return &core_loopback;
    if (source != NULL && !ip4_addr_isany(source)) {
        NETIF_FOREACH(netif)
        if (ip4_addr_eq(netif_ip4_addr(netif), source)) from = netif;
    }
    if (ip4_addr_ismulticast(destination) || destination->addr == IPADDR_BROADCAST) return from != NULL ? from : first_with_ip4();
    NETIF_FOREACH(netif)
    if (!ip4_addr_isany(destination) && ip4_addr_eq(netif_ip4_addr(netif), destination)) return from != NULL ? from : netif;
    const ip4_addr_t *next_hop = core_next_hop_ip4(destination);
    if (next_hop == NULL) return NULL;
    if (from != NULL) return from;
    netif = on_link_ip4(next_hop, &bits);
    return netif != NULL ? netif : first_with_ip4();
}

/* ---- IPv6: one netif has all addresses ---- */

const ip6_addr_t *core_next_hop_ip6(const ip6_addr_t *destination) {
    int bits = -1;
    for (int slot = 0; slot < LWIP_IPV6_NUM_ADDRESSES; slot++)
        if (ip6_addr_isvalid(netif_ip6_addr_state(&core_netif, slot)) && core_ip6_bits[slot] > bits &&
            prefix_matches(destination, netif_ip6_addr(&core_netif, slot), core_ip6_bits[slot]))
            bits = core_ip6_bits[slot];
    const struct lwip_core_route *route = managed_route(destination, true, bits);
    if (route == NULL) return bits >= 0 ? destination : NULL;
    return IP_IS_ANY_TYPE_VAL(route->gateway) ? destination : ip_2_ip6(&route->gateway);
}

struct netif *core_route_ip6(const ip6_addr_t *source, const ip6_addr_t *destination) {
    LWIP_UNUSED_ARG(source);
    if (ip6_addr_isloopback(destination)) return &core_loopback;
    return ip6_addr_ismulticast(destination) || core_next_hop_ip6(destination) != NULL ? &core_netif : NULL;
}

bool core_source_for(const ip_addr_t *destination, ip_addr_t *source) {
    if (IP_IS_V4(destination)) {
        struct netif *netif = core_route_ip4(NULL, ip_2_ip4(destination));
        if (netif == NULL) return false;
        ip_addr_copy_from_ip4(*source, *netif_ip4_addr(netif)); /* of the loopback interface 127.0.0.1: nothing is processed now */
        return true;
    }
    const ip6_addr_t *ip6 = ip_2_ip6(destination);
    if (ip6_addr_isloopback(ip6)) {
        ip_addr_copy(*source, *destination);
        return true;
    }
    if (!ip6_addr_islinklocal(ip6) && !ip6_addr_ismulticast(ip6) && core_next_hop_ip6(ip6) == NULL) return false;
    const ip_addr_t *selected = ip6_select_source_address(&core_netif, ip6);
    if (selected == NULL) return false;
    ip_addr_copy(*source, *selected);
    return true;
}
