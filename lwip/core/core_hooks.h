/* core_hooks.h: where lwIP asks us (LWIP_HOOK_FILENAME; the macros that name them are in
 * lwipopts.h, because lwIP's headers ask whether they exist): sequence numbers and routes. */
#ifndef CORE_HOOKS_H
#define CORE_HOOKS_H

#include "lwip/err.h"
#include "lwip/ip_addr.h"

#ifdef __cplusplus
extern "C" {
#endif

struct netif;
struct pbuf;
struct tcp_pcb;
struct tcp_hdr;

/* RFC 6528: a clock of 4 microseconds plus a keyed hash of the four-tuple. */
u32_t core_initial_sequence(const ip_addr_t *local, u16_t local_port, const ip_addr_t *remote, u16_t remote_port);
/* The interface for a destination, or NULL. `source` may be NULL or any. */
struct netif *core_route_ip4(const ip4_addr_t *source, const ip4_addr_t *destination);
struct netif *core_route_ip6(const ip6_addr_t *source, const ip6_addr_t *destination);
/* A packet enters IPv4 (loopback.c); 0: lwIP goes on with it. */
int core_ip4_arrives(struct pbuf *packet, struct netif *netif);
/* A segment is about to be processed by its PCB (merge.c). */
err_t core_tcp_arrives(struct tcp_pcb *pcb, const struct tcp_hdr *header, const struct pbuf *data);
/* A segment is about to leave (connection.c). Returns `options`, the end of its TCP options. */
u32_t *core_tcp_leaves(const struct pbuf *segment, struct tcp_hdr *header, const struct tcp_pcb *pcb, u32_t *options);
#ifdef __cplusplus
}
#endif

#endif
