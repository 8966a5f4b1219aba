/* link.c: the stack's Ethernet interface: frames in and out, addresses, MTU.
 *
 * Theory of operation. lwIP's netif has one IPv4 address and sixteen IPv6 ones. Further IPv4 addresses are therefore netifs of
 * their own, on the same link and with the same MAC: what they need from us is that ARP requests for them reach them (lwIP answers
 * for the receiving netif's address only), everything else lwIP looks up over all netifs. The list keeps the order of addition, so
 * the first address is the preferred source.
 */
#include "core_internal.h"
#include "lwip/etharp.h"
#include "lwip/ethip6.h"
#include "lwip/nd6.h"
#include "lwip/prot/etharp.h"
#include "netif/ethernet.h"

#define FURTHER_IP4_MAX 64

struct netif core_netif;
bool core_output_refused;
uint8_t core_ip6_bits[LWIP_IPV6_NUM_ADDRESSES];

/* ---- frames ---- */

static err_t link_output(struct netif *netif, struct pbuf *frame) {
    LWIP_UNUSED_ARG(netif);
    err_t result = core_config.transmit(core_config.owner, frame);
    if (result == ERR_OK) {
        core_count.frames_out++;
        core_count.bytes_out += frame->tot_len;
    } else {
        core_count.transmit_refused++;
        core_output_refused = true;
    }
    return result;
}

static struct netif *owner_of_ip4(const ip4_addr_t *ip) {
    struct netif *netif;
    NETIF_FOREACH(netif)
    if (netif != &core_loopback && !ip4_addr_isany(ip) && ip4_addr_eq(netif_ip4_addr(netif), ip)) return netif;
    return NULL;
}

static err_t output_ip4(struct netif *netif, struct pbuf *packet, const ip4_addr_t *destination) {
    if (((const uint8_t *)packet->payload)[12] == IP_LOOPBACKNET && owner_of_ip4(destination) == NULL) return ERR_RTE;
    if (ip4_addr_isbroadcast(destination, netif) || ip4_addr_ismulticast(destination))
        return etharp_output(netif, packet, destination);
    struct netif *owner = owner_of_ip4(destination);
    if (owner != NULL) return netif_loop_output(owner, packet);
    const ip4_addr_t *next_hop = core_next_hop_ip4(destination);
    return next_hop == NULL ? ERR_RTE : etharp_output(netif, packet, next_hop);
}

static err_t output_ip6(struct netif *netif, struct pbuf *packet, const ip6_addr_t *destination) {
    if (ip6_addr_ismulticast(destination) || ip6_addr_islinklocal(destination)) return ethip6_output(netif, packet, destination);
    const ip6_addr_t *next_hop = core_next_hop_ip6(destination);
    if (next_hop == NULL) return ERR_RTE;
    bool solicit = core_must_solicit(next_hop);
    err_t result = ethip6_output(netif, packet, next_hop);
    if (solicit) core_solicit(next_hop);
    return result;
}

static uint16_t ethertype_of(const uint8_t *frame) { return (uint16_t)(frame[12] << 8 | frame[13]); }

/* The bytes that lwIP reads without a look at the length: it counts on Ethernet's padding. */
static uint32_t whole_header(const uint8_t *frame, uint32_t length) {
    switch (length < SIZEOF_ETH_HDR ? 0 : ethertype_of(frame)) {
    case ETHTYPE_ARP:
        return SIZEOF_ETH_HDR + SIZEOF_ETHARP_HDR;
    case ETHTYPE_IP:
        return SIZEOF_ETH_HDR + IP_HLEN;
    case ETHTYPE_IPV6:
        return SIZEOF_ETH_HDR + IP6_HLEN;
    default:
        return SIZEOF_ETH_HDR;
    }
}

