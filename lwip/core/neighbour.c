/* neighbour.c: what lwIP leaves out about neighbours: solicitations on short prefixes, and telling a connection that there is
 * nobody.
 *
 * Theory of operation, solicitations. lwIP solicits only for addresses in the /64 of one of its own. Networks here have prefixes of
 * any length on the link (6PLANE has /40: hosts differ within the first 64 bits). lwIP's neighbour cache does the rest as usual: an
 * entry is made, packets wait, the advertisement is taken, entries age. So where lwIP stays silent this sends the solicitation:
 * when the entry is new, and again once a second while it is sought.
 *
 * Nobody there. A SYN whose next hop does not answer would be retransmitted for minutes. A kernel gives up after three unanswered
 * questions with EHOSTUNREACH; here the error callback gets ERR_RTE when a SYN has waited that long for its neighbour's address.
 */
#include "core_hooks.h"
#include "core_internal.h"
#include "lwip/etharp.h"
#include "lwip/inet_chksum.h"
#include "lwip/ip6.h"
#include "lwip/priv/nd6_priv.h"
#include "lwip/prot/icmp6.h"
#include "lwip/prot/nd6.h"

static bool lwip_solicits(const ip6_addr_t *target) {
    for (int slot = 0; slot < LWIP_IPV6_NUM_ADDRESSES; slot++)
        if (ip6_addr_isvalid(netif_ip6_addr_state(&core_netif, slot)) && ip6_addr_net_eq(target, netif_ip6_addr(&core_netif, slot)))
            return true;
    return false;
}

/* RFC 4861 §4.3, to the solicited-node group, with our link-layer address. */
static void solicit(const ip6_addr_t *target) {
    const ip_addr_t *source = ip6_select_source_address(&core_netif, target);
    struct pbuf *packet = pbuf_alloc(PBUF_IP, sizeof(struct ns_header) + 8, PBUF_RAM);
    if (source == NULL || packet == NULL) {
        if (packet != NULL) pbuf_free(packet);
        return;
    }
    struct ns_header *header = packet->payload;
    uint8_t *option = (uint8_t *)(header + 1);
    memset(header, 0, sizeof *header);
    header->type = ICMP6_TYPE_NS;
    ip6_addr_copy_to_packed(header->target_address, *target);
    option[0] = ND6_OPTION_TYPE_SOURCE_LLADDR;
    option[1] = 1; /* in 8 bytes */
    memcpy(option + 2, core_netif.hwaddr, 6);
    ip6_addr_t group;
    ip6_addr_set_solicitednode(&group, target->addr[3]);
    ip6_addr_assign_zone(&group, IP6_MULTICAST, &core_netif);
    header->chksum = ip6_chksum_pseudo(packet, IP6_NEXTH_ICMP6, packet->tot_len, ip_2_ip6(source), &group);
    ip6_output_if(packet, ip_2_ip6(source), &group, ND6_HOPLIM, 0, IP6_NEXTH_ICMP6, &core_netif);
    pbuf_free(packet);
}

static bool is_known(const ip6_addr_t *target) {
    for (int i = 0; i < LWIP_ND6_NUM_NEIGHBORS; i++)
        if (neighbor_cache[i].state != ND6_NO_ENTRY && ip6_addr_eq(&neighbor_cache[i].next_hop_address, target)) return true;
    return false;
}

bool core_must_solicit(const ip6_addr_t *target) { return !lwip_solicits(target) && !is_known(target); }

void core_solicit(const ip6_addr_t *target) {
    if (is_known(target)) /* as being sought: lwIP has an entry for what comes back */
        solicit(target);
}

void core_solicit_again(void) {
    for (int i = 0; i < LWIP_ND6_NUM_NEIGHBORS; i++)
        if ((neighbor_cache[i].state == ND6_INCOMPLETE || neighbor_cache[i].state == ND6_PROBE) &&
            !lwip_solicits(&neighbor_cache[i].next_hop_address))
            solicit(&neighbor_cache[i].next_hop_address);
}

/* ---- nobody there ---- */

#define UNANSWERED_TICKS (3000 / TCP_SLOW_INTERVAL)

static bool neighbour_answered(const struct tcp_pcb *pcb) {
    if (core_is_local(&pcb->remote_ip)) return true;
    if (IP_IS_V4(&pcb->remote_ip)) {
        struct netif *netif = core_route_ip4(ip_2_ip4(&pcb->local_ip), ip_2_ip4(&pcb->remote_ip));
        const ip4_addr_t *next_hop = core_next_hop_ip4(ip_2_ip4(&pcb->remote_ip)), *found;
        struct eth_addr *mac;
        return netif != NULL && next_hop != NULL && etharp_find_addr(netif, next_hop, &mac, &found) >= 0;
    }
    const ip6_addr_t *destination = ip_2_ip6(&pcb->remote_ip);
    const ip6_addr_t *next_hop = ip6_addr_islinklocal(destination) ? destination : core_next_hop_ip6(destination);
    for (int i = 0; next_hop != NULL && i < LWIP_ND6_NUM_NEIGHBORS; i++)
        if (neighbor_cache[i].state > ND6_INCOMPLETE && ip6_addr_zoneless_eq(&neighbor_cache[i].next_hop_address, next_hop))
            return true;
    return false;
}

void core_give_up_unanswered(void) {
    for (struct tcp_pcb *pcb = tcp_active_pcbs, *next; pcb != NULL; pcb = next) {
        next = pcb->next;
        if (pcb->state != SYN_SENT || pcb->rtime < UNANSWERED_TICKS || neighbour_answered(pcb)) continue;
        tcp_err_fn error = pcb->errf;
        void *argument = pcb->callback_arg;
        tcp_err(pcb, NULL);
        tcp_abandon(pcb, 0);
        if (error != NULL) error(argument, ERR_RTE); /* which only takes note (lwip_core.h): the list stays as it is */
    }
}
