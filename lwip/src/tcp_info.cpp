/* tcp_info.cpp: TCP_INFO, from what lwIP's PCB and connection.c's record know.
 *
 * What nobody counts here is 0, as in a kernel that does not count it: ato, sacked, lost, reordering, the shares of time for which
 * a connection was limited. lwIP measures round trips in ticks of 20 ms: rtt and rto are multiples of that.
 */
#include <linux/tcp.h>
#include <netinet/in.h>

#include <algorithm>

#include "rpc_server.hpp"
#include "tcp_end.hpp"

namespace netcon::server {

namespace {

/* Linux's numbers for the states of lwIP. */
uint8_t linux_state(const tcp_pcb *pcb) {
    constexpr uint8_t close = 7, listen = 10;
    if (pcb == nullptr) return close;
    switch (pcb->state) {
    case LISTEN:
        return listen;
    case SYN_SENT:
        return 2;
    case SYN_RCVD:
        return 3;
    case ESTABLISHED:
        return 1;
    case FIN_WAIT_1:
        return 4;
    case FIN_WAIT_2:
        return 5;
    case CLOSE_WAIT:
        return 8;
    case CLOSING:
        return 11;
    case LAST_ACK:
        return 9;
    case TIME_WAIT:
        return 6;
    default:
        return close;
    }
}

constexpr uint8_t listening_state = 10;
constexpr uint64_t tick_us = TCP_SLOW_INTERVAL * 1000;
constexpr uint32_t headers4 = 40, headers6 = 60;

/* Milliseconds since `then`; 0 if never. */
uint32_t since(uint64_t now_us, uint64_t then_us) { return then_us == 0 ? 0 : static_cast<uint32_t>((now_us - then_us) / 1000); }

uint32_t segments_in(const tcp_seg *segment) {
    uint32_t count = 0;
    for (; segment != nullptr; segment = segment->next)
        count++;
    return count;
}

} // namespace

int reply_tcp_info(const TcpEnd &tcp, const Options &options, bool listening, Reply &reply, uint32_t capacity) {
    tcp_info info{};
    const tcp_pcb *pcb = tcp.pcb();
    const lwip_core_connection &connection = tcp.connection;
    info.tcpi_state = listening ? listening_state : linux_state(pcb);
    info.tcpi_snd_mss = info.tcpi_advmss = options.max_segment != 0 ? static_cast<uint32_t>(options.max_segment) : 536;
    info.tcpi_max_pacing_rate = UINT64_MAX;
    info.tcpi_bytes_acked = tcp.bytes_acknowledged;
    info.tcpi_bytes_received = tcp.bytes_received;
    info.tcpi_bytes_sent = connection.bytes_out;
    info.tcpi_bytes_retrans = connection.bytes_retransmitted;
    info.tcpi_segs_in = connection.segments_in;
    info.tcpi_segs_out = connection.segments_out;
    info.tcpi_data_segs_in = connection.data_segments_in;
    info.tcpi_data_segs_out = connection.data_segments_out;
    info.tcpi_total_retrans = connection.retransmitted;
    info.tcpi_rcv_ooopack = connection.out_of_order;
    if (pcb == nullptr) return reply_bytes(reply, &info, sizeof info, capacity);

    uint64_t now = tcp.stack()->core().now_us();
    uint32_t mss = std::max<uint32_t>(pcb->mss, 1), headers = IP_IS_V6(&pcb->remote_ip) ? headers6 : headers4;
    info.tcpi_options = ((pcb->flags & TF_WND_SCALE) ? TCPI_OPT_WSCALE : 0) | ((pcb->flags & TF_SACK) ? TCPI_OPT_SACK : 0);
    info.tcpi_snd_wscale = pcb->snd_scale & 15;
    info.tcpi_rcv_wscale = pcb->rcv_scale & 15;
    info.tcpi_ca_state = (pcb->flags & TF_RTO) ? TCP_CA_Loss : (pcb->flags & TF_INFR) ? TCP_CA_Recovery : TCP_CA_Open;
    info.tcpi_retransmits = pcb->nrtx;
    info.tcpi_probes = static_cast<uint8_t>(pcb->persist_probe + pcb->keep_cnt_sent);
    info.tcpi_backoff = pcb->nrtx;
    info.tcpi_rto = static_cast<uint32_t>(static_cast<uint64_t>(pcb->rto) * tick_us);
    info.tcpi_rtt = static_cast<uint32_t>(static_cast<uint64_t>(pcb->sa >> 3) * tick_us);
    info.tcpi_rttvar = static_cast<uint32_t>(static_cast<uint64_t>(pcb->sv >> 2) * tick_us);
    info.tcpi_snd_mss = info.tcpi_rcv_mss = mss;
    info.tcpi_pmtu = tcp.stack()->mtu();
    info.tcpi_advmss = info.tcpi_pmtu - headers;
    if (options.max_segment != 0) info.tcpi_advmss = std::min(info.tcpi_advmss, static_cast<uint32_t>(options.max_segment));
    info.tcpi_unacked = segments_in(pcb->unacked);
    info.tcpi_retrans = pcb->nrtx > 0 ? 1 : 0;
    info.tcpi_last_data_sent = since(now, connection.data_out_us);
    info.tcpi_last_data_recv = since(now, connection.data_in_us);
    info.tcpi_last_ack_recv = since(now, connection.ack_in_us);
    info.tcpi_snd_ssthresh = pcb->ssthresh / mss;
    info.tcpi_snd_cwnd = std::max<uint32_t>(pcb->cwnd / mss, 1);
    info.tcpi_rcv_ssthresh = info.tcpi_rcv_space = connection.window;
    info.tcpi_notsent_bytes = static_cast<uint32_t>(tcp.tx_unsent());
    info.tcpi_snd_wnd = pcb->snd_wnd;
    info.tcpi_delivered = connection.data_segments_out - connection.retransmitted -
                          std::min(info.tcpi_unacked, connection.data_segments_out - connection.retransmitted);
    return reply_bytes(reply, &info, sizeof info, capacity);
}

} // namespace netcon::server
