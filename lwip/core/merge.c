/* merge.c: segments of one connection that follow each other in a batch enter lwIP as one.
 *
 * Theory of operation. What lwIP does for a segment costs about the same whatever its length, and every second segment costs an
 * ACK, which crosses the whole data path back. So plain segments (no IP options, fragments or TCP options; ACK or ACK|PSH; same
 * acknowledgement and window) whose sequence numbers join are chained, and enter as one when something else comes or the batch
 * ends. Their checksums are verified here, one by one, before they are joined; lwIP is told not to look for that one input. A
 * merged segment is acknowledged at once: otherwise the delayed ACK, which counts segments, would wait.
 *
 * A sender that gets one ACK for many segments must count all of them, or slow start becomes slow: lwIP counts two.
 * `core_tcp_arrives` adds the rest.
 */
#include "core_hooks.h"
#include "core_internal.h"
#include "lwip/prot/ethernet.h"
#include "lwip/prot/ip4.h"
#include "lwip/prot/ip6.h"
#include "lwip/prot/tcp.h"

#define MERGED_MAX 60000u /* below what a 16-bit length can say, headers included */
#define PUSH 0x08
#define PLAIN_FLAGS(byte) (((byte) & ~PUSH) == 0x10)

/* Where things are in a plain segment's frame. */
struct layout {
    uint16_t ip_length; /* of the IP header: 20 or 40 */
    uint16_t data;      /* offset of the payload in the frame */
    uint16_t length;    /* of the payload */
    uint32_t sequence;
};

static struct pbuf *held;
static struct layout held_layout;
static uint32_t next_sequence;
static unsigned held_segments;
static bool input_is_merged;
bool core_time_wait_ended;

static uint16_t read16(const uint8_t *bytes) { return (uint16_t)(bytes[0] << 8 | bytes[1]); }

static bool is_plain_segment(const uint8_t *frame, uint32_t length, struct layout *layout) {
    const uint8_t *ip = frame + SIZEOF_ETH_HDR;
    uint32_t ip_bytes = length - SIZEOF_ETH_HDR;
    if (length < SIZEOF_ETH_HDR + IP_HLEN + TCP_HLEN || memcmp(frame, core_config.mac, 6) != 0) return false;
    if (read16(frame + 12) == ETHTYPE_IP) {
        if (ip[0] != 0x45 || read16(ip + 2) != ip_bytes || (read16(ip + 6) & ~IP_DF) != 0 || ip[9] != IP_PROTO_TCP) return false;
        layout->ip_length = IP_HLEN;
    } else if (read16(frame + 12) == ETHTYPE_IPV6) {
        if (ip_bytes < IP6_HLEN + TCP_HLEN || ip[0] >> 4 != 6 || read16(ip + 4) != ip_bytes - IP6_HLEN || ip[6] != IP_PROTO_TCP)
            return false;
        layout->ip_length = IP6_HLEN;
    } else {
        return false;
    }
    const uint8_t *tcp = ip + layout->ip_length;
    layout->data = (uint16_t)(SIZEOF_ETH_HDR + layout->ip_length + TCP_HLEN);
    layout->length = (uint16_t)(length - layout->data);
    layout->sequence = (uint32_t)read16(tcp + 4) << 16 | read16(tcp + 6);
    return tcp[12] == 0x50 && PLAIN_FLAGS(tcp[13]) && layout->length > 0;
}

/* Of the IP header and of TCP with its pseudo header. */
static bool checksums_are_right(const uint8_t *frame, const struct layout *layout) {
    const uint8_t *ip = frame + SIZEOF_ETH_HDR;
    bool is_ip4 = layout->ip_length == IP_HLEN;
    uint16_t tcp_length = (uint16_t)(TCP_HLEN + layout->length);
    uint32_t sum = core_checksum(ip + (is_ip4 ? 12 : 8), is_ip4 ? 8 : 32);
    sum += core_checksum(ip + layout->ip_length, tcp_length);
    sum += lwip_htons(tcp_length) + lwip_htons(IP_PROTO_TCP);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum == 0xffff && (!is_ip4 || core_checksum(ip, IP_HLEN) == 0xffff);
}

