/* lwipopts.h: lwIP's options. Everything that includes an lwIP header includes this one: `struct tcp_pcb`'s layout depends on it,
 * and a difference between the core and our C++ would hang silently. lwip_core.h's fingerprint makes it an error at load.
 *
 * Values without a remark are explained, with measurements, in the design (lwip.md, "Options that matter").
 */
#ifndef LWIPOPTS_H
#define LWIPOPTS_H

/* ---- shape: no threads, no sockets; time, randomness, memory and failure are ours (core.c, memory.c) ---- */
#define NO_SYS 1
#define SYS_LIGHTWEIGHT_PROT 0
#define LWIP_NETCONN 0
#define LWIP_SOCKET 0
#define LWIP_TIMERS 0 /* ours are armed only while there is something to time: timers.c */
#define LWIP_MPU_COMPATIBLE 0

#define MEM_ALIGNMENT 8
#define MEM_CUSTOM_ALLOCATOR 1
#define MEM_CUSTOM_MALLOC core_allocate
#define MEM_CUSTOM_CALLOC core_allocate_zeroed
#define MEM_CUSTOM_FREE core_release
#define MEM_SIZE (16u << 20) /* only makes mem_size_t 32 bits wide */
#define MEMP_MEM_MALLOC 1
#define PBUF_POOL_BUFSIZE 2048 /* pool buffers are not used for frames */

/* ---- Ethernet, ARP ---- */
#define LWIP_ETHERNET 1
#define LWIP_ARP 1
#define ARP_TABLE_SIZE 127
#define ARP_QUEUEING 1
#define ARP_QUEUE_LEN 64 /* the fragments of the longest datagram, at the smallest MTU */
#define ETHARP_TABLE_MATCH_NETIF 1
#define ETHARP_SUPPORT_STATIC_ENTRIES 1
#define LWIP_NETIF_LOOPBACK 1 /* to our own addresses */
#define LWIP_HAVE_LOOPIF 0    /* 127.0.0.0/8 and ::1 are loopback.c's */
#define LWIP_NETIF_HOSTNAME 0

/* ---- IPv4 ---- */
#define LWIP_IPV4 1
#define IP_FORWARD 0
#define IP_REASSEMBLY 1
#define IP_REASS_MAX_PBUFS 256
#define IP_FRAG 1
#define LWIP_ICMP 1
#define LWIP_RAW 1
#define LWIP_DHCP 0
#define LWIP_AUTOIP 0
#define LWIP_ACD 0
#define LWIP_IGMP 1
#define LWIP_DNS 0
#define IP_SOF_BROADCAST 1
#define IP_SOF_BROADCAST_RECV 0

/* ---- IPv6 ---- */
#define LWIP_IPV6 1
#define LWIP_IPV6_NUM_ADDRESSES 16
#define LWIP_IPV6_MLD 1
#define LWIP_IPV6_AUTOCONFIG 0 /* addresses are managed by the network's controller */
#define LWIP_IPV6_DUP_DETECT_ATTEMPTS 0
#define LWIP_IPV6_SEND_ROUTER_SOLICIT 0
#define LWIP_IPV6_DHCP6 0
#define LWIP_ND6_ALLOW_RA_UPDATES 0
#define LWIP_ND6_QUEUEING 1
#define MEMP_NUM_ND6_QUEUE 256 /* packets, over all neighbours that are being sought */
#define LWIP_ND6_NUM_NEIGHBORS 127
#define LWIP_ND6_NUM_DESTINATIONS 127
#define LWIP_IPV6_FRAG 1
#define LWIP_IPV6_REASS 1
#define IPV6_FRAG_COPYHEADER 1

/* ---- UDP, TCP ---- */
#define LWIP_UDP 1
#define LWIP_TCP 1
#define TCP_MSS 61440 /* a ceiling; the interface's MTU decides */
#define LWIP_WND_SCALE 1
#define TCP_RCV_SCALE 6
#define TCP_WND (2u << 20)
#define TCP_SND_BUF (2u << 20)
#define TCP_SND_QUEUELEN 16384
#define LWIP_DISABLE_TCP_SANITY_CHECKS 1 /* they relate TCP_SNDLOWAT, which only lwIP's own sockets use, to TCP_MSS */
#define TCP_SNDLOWAT 16384
#define TCP_SNDQUEUELOWAT 1024
#define TCP_WND_UPDATE_THRESHOLD (TCP_WND / 8)
#define TCP_OVERSIZE TCP_MSS
#define TCP_QUEUE_OOSEQ 1
#define LWIP_TCP_SACK_OUT 1
#define LWIP_TCP_MAX_SACK_NUM 4
#define LWIP_TCP_TIMESTAMPS 0
#define TCP_TMR_INTERVAL 10 /* ms; the slow tick is twice this */
#define LWIP_TCP_RTO_TIME 1000
#define TCP_MAXRTX 12   /* how long a silent connection lives is decided in timers.c */
#define TCP_SYNMAXRTX 7 /* with the doubling of timers.c: 1 + 2 + ... + 64 s, as Linux */
#define TCP_MSL 1000
#define LWIP_TCP_KEEPALIVE 1
#define TCP_LISTEN_BACKLOG 1
#define TCP_DEFAULT_LISTEN_BACKLOG 0xff
#define SO_REUSE 1
#define SO_REUSE_RXTOALL 1
#define LWIP_TCP_PCB_NUM_EXT_ARGS 3 /* 0: timers.c; 1: free for the socket server; 2: connection.c */

/* A packet that must wait (for its neighbour's address) is copied unless it owns its bytes. TCP's are the server's, which may give
 * them to another connection as soon as they are acknowledged or the connection is aborted: the packet would then carry those. */
#define PBUF_NEEDS_COPY(packet) (((packet)->type_internal & PBUF_TYPE_FLAG_STRUCT_DATA_CONTIGUOUS) == 0)

/* ---- checksums: real on all frames that leave, checked on all that arrive ---- */
#define LWIP_CHECKSUM_CTRL_PER_NETIF 1
#define LWIP_CHKSUM core_checksum

/* ---- counters ---- */
#define LWIP_STATS 1
#define LWIP_STATS_LARGE 1
#define LINK_STATS 0
#define MEM_STATS 0
#define MEMP_STATS 0
#define SYS_STATS 0

#define LWIP_RANDOMIZE_INITIAL_LOCAL_PORTS 1

/* ---- hooks ---- */
#define LWIP_HOOK_FILENAME "core_hooks.h"
#define LWIP_HOOK_TCP_ISN core_initial_sequence
#define LWIP_HOOK_TCP_INPACKET_PCB(pcb, header, option_length, option_length_1, option_2, packet)                                  \
    core_tcp_arrives(pcb, header, packet)
#define LWIP_HOOK_TCP_OUT_ADD_TCPOPTS(segment, header, pcb, options) core_tcp_leaves(segment, header, pcb, options)
#define LWIP_HOOK_IP4_INPUT(packet, netif) core_ip4_arrives(packet, netif)
#define LWIP_HOOK_IP4_ROUTE_SRC(source, destination) core_route_ip4(source, destination)
#define LWIP_HOOK_IP6_ROUTE(source, destination) core_route_ip6(source, destination)
/* link.c has already replaced the destination by its next hop: that is where the packet goes. */
#define LWIP_HOOK_ETHARP_GET_GW(netif, destination) (destination)
#define LWIP_HOOK_ND6_GET_GW(netif, destination) (destination)

#endif
