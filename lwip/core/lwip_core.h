/* lwip_core.h: the boundary between lwIP (C, one private copy per stack) and our C++, which links none of its symbols.
 *
 * Theory of operation. lwIP keeps its state in globals. liblwip-core.so (lwIP and the C files beside this header) is therefore
 * loaded once per stack, each time from a private copy, and exports one symbol: `lwip_core_table`, which returns this copy's
 * `struct lwip_core` of function and global pointers. C++ includes lwIP's headers for types alone.
 *
 * Whatever may run lwIP code runs inside `enter`, which is C and holds the setjmp: an lwIP assertion jumps back there and `enter`
 * returns false; from then on the copy must not be entered again, its memory may be read until `drop` and is then gone as a whole.
 * A jump skips the frames in between without running destructors: between `enter` and lwIP no frame may own anything (trivially
 * destructible locals only), and callbacks from lwIP neither throw nor own.
 *
 * Time comes in with `set_time`; `run_timers` and `deadline` are all there is of timers (timers.c says why lwIP's own are not
 * used).
 */
#ifndef LWIP_CORE_H
#define LWIP_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lwip/igmp.h"
#include "lwip/init.h"
#include "lwip/mld6.h"
#include "lwip/netif.h"
#include "lwip/pbuf.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/raw.h"
#include "lwip/stats.h"
#include "lwip/tcp.h"
#include "lwip/udp.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LWIP_CORE_ABI 3u
#define LWIP_CORE_SYMBOL "lwip_core_table"
#define LWIP_CORE_NEVER UINT64_MAX

/* Ext-arg slots of a TCP PCB (tcp_ext_arg_set): 0 is timers.c's, this one is the socket server's. */
#define LWIP_CORE_EXT_ARG_SERVER 1
/* … and this one the address of a struct lwip_core_connection, or NULL. */
#define LWIP_CORE_EXT_ARG_CONNECTION 2

/* What makes two compilations of lwIP's headers the same. Compared at load. */
#define LWIP_CORE_FINGERPRINT                                                                                                      \
    {                                                                                                                              \
        LWIP_CORE_ABI, LWIP_VERSION, sizeof(struct tcp_pcb), sizeof(struct tcp_pcb_listen), sizeof(struct udp_pcb),                \
            sizeof(struct raw_pcb), sizeof(struct pbuf), sizeof(struct netif), sizeof(ip_addr_t), sizeof(struct tcp_seg),          \
            offsetof(struct tcp_pcb, remote_port), offsetof(struct tcp_pcb, snd_buf), offsetof(struct tcp_pcb, unacked),           \
            offsetof(struct tcp_pcb, keep_idle), offsetof(struct netif, mtu), offsetof(struct netif, hwaddr), TCP_MSS, TCP_WND,    \
            TCP_SND_BUF, TCP_SND_QUEUELEN, TCP_TMR_INTERVAL, TCP_RCV_SCALE, LWIP_IPV6_NUM_ADDRESSES, LWIP_TCP_PCB_NUM_EXT_ARGS,    \
            sizeof(struct lwip_core), sizeof(struct lwip_core_config), sizeof(struct lwip_core_connection)                         \
    }
#define LWIP_CORE_FINGERPRINT_WORDS 27

struct lwip_core_config {
    void *owner;
    /* A frame leaves: copy it and return ERR_OK, or ERR_WOULDBLOCK when there is no room (`resume_output` later). Must not throw,
     * nor call into this core. */
    err_t (*transmit)(void *owner, struct pbuf *frame);
    uint64_t key[4]; /* random: sequence numbers, ports, timers' jitter */
    uint64_t now_us;
    size_t memory_limit; /* bytes that lwIP may allocate */
    uint16_t mtu;
    uint8_t mac[6];
};

/* A managed route. IPv4 and IPv6; `gateway` of type IPADDR_TYPE_ANY: on the link. */
struct lwip_core_route {
    ip_addr_t network;
    ip_addr_t gateway;
    uint8_t bits;
};

struct lwip_core_address {
    ip_addr_t ip;
    uint8_t bits;
};

/* What leaves: UDP (the header is made from the ports), or ICMP and ICMPv6, whose message is `data`. */
struct lwip_core_datagram {
    ip_addr_t source; /* any: the one for the destination */
    ip_addr_t destination;
    uint16_t source_port, destination_port;
    uint8_t protocol, ttl, tos;
    void *data; /* an ICMPv6 message gets its checksum written into it */
    uint16_t length;
};

/* A UDP, ICMP or ICMPv6 packet for this host has arrived, `packet` from its IP header on, reassembled; ip_data describes it.
 * Returns whether it is dealt with; otherwise lwIP goes on with it. Under the trap. */