static bool same_flow(const uint8_t *a, const uint8_t *b, const struct layout *layout) {
    bool is_ip4 = layout->ip_length == IP_HLEN;
    const uint8_t *ip_a = a + SIZEOF_ETH_HDR, *ip_b = b + SIZEOF_ETH_HDR;
    const uint8_t *tcp_a = ip_a + layout->ip_length, *tcp_b = ip_b + layout->ip_length;
    return (is_ip4 ? ip_a[1] == ip_b[1] && memcmp(ip_a + 12, ip_b + 12, 8) == 0
                   : memcmp(ip_a, ip_b, 4) == 0 && memcmp(ip_a + 8, ip_b + 8, 32) == 0) &&
           memcmp(tcp_a, tcp_b, 4) == 0               /* ports */
           && memcmp(tcp_a + 8, tcp_b + 8, 4) == 0    /* acknowledgement */
           && memcmp(tcp_a + 14, tcp_b + 14, 2) == 0; /* window */
}

static void write16(uint8_t *bytes, uint32_t value) {
    bytes[0] = (uint8_t)(value >> 8);
    bytes[1] = (uint8_t)value;
}

void core_merge_flush(void) {
    struct pbuf *packet = held;
    if (packet == NULL) return;
    held = NULL;
    u16_t checks = core_netif.chksum_flags;
    if (held_segments > 1) {
        uint8_t *ip = (uint8_t *)packet->payload + SIZEOF_ETH_HDR;
        if (held_layout.ip_length == IP_HLEN)
            write16(ip + 2, packet->tot_len - SIZEOF_ETH_HDR);
        else
            write16(ip + 4, packet->tot_len - SIZEOF_ETH_HDR - IP6_HLEN);
        core_netif.chksum_flags &= (u16_t) ~(NETIF_CHECKSUM_CHECK_IP | NETIF_CHECKSUM_CHECK_TCP);
        input_is_merged = true;
        core_count.segments_merged += held_segments;
    }
    if (core_netif.input(packet, &core_netif) != ERR_OK) pbuf_free(packet);
    input_is_merged = false;
    core_netif.chksum_flags = checks;
}

/* Joins the frame to the one that is held. False: it does not follow it. */
static bool join(const uint8_t *frame, const struct layout *layout) {
    if (held == NULL || layout->ip_length != held_layout.ip_length || layout->sequence != next_sequence ||
        held->tot_len + layout->length > MERGED_MAX)
        return false;
    uint8_t *first = held->payload;
    if (!same_flow(first, frame, layout) || !checksums_are_right(frame, layout) ||
        (held_segments == 1 && !checksums_are_right(first, &held_layout)))
        return false;
    struct pbuf *more = pbuf_alloc(PBUF_RAW, layout->length, PBUF_RAM);
    if (more == NULL) return false;
    memcpy(more->payload, frame + layout->data, layout->length);
    first[SIZEOF_ETH_HDR + layout->ip_length + 13] |= frame[SIZEOF_ETH_HDR + layout->ip_length + 13] & PUSH;
    pbuf_cat(held, more);
    next_sequence += layout->length;
    held_segments++;
    return true;
}

bool core_merge(const uint8_t *frame, uint32_t length) {
    struct layout layout;
    if (!is_plain_segment(frame, length, &layout)) {
        core_merge_flush();
        return false;
    }
    if (join(frame, &layout)) return true;
    core_merge_flush();
    struct pbuf *packet = pbuf_alloc(PBUF_RAW, (u16_t)length, PBUF_RAM);
    if (packet == NULL) return false;
    memcpy(packet->payload, frame, length);
    held = packet;
    held_layout = layout;
    held_segments = 1;
    next_sequence = layout.sequence + layout.length;
    return true;
}

err_t core_tcp_arrives(struct tcp_pcb *pcb, const struct tcp_hdr *header, const struct pbuf *data) {
    if (pcb->state == TIME_WAIT) {
        /* A new connection of the same four-tuple, later in sequence, ends the wait (RFC 1122 §4.2.2.13); lwIP would reset it. */
        if ((TCPH_FLAGS(header) & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN && TCP_SEQ_GT(header->seqno, pcb->rcv_nxt)) {
            tcp_abort(pcb); /* silent in this state */
            core_time_wait_ended = true;
            return ERR_ABRT;
        }
        return ERR_OK;
    }
    if (pcb->state < ESTABLISHED) return ERR_OK;
    if (core_connection_receives(pcb, header, data) != ERR_OK) return ERR_MEM;
    if (input_is_merged) tcp_ack_now(pcb);
    u32_t acknowledged = header->ackno - pcb->lastack; /* already in host order */
    u32_t counted = 2u * pcb->mss;
    if (TCP_SEQ_GT(header->ackno, pcb->lastack) && TCP_SEQ_LEQ(header->ackno, pcb->snd_nxt) && pcb->cwnd < pcb->ssthresh &&
        !(pcb->flags & (TF_INFR | TF_RTO)) && acknowledged > counted)
        TCP_WND_INC(pcb->cwnd, acknowledged - counted);
    return ERR_OK;
}
