/* datagram.c: UDP and ICMP packets past lwIP's own UDP, and groups.
 *
 * Theory of operation. Which socket gets a datagram is Linux's decision (datagrams.hpp), not that of lwIP's list of UDP PCBs, which
 * knows neither dual-stack scores nor balancing nor connected sockets that share a port. So there are no UDP PCBs: raw PCBs see
 * each UDP, ICMP and ICMPv6 packet before lwIP's own protocols do, reassembled and from its IP header on. What nobody wants goes on
 * to udp_input, which finds no PCB and answers "port unreachable", and to icmp_input, which answers echo requests.
 *
 * What leaves is a header and a reference to the caller's bytes: lwIP copies before it keeps any (waiting for a neighbour, to our
 * own address), and cuts into fragments what is longer than the MTU.
 */
#include "core_hooks.h"
#include "core_internal.h"
#include "lwip/inet_chksum.h"
#include "lwip/ip.h"
#include "lwip/ip6.h"
#include "lwip/prot/udp.h"

static lwip_core_datagram_fn receiver;
static void *receiver_owner;

static u8_t on_raw(void *arg, struct raw_pcb *pcb, struct pbuf *packet, const ip_addr_t *from) {
    LWIP_UNUSED_ARG(arg);
    LWIP_UNUSED_ARG(pcb);
    LWIP_UNUSED_ARG(from);
    if (receiver == NULL || !receiver(receiver_owner, packet)) return 0;
    pbuf_free(packet);
    return 1;
}

err_t core_watch_datagrams(lwip_core_datagram_fn fn, void *owner) {
    static const u8_t protocols[] = {IP_PROTO_UDP, IP_PROTO_ICMP, IP6_NEXTH_ICMP6};
    static struct raw_pcb *pcbs[sizeof protocols];
    for (size_t i = 0; i < sizeof protocols; i++) {
        if (pcbs[i] == NULL && (pcbs[i] = raw_new_ip_type(IPADDR_TYPE_ANY, protocols[i])) == NULL) return ERR_MEM;
        raw_recv(pcbs[i], on_raw, NULL);
    }
    receiver = fn;
    receiver_owner = owner;
    return ERR_OK;
}

bool core_udp_checksum_is_right(struct pbuf *packet) {
    const struct udp_hdr *header = packet->payload;
    if (packet->len < UDP_HLEN) return false;
    if (header->chksum == 0) return !ip_current_is_v6(); /* none was made: IPv4 only */
    return ip_chksum_pseudo(packet, IP_PROTO_UDP, packet->tot_len, ip_current_src_addr(), ip_current_dest_addr()) == 0;
}

bool core_icmp_checksum_is_right(struct pbuf *packet) {
    if (!ip_current_is_v6()) return inet_chksum_pbuf(packet) == 0;
    return ip6_chksum_pseudo(packet, IP6_NEXTH_ICMP6, packet->tot_len, ip6_current_src_addr(), ip6_current_dest_addr()) == 0;
}

static err_t send_from(const struct lwip_core_datagram *datagram, struct netif *netif, const ip_addr_t *source,
                       const ip_addr_t *destination) {
    bool udp = datagram->protocol == IP_PROTO_UDP;
    size_t head = udp ? UDP_HLEN : 0,
           ip_head = IP_IS_V6(destination) ? IP6_HLEN + 16 : IP_HLEN; /* 16: lwIP's reassembly needs it */
    if (datagram->length + head + ip_head > UINT16_MAX) return ERR_VAL;
    struct pbuf *packet = pbuf_alloc(PBUF_IP, (u16_t)head, PBUF_RAM);
    if (packet == NULL) return ERR_MEM;
    if (datagram->length > 0) {
        struct pbuf *data = pbuf_alloc_reference(datagram->data, datagram->length, PBUF_REF);
        if (data == NULL) {
            pbuf_free(packet);
            return ERR_MEM;
        }
        pbuf_cat(packet, data);
    }
    if (udp) {
        struct udp_hdr *header = packet->payload;
        header->src = lwip_htons(datagram->source_port);
        header->dest = lwip_htons(datagram->destination_port);
        header->len = lwip_htons(packet->tot_len);
        header->chksum = 0;
        u16_t sum = ip_chksum_pseudo(packet, IP_PROTO_UDP, packet->tot_len, source, destination);
        header->chksum = sum == 0 ? 0xffff : sum; /* 0 would mean: none */
    } else if (datagram->protocol == IP6_NEXTH_ICMP6 && datagram->length >= 4) {
        uint8_t *checksum = (uint8_t *)datagram->data + 2;
        memset(checksum, 0, 2);
        u16_t sum = ip6_chksum_pseudo(packet, IP6_NEXTH_ICMP6, packet->tot_len, ip_2_ip6(source), ip_2_ip6(destination));
        memcpy(checksum, &sum, 2);
    }
    err_t error = ip_output_if_src(packet, source, destination, datagram->ttl, datagram->tos, datagram->protocol, netif);
    pbuf_free(packet);
    return error;
}

