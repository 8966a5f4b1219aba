/* core_internal.h: what the C files of the core share with each other. */
#ifndef CORE_INTERNAL_H
#define CORE_INTERNAL_H

#include "lwip_core.h"

/* core.c */
extern uint64_t core_now_us;
extern struct lwip_core_config core_config;
extern struct lwip_core_counters core_count;

/* memory.c */
extern size_t core_memory_limit;
void core_memory_drop(void);
size_t core_true_size(const struct pbuf *packet);
bool core_memory_is_short(void);

/* timers.c */
void core_timers_start(void);
/* Bring the ticks up to now without firing anything: before lwIP looks at them. */
void core_timers_catch_up(void);
/* The entry that is about to end did nothing that wants new ticks (a timer run, a poll that found nothing). */
extern bool core_entry_was_quiet;
/* Something happened, unless the entry was quiet: ticks are wanted for a while. */
void core_timers_activity(void);
void core_run_timers(void);
uint64_t core_deadline(void);

/* link.c */
extern struct netif core_netif;
extern bool core_output_refused;
extern uint8_t core_ip6_bits[LWIP_IPV6_NUM_ADDRESSES]; /* prefix lengths of core_netif's IPv6 addresses */
void core_link_start(void);
void core_receive(const uint8_t *frame, uint32_t length);
err_t core_add_address(const ip_addr_t *ip, uint8_t bits);
err_t core_remove_address(const ip_addr_t *ip);
size_t core_addresses(struct lwip_core_address *out, size_t capacity);
bool core_is_local(const ip_addr_t *ip);
void core_set_mtu(uint16_t mtu);

/* loopback.c */
#define CORE_LOOPBACK_MTU 65535 /* a kernel's has one more, which 16 bits do not hold */
extern struct netif core_loopback;
void core_loopback_start(void);
/* Process what is queued. False: nothing was. */
bool core_loopback_poll(void);
/* Does this frame, whose header is whole, come from or go to a loopback address, or come from an IPv4-mapped one? */
bool core_names_loopback(const uint8_t *frame);
bool core_is_loopback(const ip_addr_t *ip);

/* routes.c */
err_t core_set_routes(const struct lwip_core_route *routes, size_t count);
/* The next hop towards `destination`: itself if it is on the link, else a gateway; NULL if there is no route. */
const ip4_addr_t *core_next_hop_ip4(const ip4_addr_t *destination);
const ip6_addr_t *core_next_hop_ip6(const ip6_addr_t *destination);
bool core_source_for(const ip_addr_t *destination, ip_addr_t *source);

/* merge.c */
/* Take a frame, to be joined with those that follow. False: it is not one that could be; what was held has gone in before. */
bool core_merge(const uint8_t *frame, uint32_t length);
/* What is held goes in: at the end of a batch. */
void core_merge_flush(void);
/* A SYN met its predecessor in TIME_WAIT, ended it, and was consumed: it is to come in once more. */
extern bool core_time_wait_ended;

/* connection.c */
/* The owner's record of a connection, or NULL. */
struct lwip_core_connection *core_connection_of(const struct tcp_pcb *pcb);
/* A segment for a synchronised connection: count it. ERR_MEM: there is no room for it, and the peer has been told so. */
err_t core_connection_receives(struct tcp_pcb *pcb, const struct tcp_hdr *header, const struct pbuf *data);
void core_open_window(struct tcp_pcb *pcb);
void core_read(struct tcp_pcb *pcb, size_t count, bool prompt);
void core_close_window(struct tcp_pcb *pcb);

/* neighbour.c */
/* Ask before a packet for `target` is handed to lwIP's neighbour cache: will it take a solicitation of ours? If so, `core_solicit`
 * after. */
bool core_must_solicit(const ip6_addr_t *target);
void core_solicit(const ip6_addr_t *target);
/* Once a second: those still sought. */
void core_solicit_again(void);
/* Once a second: connections whose SYN waits for a neighbour that does not answer end with ERR_RTE. */
void core_give_up_unanswered(void);

/* datagram.c */
err_t core_watch_datagrams(lwip_core_datagram_fn fn, void *owner);
err_t core_send_datagram(const struct lwip_core_datagram *datagram);
bool core_is_broadcast(const ip_addr_t *ip);
err_t core_join_group(const ip_addr_t *group);
err_t core_leave_group(const ip_addr_t *group);
bool core_in_group(const ip_addr_t *group);
size_t core_groups(ip_addr_t *out, size_t capacity);
bool core_udp_checksum_is_right(struct pbuf *packet);
bool core_icmp_checksum_is_right(struct pbuf *packet);

#endif
