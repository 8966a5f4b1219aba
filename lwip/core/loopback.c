/* loopback.c: the stack's loopback interface: 127.0.0.0/8 and ::1, inside this stack alone.
 *
 * Theory of operation. What is for a loopback address is routed to this interface (routes.c), which queues a copy; core_poll takes
 * the queue at the end of the reactor's batch, so that a packet is never processed inside the processing of another one and an idle
 * stack has nothing to do. lwIP gives an interface one IPv4 address: while a packet is processed the interface has the one that
 * the packet is for, and so has all of 127.0.0.0/8. A frame from the link that names a loopback address is dropped before lwIP
 * sees it (RFC 1122 §3.2.1.3, RFC 4291 §2.5.3), and nothing leaves here for the link: the interface has no link. An IPv4-mapped
 * source goes the same way, as in Linux: a program would take ::ffff:127.0.0.1 for its own host.
 *
 * Nothing can corrupt these packets: TCP and UDP checksums are neither made nor looked at. ICMP's are, for raw sockets see them.
 */
#include "core_hooks.h"
#include "core_internal.h"
#include "lwip/prot/ethernet.h"
#include "lwip/prot/ip4.h"
#include "lwip/prot/ip6.h"

struct netif core_loopback;
static ip4_addr_t usual;

static err_t output_ip4(struct netif *netif, struct pbuf *packet, const ip4_addr_t *destination) {
    LWIP_UNUSED_ARG(destination);
    return netif_loop_output(netif, packet);
}

static err_t output_ip6(struct netif *netif, struct pbuf *packet, const ip6_addr_t *destination) {
    LWIP_UNUSED_ARG(destination);
    return netif_loop_output(netif, packet);
}

static err_t start_loopback(struct netif *netif) {
    netif->name[0] = 'l';
    netif->name[1] = 'o';
    netif->mtu = CORE_LOOPBACK_MTU;
    netif->output = output_ip4;
    netif->output_ip6 = output_ip6;
    NETIF_SET_CHECKSUM_CTRL(netif, NETIF_CHECKSUM_GEN_IP | NETIF_CHECKSUM_GEN_ICMP | NETIF_CHECKSUM_GEN_ICMP6);
    return ERR_OK;
}

void core_loopback_start(void) {
    ip4_addr_t mask = {PP_HTONL(0xff000000u)};
    ip6_addr_t one;
    s8_t slot;
    usual.addr = PP_HTONL(IPADDR_LOOPBACK);
    LWIP_ASSERT("the loopback interface comes up",
                netif_add(&core_loopback, &usual, &mask, NULL, NULL, start_loopback, ip_input) != NULL);
    ip6_addr_set_loopback(&one);
    netif_add_ip6_address(&core_loopback, &one, &slot);
    netif_ip6_addr_set_state(&core_loopback, slot, IP6_ADDR_PREFERRED);
    netif_set_link_up(&core_loopback);
    netif_set_up(&core_loopback);
}

/* A packet enters lwIP's IPv4: LWIP_HOOK_IP4_INPUT. */
int core_ip4_arrives(struct pbuf *packet, struct netif *netif) {
    if (netif == &core_loopback) memcpy(ip_2_ip4(&netif->ip_addr), &((const struct ip_hdr *)packet->payload)->dest, 4);
    return 0;
}

bool core_loopback_poll(void) {
    if (core_loopback.loop_first == NULL) return false;
    netif_poll(&core_loopback);
    ip4_addr_copy(*ip_2_ip4(&core_loopback.ip_addr), usual);
    return true;
}

bool core_names_loopback(const uint8_t *frame) {
    static const uint8_t one[16] = {[15] = 1}, mapped[12] = {[10] = 0xff, [11] = 0xff};
    const uint8_t *ip = frame + SIZEOF_ETH_HDR;
    switch (frame[12] << 8 | frame[13]) {
    case ETHTYPE_IP:
        return ip[12] == IP_LOOPBACKNET || ip[16] == IP_LOOPBACKNET;
    case ETHTYPE_ARP: /* sender, target */
        return ip[14] == IP_LOOPBACKNET || ip[24] == IP_LOOPBACKNET;
    case ETHTYPE_IPV6:
        return memcmp(ip + 8, one, 16) == 0 || memcmp(ip + 24, one, 16) == 0 || memcmp(ip + 8, mapped, sizeof mapped) == 0;
    default:
        return false;
    }
}

bool core_is_loopback(const ip_addr_t *ip) {
    return IP_IS_V4(ip) ? ip4_addr_isloopback(ip_2_ip4(ip)) : (bool)ip6_addr_isloopback(ip_2_ip6(ip));
}