err_t core_send_datagram(const struct lwip_core_datagram *datagram) {
    ip_addr_t source = datagram->source, destination = datagram->destination;
    if (IP_IS_V6(&destination)) {
        struct netif *netif = ip6_addr_isloopback(ip_2_ip6(&destination)) ? &core_loopback : &core_netif;
        ip6_addr_assign_zone(ip_2_ip6(&destination), IP6_UNKNOWN, &core_netif);
        if (!IP_IS_V6(&source) || ip6_addr_isany(ip_2_ip6(&source))) {
            const ip_addr_t *selected = ip6_select_source_address(netif, ip_2_ip6(&destination));
            if (selected == NULL) return ERR_RTE;
            source = *selected;
        } else {
            ip6_addr_assign_zone(ip_2_ip6(&source), IP6_UNICAST, &core_netif);
        }
        return send_from(datagram, netif, &source, &destination);
    }
    bool given = IP_IS_V4(&source) && !ip4_addr_isany(ip_2_ip4(&source));
    struct netif *netif = core_route_ip4(given ? ip_2_ip4(&source) : NULL, ip_2_ip4(&destination));
    if (netif == NULL) return ERR_RTE;
    if (!given) ip_addr_copy_from_ip4(source, *netif_ip4_addr(netif));
    return send_from(datagram, netif, &source, &destination);
}

bool core_is_broadcast(const ip_addr_t *ip) {
    struct netif *netif;
    if (!IP_IS_V4(ip)) return false;
    if (ip_2_ip4(ip)->addr == IPADDR_BROADCAST) return true;
    NETIF_FOREACH(netif)
    if (netif != &core_loopback && !ip4_addr_isany(netif_ip4_addr(netif)) && ip4_addr_isbroadcast(ip_2_ip4(ip), netif)) return true;
    return false;
}

/* ---- groups ---- */

static ip6_addr_t zoned(const ip_addr_t *group) {
    ip6_addr_t address = *ip_2_ip6(group);
    ip6_addr_assign_zone(&address, IP6_MULTICAST, &core_netif);
    return address;
}

err_t core_join_group(const ip_addr_t *group) {
    if (IP_IS_V4(group)) return igmp_joingroup_netif(&core_netif, ip_2_ip4(group));
    ip6_addr_t address = zoned(group);
    return mld6_joingroup_netif(&core_netif, &address);
}

err_t core_leave_group(const ip_addr_t *group) {
    if (IP_IS_V4(group)) return igmp_leavegroup_netif(&core_netif, ip_2_ip4(group));
    ip6_addr_t address = zoned(group);
    return mld6_leavegroup_netif(&core_netif, &address);
}

bool core_in_group(const ip_addr_t *group) {
    if (IP_IS_V4(group)) return igmp_lookfor_group(&core_netif, ip_2_ip4(group)) != NULL;
    ip6_addr_t address = zoned(group);
    return ip6_addr_isallnodes_linklocal(&address) || ip6_addr_isallnodes_iflocal(&address) ||
           mld6_lookfor_group(&core_netif, &address) != NULL;
}

size_t core_groups(ip_addr_t *out, size_t capacity) {
    size_t count = 0;
    for (const struct igmp_group *group = netif_igmp_data(&core_netif); group != NULL && count < capacity;
         group = group->next, count++)
        ip_addr_copy_from_ip4(out[count], group->group_address);
    for (const struct mld_group *group = netif_mld6_data(&core_netif); group != NULL && count < capacity;
         group = group->next, count++)
        ip_addr_copy_from_ip6(out[count], group->group_address);
    return count;
}
