/* tcp_end.hpp: lwIP's side of one TCP connection: the PCB, what it has received, what it has still to send.
 *
 * Theory of operation.
 *
 * Received data is the list of lwIP's own pbufs, linked through `next` (never pbuf_cat: its lengths have 16 bits). The pump
 * writes straight from them and `consume`s what the program's descriptor took; only that is acknowledged to the window
 * (connection.c), which is the back-pressure on the peer. A pbuf that is mostly overhead (one byte in a frame) and has to wait
 * is copied into a *collector* at the end of the list: what waits costs a few times its bytes, whatever the peer's segments.
 *
 * Data to send is read into chunks and given to lwIP without copying, so a chunk lives until its last byte is acknowledged.
 * A chunk's bytes go through three marks: acknowledged <= submitted (tcp_write) <= filled. Chunks come from a pool, so that
 * an idle connection holds none and a busy one allocates nothing. What a connection may hold starts at 256 KiB, because lwIP
 * walks its list of unacknowledged segments for each ACK, and doubles, up to lwIP's own buffer (SO_SNDBUF), when everything that is
 * held is in flight: then this limit, and not the path, is what slows the connection.
 *
 * Callbacks from lwIP run under the stack's trap: they only put something into this object and call `notify`, which links the
 * owner into the list of sockets that have work; the work is done later, outside. lwIP frees PCBs in several silent ways
 * (the end of TIME_WAIT); the destructor of an ext-arg tells us of each.
 */
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "address.hpp"
#include "options.hpp"
#include "stack.hpp"

namespace netcon::server {

struct Chunk {
    Chunk *next;
    uint32_t acknowledged, submitted, filled;
    static constexpr uint32_t capacity = 65536 - 32; // fits tcp_write's 16-bit length
    uint8_t data[capacity];
};

/* Spare chunks. */
class ChunkPool {
  public:
    ~ChunkPool();
    Chunk *take();
    void give(Chunk *chunk);
    size_t in_use() const { return in_use_; }

  private:
    static constexpr size_t spare_max = 64;
    Chunk *spare_ = nullptr;
    size_t spares_ = 0, in_use_ = 0;
};

ip_addr_t to_lwip(const Address &address);
Address from_lwip(const ip_addr_t &ip, uint16_t port);

class TcpEnd {
  public:
    using Notify = void (*)(void *context);

    TcpEnd(ChunkPool &pool, Notify notify, void *context) : pool_(pool), notify_(notify), context_(context) {}
    ~TcpEnd();
    TcpEnd(const TcpEnd &) = delete;

    /* Start to connect. 0 or an errno; then `connected` or `gone` comes true. */
    int connect(std::shared_ptr<Stack> stack, const Address &local, const Address &remote, const Options &options);
    /* Inside lwIP's accept callback: take the new PCB. */
    void adopt(Stack *stack, tcp_pcb *pcb);
    /* After the accept callback: keep the stack, too. */
    void hold(std::shared_ptr<Stack> stack) { stack_ = std::move(stack); }
    void apply(const Options &options);
    void accepted_from_backlog();

    /* -- receive -- */
    bool rx_empty() const { return rx_head_ == nullptr; }
    size_t rx_parts(iovec *parts, size_t count) const;
    /* `prompt`: the program keeps pace, so the window may grow. */
    void consume(size_t bytes, bool prompt);
    int receive_buffer() const { return static_cast<int>(2 * connection.window); } // as Linux counts
    bool window_may_grow() const { return connection.window < connection.window_limit; }

    /* -- send -- */
    size_t tx_room() const { return tx_held_ < tx_limit_ ? tx_limit_ - tx_held_ : 0; }
    size_t tx_held() const { return tx_held_; }
    size_t tx_limit() const { return tx_limit_; }
    /* Of what is held, what has not left once. */
    size_t tx_unsent() const { return tx_pending_ + (pcb_ != nullptr ? pcb_->snd_lbb - pcb_->snd_nxt : 0); }
    bool tx_all_submitted() const { return tx_pending_ == 0; }
    /* Free space for up to `wanted` bytes (also limited by tx_room); then `fill` what was read. Returns the number of parts;
     * 0: no room or no memory. */
    size_t tx_space(size_t wanted, iovec *parts, size_t count);
    void fill(size_t bytes);
    /* Give lwIP what it takes now. */
    void submit();
    /* FIN after what was submitted. */
    void shutdown_send();
    /* The program is gone: FIN, and let lwIP finish. */
    void close();
    /* RST. */
    void abort();
    /* Both directions are finished and acknowledged: let lwIP finish alone. */
    void detach();
    /* The stack has failed: nothing of it may be touched again. */
    void forget();

    bool connected = false;
    bool rx_fin = false; // the peer sends no more
    bool gone = false;   // there is no PCB any more
    bool was_reset = false;
    err_t error = ERR_OK;  // why
    uint64_t progress = 0; // counts acknowledgements, for orphans' time limit

    uint64_t bytes_acknowledged = 0, bytes_received = 0;
    lwip_core_connection connection{};

    tcp_pcb *pcb() const { return pcb_; }
    Stack *stack() const { return stack_raw_; }

  private:
    static err_t on_connected(void *arg, tcp_pcb *pcb, err_t error);
    static err_t on_receive(void *arg, tcp_pcb *pcb, pbuf *data, err_t error);
    static err_t on_sent(void *arg, tcp_pcb *pcb, u16_t bytes);
    static void on_error(void *arg, err_t error);
    static void on_destroyed(u8_t slot, void *arg);
    static const tcp_ext_arg_callbacks destroyed_;
    void install(const lwip_core &core);
    void append(pbuf *data);
    void release_receive();
    void release_send();

    ChunkPool &pool_;
    Notify notify_;
    void *context_;
    std::shared_ptr<Stack> stack_;
    Stack *stack_raw_ = nullptr;
    tcp_pcb *pcb_ = nullptr;
    pbuf *rx_head_ = nullptr, *rx_tail_ = nullptr;
    uint32_t rx_offset_ = 0;                                             // into rx_head_
    uint32_t collector_room_ = 0;                                        // of rx_tail_, if it is a collector
    Chunk *tx_head_ = nullptr, *tx_tail_ = nullptr, *tx_next_ = nullptr; // tx_next_: first with something to submit
    size_t tx_held_ = 0, tx_pending_ = 0, tx_limit_ = 256 << 10, tx_limit_max_ = TCP_SND_BUF;
};

} // namespace netcon::server