typedef bool (*lwip_core_datagram_fn)(void *owner, struct pbuf *packet);

/* What the owner of a TCP connection wants of it, and what it has done (connection.c); of a listener: max_segment alone. */
struct lwip_core_connection {
    uint32_t window_limit;    /* bytes that may have arrived and not been read */
    uint32_t user_timeout_ms; /* of silence in answer to data; 0: as long as Linux endures it */
    uint16_t max_segment;     /* TCP_MAXSEG; 0: what the MTU allows */
    uint8_t syn_retries;      /* TCP_SYNCNT; 0: Linux's 6 */

    uint32_t window, withheld, read_since; /* the core's */
    uint32_t segments_in, segments_out, data_segments_in, data_segments_out, retransmitted, out_of_order;
    uint64_t bytes_out, bytes_retransmitted;
    uint64_t data_in_us, data_out_us, ack_in_us; /* when last; 0: never */
};

struct lwip_core_counters {
    uint64_t frames_in, frames_out, bytes_in, bytes_out, bad_frames, transmit_refused, segments_merged;
    uint64_t segments_refused; /* out of order, and too many */
    uint64_t memory, memory_peak, timer_runs;
    uint32_t tcp_active, tcp_listening, tcp_time_wait;
};

/* lwIP's functions that our C++ calls. */
#define LWIP_CORE_FUNCTIONS(X)                                                                                                     \
    X(tcp_new_ip_type)                                                                                                             \
    X(tcp_bind)                                                                                                                    \
    X(tcp_bind_netif)                                                                                                              \
    X(tcp_listen_with_backlog_and_err)                                                                                             \
    X(tcp_connect)                                                                                                                 \
    X(tcp_write)                                                                                                                   \
    X(tcp_output)                                                                                                                  \
    X(tcp_recved)                                                                                                                  \
    X(tcp_close)                                                                                                                   \
    X(tcp_abort)                                                                                                                   \
    X(tcp_shutdown)                                                                                                                \
    X(tcp_setprio)                                                                                                                 \
    X(tcp_arg)                                                                                                                     \
    X(tcp_accept)                                                                                                                  \
    X(tcp_recv)                                                                                                                    \
    X(tcp_sent)                                                                                                                    \
    X(tcp_err)                                                                                                                     \
    X(tcp_poll)                                                                                                                    \
    X(tcp_backlog_delayed)                                                                                                         \
    X(tcp_backlog_accepted)                                                                                                        \
    X(tcp_ext_arg_set)                                                                                                             \
    X(tcp_ext_arg_get)                                                                                                             \
    X(tcp_ext_arg_set_callbacks)                                                                                                   \
    X(udp_new_ip_type)                                                                                                             \
    X(udp_bind)                                                                                                                    \
    X(udp_bind_netif)                                                                                                              \
    X(udp_connect)                                                                                                                 \
    X(udp_disconnect)                                                                                                              \
    X(udp_recv)                                                                                                                    \
    X(udp_send)                                                                                                                    \
    X(udp_sendto)                                                                                                                  \
    X(udp_remove)                                                                                                                  \
    X(raw_new_ip_type)                                                                                                             \
    X(raw_bind)                                                                                                                    \
    X(raw_connect)                                                                                                                 \
    X(raw_disconnect)                                                                                                              \
    X(raw_recv)                                                                                                                    \
    X(raw_send)                                                                                                                    \
    X(raw_sendto)                                                                                                                  \
    X(raw_remove)                                                                                                                  \
    X(pbuf_alloc)                                                                                                                  \
    X(pbuf_alloced_custom)                                                                                                         \
    X(pbuf_alloc_reference)                                                                                                        \
    X(pbuf_free)                                                                                                                   \
    X(pbuf_ref)                                                                                                                    \
    X(pbuf_realloc)                                                                                                                \
    X(pbuf_remove_header)                                                                                                          \
    X(pbuf_free_header)                                                                                                            \
    X(pbuf_cat)                                                                                                                    \
    X(pbuf_chain)                                                                                                                  \
    X(pbuf_dechain)                                                                                                                \
    X(pbuf_clen)                                                                                                                   \
    X(pbuf_take)                                                                                                                   \
    X(pbuf_copy_partial)                                                                                                           \
    X(igmp_joingroup_netif)                                                                                                        \
    X(igmp_leavegroup_netif)                                                                                                       \
    X(mld6_joingroup_netif)                                                                                                        \
    X(mld6_leavegroup_netif)                                                                                                       \
    X(netif_get_by_index)

#ifdef __cplusplus
#define LWIP_CORE_POINTER(name) decltype(::name) *name;
#else
#define LWIP_CORE_POINTER(name) __typeof__(name) *name;
#endif