void core_receive(const uint8_t *frame, uint32_t length) {
    core_count.frames_in++;
    core_count.bytes_in += length;
    if (length < whole_header(frame, length) || length > (uint32_t)core_netif.mtu + SIZEOF_ETH_HDR + 4 /* a VLAN tag */) {
        core_count.bad_frames++;
        return;
    }
    if (core_names_loopback(frame)) {
        core_count.bad_frames++;
        return;
    }
    if (core_merge(frame, length)) return;
    struct netif *netif = &core_netif;
    /* An ARP packet is for the netif that has its target address. */
    if (ethertype_of(frame) == ETHTYPE_ARP) {
        ip4_addr_t target;
        memcpy(&target.addr, frame + SIZEOF_ETH_HDR + 24, 4);
        struct netif *owner = owner_of_ip4(&target);
        if (owner != NULL) netif = owner;
    }
    do {
        core_time_wait_ended = false;
        struct pbuf *packet = pbuf_alloc(PBUF_RAW, (u16_t)length, PBUF_RAM);
        if (packet == NULL) {
            core_count.bad_frames++;
            return;
        }
        memcpy(packet->payload, frame, length);
        if (netif->input(packet, netif) != ERR_OK) pbuf_free(packet);
    } while (core_time_wait_ended);
}

/* ---- the interface ---- */

static err_t start_netif(struct netif *netif) {
    netif->name[0] = 'z';
    netif->name[1] = 't';
    netif->mtu = core_netif.mtu != 0 ? core_netif.mtu : core_config.mtu;
    netif->hwaddr_len = 6;
    memcpy(netif->hwaddr, core_config.mac, 6);
    netif->output = output_ip4;
    netif->output_ip6 = output_ip6;
    netif->linkoutput = link_output;
    netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET;
    if (netif == &core_netif) netif->flags |= NETIF_FLAG_IGMP | NETIF_FLAG_MLD6;
    NETIF_SET_CHECKSUM_CTRL(netif, NETIF_CHECKSUM_ENABLE_ALL);
    return ERR_OK;
}

static bool add_netif(struct netif *netif, const ip4_addr_t *ip, const ip4_addr_t *mask) {
    if (netif_add(netif, ip, mask, NULL, NULL, start_netif, ethernet_input) == NULL) return false;
    /* netif_add puts it first; ours go last. */
    if (netif->next != NULL) {
        struct netif *last = netif->next;
        netif_list = netif->next;
        while (last->next != NULL)
            last = last->next;
        last->next = netif;
        netif->next = NULL;
    }
    netif_set_link_up(netif);
    netif_set_up(netif);
    return true;
}

void core_link_start(void) {
    core_netif.mtu = 0;
    LWIP_ASSERT("the interface comes up", add_netif(&core_netif, IP4_ADDR_ANY4, IP4_ADDR_ANY4));
    netif_create_ip6_linklocal_address(&core_netif, 1);
    netif_ip6_addr_set_state(&core_netif, 0, IP6_ADDR_PREFERRED);
    core_ip6_bits[0] = 64;
}

void core_set_mtu(uint16_t mtu) {
    struct netif *netif;
    NETIF_FOREACH(netif)
    if (netif != &core_loopback) netif->mtu = mtu;
    nd6_clear_destination_cache();
    for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb != NULL; pcb = pcb->next)
        if (!core_is_loopback(&pcb->remote_ip))
            pcb->mss = LWIP_MIN(pcb->mss, (u16_t)(mtu - (IP_IS_V6(&pcb->remote_ip) ? IP6_HLEN : IP_HLEN) - TCP_HLEN));
}

/* ---- addresses ---- */

static ip4_addr_t mask_of(uint8_t bits) {
    ip4_addr_t mask = {lwip_htonl(bits == 0 ? 0 : UINT32_MAX << (32 - bits))};
    return mask;
}

