/* connection.c: what a connection may cost and what it has done: windows that grow, limits of what is out of order, counters.
 *
 * Theory of operation.
 *
 * The window. lwIP's is TCP_WND for every connection from its first segment on, and a program that does not read then costs that
 * much; more, when the peer sends one byte a segment. Here a connection begins with what its SYN announced (64 KiB), the rest of
 * lwIP's window is *withheld*:
 *
 *     pcb->rcv_wnd + withheld + received and not read = TCP_WND_MAX(pcb)
 *
 * A window doubles, up to the owner's limit (SO_RCVBUF, TCP_WINDOW_CLAMP, else all), each time a whole one was taken, nothing is
 * left here, and the owner says that the program keeps pace; not while the stack is short of memory. One that is larger than its
 * limit shrinks by what is read, never by moving its right edge back (RFC 9293 §3.8.6.2.1). No limit is smaller than two segments:
 * lwIP announces no less than one.
 *
 * Out of order. What waits for a gap to be filled is counted with its true size, and a segment that would exceed the bound is
 * refused, and answered by an ACK: what is next in sequence is always taken, so the connection goes on.
 *
 * Counters live in the owner's record, whose address is an ext arg of the PCB; connections without one (lwip.Probe) have the whole
 * window, and only the bound of what is out of order.
 */
#include "core_hooks.h"
#include "core_internal.h"
#include "lwip/prot/tcp.h"

#define FIRST_WINDOW 0xffffu
#define OUT_OF_ORDER_SEGMENTS_MAX 2048u      /* each arrival looks through them */
#define OUT_OF_ORDER_BYTES_SHORT (64u << 10) /* of memory */
#define MSS_OPTION 0x02040000u

struct lwip_core_connection *core_connection_of(const struct tcp_pcb *pcb) {
    return pcb->ext_args[LWIP_CORE_EXT_ARG_CONNECTION].data;
}

/* ---- the window ---- */

void core_open_window(struct tcp_pcb *pcb) {
    struct lwip_core_connection *connection = core_connection_of(pcb);
    connection->window = LWIP_MIN(FIRST_WINDOW, pcb->rcv_wnd);
    connection->withheld = pcb->rcv_wnd - connection->window;
    connection->read_since = 0;
    pcb->rcv_wnd = pcb->rcv_ann_wnd = connection->window;
    pcb->rcv_ann_right_edge = pcb->rcv_nxt + connection->window;
}

void core_read(struct tcp_pcb *pcb, size_t count, bool prompt) {
    struct lwip_core_connection *connection = core_connection_of(pcb);
    uint32_t limit = LWIP_MAX(connection->window_limit, 2u * pcb->mss), credit = (uint32_t)count;
    if (connection->window > limit) {
        uint32_t less = LWIP_MIN(credit, connection->window - limit);
        connection->window -= less;
        connection->withheld += less;
        credit -= less;
    }
    connection->read_since += credit;
    if (prompt && connection->read_since >= connection->window && connection->window < limit && !core_memory_is_short()) {
        uint32_t more = LWIP_MIN(connection->window, LWIP_MIN(limit - connection->window, connection->withheld));
        connection->window += more;
        connection->withheld -= more;
        credit += more;
        connection->read_since = 0;
    }
    for (; credit > 0xffff; credit -= 0xffff)
        tcp_recved(pcb, 0xffff);
    tcp_recved(pcb, (u16_t)credit);
    /* lwIP's own threshold is a share of the largest window. */
    if (pcb->rcv_nxt + pcb->rcv_ann_wnd - pcb->rcv_ann_right_edge >= connection->window / 4 && pcb->state != CLOSED) {
        tcp_ack_now(pcb);
        tcp_output(pcb);
    }
}

void core_close_window(struct tcp_pcb *pcb) {
    struct lwip_core_connection *connection = core_connection_of(pcb);
    pcb->rcv_wnd += connection->withheld; /* tcp_close looks whether all of it is there: whether all was read */
    connection->withheld = 0;
}

/* ---- segments ---- */

static bool has_room_out_of_order(const struct tcp_pcb *pcb, const struct pbuf *data) {
    size_t limit = core_memory_is_short() ? OUT_OF_ORDER_BYTES_SHORT : 2 * TCP_WND, size = core_true_size(data);
    unsigned count = 0;
    for (const struct tcp_seg *segment = pcb->ooseq; segment != NULL; segment = segment->next) {
        size += sizeof *segment + core_true_size(segment->p);
        if (size > limit || ++count == OUT_OF_ORDER_SEGMENTS_MAX) return false;
    }
    return true;
}

err_t core_connection_receives(struct tcp_pcb *pcb, const struct tcp_hdr *header, const struct pbuf *data) {
    struct lwip_core_connection *connection = core_connection_of(pcb);
    if (connection != NULL) {
        connection->segments_in++;
        if (data->tot_len > 0) {
            connection->data_segments_in++;
            connection->data_in_us = core_now_us;
        }
        if (TCPH_FLAGS(header) & TCP_ACK) connection->ack_in_us = core_now_us;
    }
    if (pcb->ooseq != NULL && data->tot_len > 0 && TCP_SEQ_GT(header->seqno, pcb->rcv_nxt) && !(TCPH_FLAGS(header) & TCP_RST)) {
        if (connection != NULL) connection->out_of_order++;
        if (!has_room_out_of_order(pcb, data)) {
            core_count.segments_refused++;
            tcp_send_empty_ack(pcb);
            return ERR_MEM;
        }
    }
    return ERR_OK;
}

u32_t *core_tcp_leaves(const struct pbuf *segment, struct tcp_hdr *header, const struct tcp_pcb *pcb, u32_t *options) {
    if (pcb == NULL) return options; /* a reset */
    struct lwip_core_connection *connection = core_connection_of(pcb);
    bool opens = (TCPH_FLAGS(header) & TCP_SYN) != 0;
    /* A connection that nobody has accepted yet is its listener's. */
    const struct lwip_core_connection *owner = connection;
    if (owner == NULL && opens && pcb->listener != NULL) owner = pcb->listener->ext_args[LWIP_CORE_EXT_ARG_CONNECTION].data;
    if (opens && owner != NULL && owner->max_segment != 0) {
        u32_t *option = (u32_t *)(void *)(header + 1); /* the first, on every SYN */
        u32_t announced = lwip_ntohl(*option);
        if ((announced & 0xffff0000u) == MSS_OPTION && (announced & 0xffff) > owner->max_segment)
            *option = lwip_htonl(MSS_OPTION | owner->max_segment);
    }
    if (connection == NULL) return options;
    connection->segments_out++;
    uint16_t length = (uint16_t)(segment->tot_len - TCPH_HDRLEN_BYTES(header));
    if (length == 0 && !opens) return options;
    bool again = TCP_SEQ_LT(lwip_ntohl(header->seqno), pcb->snd_nxt);
    connection->retransmitted += again;
    if (length == 0) return options;
    connection->data_segments_out++;
    connection->bytes_out += length;
    if (again) connection->bytes_retransmitted += length;
    connection->data_out_us = core_now_us;
    return options;
}