struct lwip_core {
    uint64_t fingerprint[LWIP_CORE_FINGERPRINT_WORDS];

    /* -- life. `start` once, first; everything else after it. -- */
    /* Initialise lwIP and its interface: its assertions are trapped too. False: see `failure`. */
    bool (*start)(const struct lwip_core_config *config);
    /* Run `fn(context)` under the trap. Nested calls belong to the outermost one's trap. False: an assertion ended the stack, now
     * or before. */
    bool (*enter)(void (*fn)(void *context), void *context);
    /* The text of the assertion that ended the stack, or NULL. */
    const char *(*failure)(void);
    /* Fail as an assertion would: call inside `enter`. */
    __attribute__((noreturn)) void (*fail)(const char *text);
    /* Free all memory that lwIP holds. The core is dead afterwards. */
    void (*drop)(void);

    /* -- time -- */
    void (*set_time)(uint64_t now_us);
    void (*run_timers)(void);
    /* When run_timers is next wanted, or LWIP_CORE_NEVER. */
    uint64_t (*deadline)(void);

    /* -- frames -- */
    /* A frame arrives; after the last of a batch, `receive_end`. */
    void (*receive)(const uint8_t *frame, uint32_t length);
    void (*receive_end)(void);
    /* Packets to our own addresses that wait, and TCP output that `transmit` had refused. Returns whether it did anything. */
    bool (*poll)(void);

    /* -- addresses, routes, MTU. err_t: ERR_USE (there already), ERR_MEM (no slot), ERR_VAL (not ours, or not a unicast address).
     * -- */
    err_t (*add_address)(const ip_addr_t *ip, uint8_t bits);
    err_t (*remove_address)(const ip_addr_t *ip);
    size_t (*addresses)(struct lwip_core_address *out, size_t capacity);
    bool (*is_local)(const ip_addr_t *ip);
    err_t (*set_routes)(const struct lwip_core_route *routes, size_t count);
    /* Is there a way to `destination`, and from which address of ours would it go? */
    bool (*source_for)(const ip_addr_t *destination, ip_addr_t *source);
    void (*set_mtu)(uint16_t mtu);

    /* -- TCP connections that have a struct lwip_core_connection -- */
    /* When it is established, before it receives. */
    void (*open_window)(struct tcp_pcb *pcb);
    /* `count` bytes were taken. `prompt`: none is left, and the program keeps pace. Instead of tcp_recved. */
    void (*read)(struct tcp_pcb *pcb, size_t count, bool prompt);
    /* Before tcp_close. */
    void (*close_window)(struct tcp_pcb *pcb);
    /* What a chain of pbufs costs. */
    size_t (*true_size)(const struct pbuf *packet);
    uint64_t (*now_us)(void);

    /* -- datagrams (datagram.c) -- */
    err_t (*watch_datagrams)(lwip_core_datagram_fn fn, void *owner);
    /* ERR_RTE: no route; ERR_VAL: too long; ERR_MEM, ERR_WOULDBLOCK: no room. */
    err_t (*send_datagram)(const struct lwip_core_datagram *datagram);
    /* Is this a broadcast address of one of our subnets, or 255.255.255.255? */
    bool (*is_broadcast)(const ip_addr_t *ip);
    /* Groups are counted: each join needs its leave. */
    err_t (*join_group)(const ip_addr_t *group);
    err_t (*leave_group)(const ip_addr_t *group);
    bool (*in_group)(const ip_addr_t *group);
    size_t (*groups)(ip_addr_t *out, size_t capacity);
    /* The checksum of a UDP packet for us, from its UDP header on. */
    bool (*udp_checksum_is_right)(struct pbuf *packet);
    bool (*icmp_checksum_is_right)(struct pbuf *packet);
    void (*counters)(struct lwip_core_counters *out);

    /* -- lwIP's globals -- */
    struct netif *netif; /* the interface; further IPv4 addresses have one each behind it */
    struct tcp_pcb **tcp_active_pcbs;
    struct tcp_pcb **tcp_tw_pcbs;
    struct tcp_pcb **tcp_bound_pcbs;
    union tcp_listen_pcbs_t *tcp_listen_pcbs;
    struct udp_pcb **udp_pcbs;
    struct stats_ *stats;
    const ip_addr_t *any4;      /* 0.0.0.0 */
    const ip_addr_t *any6;      /* :: */
    const ip_addr_t *any_type;  /* both families (dual-stack bind) */
    struct ip_globals *ip_data; /* ip_current_* of the packet being processed: use the fields */

    LWIP_CORE_FUNCTIONS(LWIP_CORE_POINTER)
};

typedef struct lwip_core *(*lwip_core_table_fn)(void);

#ifdef __cplusplus
}
#endif
#endif