static err_t add_ip4(const ip4_addr_t *ip, uint8_t bits) {
    ip4_addr_t mask = mask_of(bits);
    if (bits > 32 || ip4_addr_isany(ip) || ip4_addr_ismulticast(ip) || ip4_addr_isloopback(ip) || ip->addr == IPADDR_BROADCAST)
        return ERR_VAL;
    if (owner_of_ip4(ip) != NULL) return ERR_USE;
    if (ip4_addr_isany(netif_ip4_addr(&core_netif))) {
        netif_set_addr(&core_netif, ip, &mask, IP4_ADDR_ANY4);
        return ERR_OK;
    }
    unsigned count = 0;
    struct netif *netif;
    NETIF_FOREACH(netif)
    count++;
    netif = count <= FURTHER_IP4_MAX ? core_allocate_zeroed(1, sizeof *netif) : NULL;
    if (netif == NULL) return ERR_MEM;
    if (!add_netif(netif, ip, &mask)) {
        core_release(netif);
        return ERR_MEM;
    }
    return ERR_OK;
}

static err_t add_ip6(const ip6_addr_t *given, uint8_t bits) {
    s8_t slot;
    ip6_addr_t ip = *given;
    if (bits > 128 || ip6_addr_isany(&ip) || ip6_addr_ismulticast(&ip) || ip6_addr_isloopback(&ip)) return ERR_VAL;
    ip6_addr_assign_zone(&ip, IP6_UNICAST, &core_netif);
    if (netif_get_ip6_addr_match(&core_netif, &ip) >= 0) return ERR_USE;
    if (netif_add_ip6_address(&core_netif, &ip, &slot) != ERR_OK) return ERR_MEM;
    netif_ip6_addr_set_state(&core_netif, slot, IP6_ADDR_PREFERRED);
    core_ip6_bits[slot] = bits;
    return ERR_OK;
}

err_t core_add_address(const ip_addr_t *ip, uint8_t bits) {
    return IP_IS_V6(ip) ? add_ip6(ip_2_ip6(ip), bits) : add_ip4(ip_2_ip4(ip), bits);
}

err_t core_remove_address(const ip_addr_t *ip) {
    if (IP_IS_V6(ip)) {
        ip6_addr_t address = *ip_2_ip6(ip);
        ip6_addr_assign_zone(&address, IP6_UNICAST, &core_netif);
        s8_t slot = netif_get_ip6_addr_match(&core_netif, &address);
        if (slot <= 0) /* slot 0 is the link-local address: it goes with the stack */
            return ERR_VAL;
        netif_ip6_addr_set_state(&core_netif, slot, IP6_ADDR_INVALID);
        return ERR_OK;
    }
    struct netif *netif = owner_of_ip4(ip_2_ip4(ip));
    if (netif == NULL) return ERR_VAL;
    if (netif == &core_netif) {
        netif_set_addr(netif, IP4_ADDR_ANY4, IP4_ADDR_ANY4, IP4_ADDR_ANY4);
    } else {
        netif_remove(netif);
        core_release(netif);
    }
    return ERR_OK;
}

size_t core_addresses(struct lwip_core_address *out, size_t capacity) {
    size_t count = 0;
    struct netif *netif;
    NETIF_FOREACH(netif)
    if (netif != &core_loopback && !ip4_addr_isany(netif_ip4_addr(netif)) && count < capacity) {
        ip_addr_copy_from_ip4(out[count].ip, *netif_ip4_addr(netif));
        out[count++].bits = (uint8_t)__builtin_popcount(netif_ip4_netmask(netif)->addr);
    }
    for (int slot = 0; slot < LWIP_IPV6_NUM_ADDRESSES; slot++)
        if (ip6_addr_isvalid(netif_ip6_addr_state(&core_netif, slot)) && count < capacity) {
            ip_addr_copy_from_ip6(out[count].ip, *netif_ip6_addr(&core_netif, slot));
            out[count++].bits = core_ip6_bits[slot];
        }
    return count;
}

bool core_is_local(const ip_addr_t *ip) {
    if (core_is_loopback(ip)) return true;
    if (IP_IS_V4(ip)) return owner_of_ip4(ip_2_ip4(ip)) != NULL;
    for (int slot = 0; slot < LWIP_IPV6_NUM_ADDRESSES; slot++)
        if (ip6_addr_isvalid(netif_ip6_addr_state(&core_netif, slot)) &&
            ip6_addr_zoneless_eq(ip_2_ip6(ip), netif_ip6_addr(&core_netif, slot)))
            return true;
    return false;
}
