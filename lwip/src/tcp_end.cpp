/* tcp_end.cpp: see tcp_end.hpp. */
#include "tcp_end.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace netcon::server {

namespace {

constexpr size_t mostly_overhead = 2;   // a pbuf whose cost is more than this many times its bytes is copied when it has to wait
constexpr u16_t collector_bytes = 8000; // in one of memory.c's largest blocks

} // namespace

/* ---- chunks ---- */

ChunkPool::~ChunkPool() {
    while (spare_ != nullptr)
        std::free(std::exchange(spare_, spare_->next));
}

Chunk *ChunkPool::take() {
    Chunk *chunk = spare_;
    if (chunk != nullptr) {
        spare_ = chunk->next;
        spares_--;
    } else if ((chunk = static_cast<Chunk *>(std::malloc(sizeof(Chunk)))) == nullptr) {
        return nullptr;
    }
    chunk->next = nullptr;
    chunk->acknowledged = chunk->submitted = chunk->filled = 0;
    in_use_++;
    return chunk;
}

void ChunkPool::give(Chunk *chunk) {
    in_use_--;
    if (spares_ == spare_max) {
        std::free(chunk);
        return;
    }
    chunk->next = spare_;
    spare_ = chunk;
    spares_++;
}

/* ---- addresses ---- */

ip_addr_t to_lwip(const Address &address) {
    ip_addr_t ip{};
    if (address.is_v4()) {
        uint32_t word;
        std::memcpy(&word, address.ip.data() + 12, 4);
        ip.type = IPADDR_TYPE_V4;
        ip.u_addr.ip4.addr = word;
    } else {
        ip.type = IPADDR_TYPE_V6;
        std::memcpy(ip.u_addr.ip6.addr, address.ip.data(), 16);
    }
    return ip;
}

Address from_lwip(const ip_addr_t &ip, uint16_t port) {
    return ip.type == IPADDR_TYPE_V6 ? Address::v6(reinterpret_cast<const uint8_t *>(ip.u_addr.ip6.addr), port)
                                     : Address::v4(reinterpret_cast<const uint8_t *>(&ip.u_addr.ip4.addr), port);
}

/* ---- life ---- */

const tcp_ext_arg_callbacks TcpEnd::destroyed_ = {.destroy = on_destroyed, .passive_open = nullptr};

TcpEnd::~TcpEnd() {
    abort();
    release_send();
}

void TcpEnd::install(const lwip_core &core) {
    core.tcp_arg(pcb_, this);
    core.tcp_recv(pcb_, on_receive);
    core.tcp_sent(pcb_, on_sent);
    core.tcp_err(pcb_, on_error);
    core.tcp_ext_arg_set_callbacks(pcb_, LWIP_CORE_EXT_ARG_SERVER, &destroyed_);
    core.tcp_ext_arg_set(pcb_, LWIP_CORE_EXT_ARG_SERVER, this);
    core.tcp_ext_arg_set(pcb_, LWIP_CORE_EXT_ARG_CONNECTION, &connection);
}

int TcpEnd::connect(std::shared_ptr<Stack> stack, const Address &local, const Address &remote, const Options &options) {
    stack_ = std::move(stack);
    stack_raw_ = stack_.get();
    ip_addr_t from = to_lwip(local), to = to_lwip(remote);
    err_t result = ERR_MEM;
    bool alive = stack_->enter([&] {
        const lwip_core &core = stack_->core();
        pcb_ = core.tcp_new_ip_type(IP_GET_TYPE(&to));
        if (pcb_ == nullptr) return;
        connection = {};
        install(core);
        // The port table has decided about the port: tcp_bind would only look through all PCBs once more.
        pcb_->local_ip = from;
        pcb_->local_port = local.port;
        if (IP_IS_V6(&to) && ip6_addr_islinklocal(ip_2_ip6(&to))) ip6_addr_assign_zone(ip_2_ip6(&to), IP6_UNICAST, core.netif);
        if (IP_IS_V6(&pcb_->local_ip) && ip6_addr_islinklocal(ip_2_ip6(&pcb_->local_ip)))
            ip6_addr_assign_zone(ip_2_ip6(&pcb_->local_ip), IP6_UNICAST, core.netif);
        pcb_->remote_ip = to; // tells `apply` the family
        apply(options);       // its SYN shows them already
        result = core.tcp_connect(pcb_, &to, remote.port, on_connected);
    });
    if (!alive) return ENETDOWN;
    if (result == ERR_OK) {
        stack_->schedule();
        return 0;
    }
    abort();
    gone = false;
    return result == ERR_RTE ? ENETUNREACH : result == ERR_USE ? EADDRINUSE : result == ERR_MEM ? ENOBUFS : EINVAL;
}

void TcpEnd::adopt(Stack *stack, tcp_pcb *pcb) {
    stack_raw_ = stack;
    pcb_ = pcb;
    connected = true;
    install(stack->core());
    stack->core().open_window(pcb_);
}

void TcpEnd::apply(const Options &options) {
    constexpr int half = 2; // Linux counts a buffer's overhead as much again
    connection.user_timeout_ms = static_cast<uint32_t>(options.user_timeout);
    connection.syn_retries = static_cast<uint8_t>(options.syn_count);
    connection.max_segment = static_cast<uint16_t>(options.max_segment);
    connection.window_limit = options.receive_buffer_set ? static_cast<uint32_t>(options.receive_buffer / half) : TCP_WND;
    if (options.window_clamp != 0)
        connection.window_limit = std::min(connection.window_limit, static_cast<uint32_t>(options.window_clamp));
    if (options.send_buffer_set) {
        tx_limit_max_ = std::min<size_t>(static_cast<size_t>(options.send_buffer), TCP_SND_BUF);
        tx_limit_ = std::min(tx_limit_, tx_limit_max_);
    }
    if (pcb_ == nullptr) return;
    if (options.max_segment != 0 && pcb_->state >= ESTABLISHED)
        pcb_->mss = std::min(pcb_->mss, static_cast<u16_t>(options.max_segment));
    if (options.no_delay)
        tcp_nagle_disable(pcb_);
    else
        tcp_nagle_enable(pcb_);
    if (options.keep_alive)
        ip_set_option(pcb_, SOF_KEEPALIVE);
    else
        ip_reset_option(pcb_, SOF_KEEPALIVE);
    pcb_->keep_idle = static_cast<u32_t>(options.keep_idle) * 1000;
    pcb_->keep_intvl = static_cast<u32_t>(options.keep_interval) * 1000;
    pcb_->keep_cnt = static_cast<u32_t>(options.keep_count);
    if (options.user_timeout !=
        0) { // then it ends keep-alive, too, at the first probe after that time, and no number of probes does
        int64_t probing = int64_t{options.user_timeout} - int64_t{options.keep_idle} * 1000,
                interval = options.keep_interval * 1000;
        pcb_->keep_cnt = static_cast<u32_t>(std::max<int64_t>((probing + interval - 1) / interval, 1));
    }
    bool v6 = IP_IS_V6(&pcb_->remote_ip);
    pcb_->tos = static_cast<u8_t>(v6 ? options.traffic_class : options.tos);
    int ttl = v6 ? options.hop_limit : options.ttl;
    pcb_->ttl = static_cast<u8_t>(ttl > 0 ? ttl : 64);
    stack_raw_->schedule();
}

void TcpEnd::accepted_from_backlog() {
    stack_raw_->enter([&] {
        if (pcb_ != nullptr) stack_raw_->core().tcp_backlog_accepted(pcb_);
    });
}

/* ---- callbacks: under the trap ---- */

err_t TcpEnd::on_connected(void *arg, tcp_pcb *pcb, err_t) {
    auto *end = static_cast<TcpEnd *>(arg);
    end->connected = true;
    end->stack_raw_->core().open_window(pcb);
    if (end->connection.max_segment != 0) pcb->mss = std::min(pcb->mss, end->connection.max_segment);
    end->notify_(end->context_);
    return ERR_OK;
}

err_t TcpEnd::on_receive(void *arg, tcp_pcb *, pbuf *data, err_t) {
    auto *end = static_cast<TcpEnd *>(arg);
    if (data == nullptr)
        end->rx_fin = true;
    else
        end->append(data);
    end->notify_(end->context_);
    return ERR_OK;
}

void TcpEnd::append(pbuf *data) {
    const lwip_core &core = stack_raw_->core();
    bytes_received += data->tot_len;
    while (data != nullptr) {
        pbuf *part = data;
        data = part->next;
        part->next = nullptr;
        if (rx_head_ != nullptr && core.true_size(part) > mostly_overhead * part->len) {
            if (collector_room_ < part->len) {
                pbuf *collector = core.pbuf_alloc(PBUF_RAW, collector_bytes, PBUF_RAM);
                if (collector != nullptr) {
                    collector->len = collector->tot_len = 0;
                    rx_tail_ = rx_tail_->next = collector;
                    collector_room_ = collector_bytes;
                }
            }
            if (collector_room_ >= part->len) {
                std::memcpy(static_cast<uint8_t *>(rx_tail_->payload) + rx_tail_->len, part->payload, part->len);
                rx_tail_->len = rx_tail_->tot_len = static_cast<u16_t>(rx_tail_->len + part->len);
                collector_room_ -= part->len;
                core.pbuf_free(part);
                continue;
            }
        }
        collector_room_ = 0;
        (rx_head_ == nullptr ? rx_head_ : rx_tail_->next) = part;
        rx_tail_ = part;
    }
}

err_t TcpEnd::on_sent(void *arg, tcp_pcb *pcb, u16_t bytes) {
    auto *end = static_cast<TcpEnd *>(arg);
    end->progress++;
    end->bytes_acknowledged += bytes;
    if (end->tx_room() == 0 && pcb->unsent == nullptr)
        end->tx_limit_ = std::min(end->tx_limit_ * 2, end->tx_limit_max_); // all that we may hold was in flight
    end->tx_held_ -= bytes;
    uint32_t left = bytes;
    while (left > 0) {
        Chunk *chunk = end->tx_head_;
        uint32_t step = chunk == nullptr ? 0 : std::min(left, chunk->submitted - chunk->acknowledged);
        if (step == 0) end->stack_raw_->core().fail("more was acknowledged than was sent");
        chunk->acknowledged += step;
        left -= step;
        if (chunk->acknowledged == Chunk::capacity) {
            end->tx_head_ = chunk->next;
            if (end->tx_tail_ == chunk) end->tx_tail_ = chunk->next;
            if (end->tx_next_ == chunk) end->tx_next_ = nullptr;
            end->pool_.give(chunk);
        }
    }
    if (end->tx_held_ == 0) end->release_send();
    end->notify_(end->context_);
    return ERR_OK;
}

void TcpEnd::on_error(void *arg, err_t error) {
    auto *end = static_cast<TcpEnd *>(arg);
    end->pcb_ = nullptr;
    end->gone = true;
    end->error = error;
    end->was_reset = error != ERR_CLSD;
    end->notify_(end->context_);
}

void TcpEnd::on_destroyed(u8_t, void *arg) {
    auto *end = static_cast<TcpEnd *>(arg);
    if (end == nullptr || end->pcb_ == nullptr) return;
    end->pcb_ = nullptr;
    end->gone = true;
    end->notify_(end->context_);
}

/* ---- receive ---- */

size_t TcpEnd::rx_parts(iovec *parts, size_t count) const {
    size_t n = 0;
    uint32_t offset = rx_offset_;
    for (pbuf *p = rx_head_; p != nullptr && n < count; p = p->next, offset = 0)
        parts[n++] = {static_cast<uint8_t *>(p->payload) + offset, p->len - offset};
    return n;
}

void TcpEnd::consume(size_t bytes, bool prompt) {
    stack_raw_->enter([&] {
        const lwip_core &core = stack_raw_->core();
        size_t left = bytes;
        while (rx_head_ != nullptr && (left > 0 || rx_head_->len == rx_offset_)) {
            size_t step = std::min<size_t>(left, rx_head_->len - rx_offset_);
            left -= step;
            rx_offset_ += static_cast<uint32_t>(step);
            if (rx_offset_ < rx_head_->len) break;
            pbuf *done = rx_head_;
            rx_head_ = done->next;
            rx_offset_ = 0;
            done->next = nullptr;
            core.pbuf_free(done);
        }
        if (rx_head_ == nullptr) collector_room_ = 0;
        if (pcb_ != nullptr && bytes > left) core.read(pcb_, bytes - left, prompt && rx_head_ == nullptr);
    });
    stack_raw_->schedule();
}

void TcpEnd::release_receive() {
    if (rx_head_ == nullptr || stack_raw_ == nullptr) return;
    stack_raw_->enter([&] {
        while (rx_head_ != nullptr) {
            pbuf *done = rx_head_;
            rx_head_ = done->next;
            done->next = nullptr;
            stack_raw_->core().pbuf_free(done);
        }
    });
    rx_head_ = rx_tail_ = nullptr;
    rx_offset_ = collector_room_ = 0;
}

/* ---- send ---- */

size_t TcpEnd::tx_space(size_t wanted, iovec *parts, size_t count) {
    wanted = std::min(wanted, tx_room());
    if (wanted == 0 || (tx_tail_ == nullptr && (tx_head_ = tx_tail_ = pool_.take()) == nullptr)) return 0;
    size_t n = 0;
    for (Chunk *chunk = tx_tail_;; chunk = chunk->next) {
        size_t step = std::min<size_t>(wanted, Chunk::capacity - chunk->filled);
        if (step > 0) parts[n++] = {chunk->data + chunk->filled, step};
        wanted -= step;
        if (wanted == 0 || n == count || (chunk->next == nullptr && (chunk->next = pool_.take()) == nullptr)) return n;
    }
}

void TcpEnd::fill(size_t bytes) {
    tx_held_ += bytes;
    tx_pending_ += bytes;
    if (tx_held_ == 0) release_send(); // nothing was read after all: an idle connection holds no chunk
    while (bytes > 0) {
        auto step = static_cast<uint32_t>(std::min<size_t>(bytes, Chunk::capacity - tx_tail_->filled));
        if (step > 0 && tx_next_ == nullptr) tx_next_ = tx_tail_;
        tx_tail_->filled += step;
        bytes -= step;
        if (bytes > 0) tx_tail_ = tx_tail_->next;
    }
}

void TcpEnd::submit() {
    if (pcb_ == nullptr || tx_pending_ == 0) return;
    stack_raw_->enter([&] {
        const lwip_core &core = stack_raw_->core();
        while (tx_next_ != nullptr) {
            Chunk *chunk = tx_next_;
            uint32_t length = std::min<uint32_t>(chunk->filled - chunk->submitted, std::min<uint32_t>(tcp_sndbuf(pcb_), 0xffff));
            if (length > 0) {
                u8_t more = tx_pending_ > length ? TCP_WRITE_FLAG_MORE : 0;
                if (core.tcp_write(pcb_, chunk->data + chunk->submitted, static_cast<u16_t>(length), more) != ERR_OK)
                    break; // until something is acknowledged
                chunk->submitted += length;
                tx_pending_ -= length;
            }
            if (chunk->submitted < chunk->filled) break;
            if (chunk->next == nullptr || chunk->next->filled == 0) {
                tx_next_ = nullptr;
                break;
            }
            tx_next_ = chunk->next;
        }
        core.tcp_output(pcb_);
    });
    stack_raw_->schedule();
}

void TcpEnd::release_send() {
    while (tx_head_ != nullptr) {
        Chunk *chunk = tx_head_;
        tx_head_ = chunk->next;
        pool_.give(chunk);
    }
    tx_tail_ = tx_next_ = nullptr;
    tx_held_ = tx_pending_ = 0;
}

/* ---- ends ---- */

void TcpEnd::shutdown_send() {
    if (pcb_ == nullptr) return;
    stack_raw_->enter([&] { stack_raw_->core().tcp_shutdown(pcb_, 0, 1); });
    stack_raw_->schedule();
}

void TcpEnd::close() {
    if (pcb_ == nullptr) return;
    stack_raw_->enter([&] {
        stack_raw_->core().close_window(pcb_);
        stack_raw_->core().tcp_close(pcb_);
    });
    stack_raw_->schedule();
}

void TcpEnd::abort() {
    release_receive();
    if (pcb_ == nullptr) return;
    stack_raw_->enter([&] {
        tcp_pcb *pcb = pcb_;
        pcb_ = nullptr;
        stack_raw_->core().tcp_err(pcb, nullptr);
        stack_raw_->core().tcp_abort(pcb);
    });
    pcb_ = nullptr;
    gone = true;
    stack_raw_->schedule();
    release_send();
}

void TcpEnd::detach() {
    if (pcb_ == nullptr) return;
    stack_raw_->enter([&] {
        const lwip_core &core = stack_raw_->core();
        tcp_pcb *pcb = pcb_;
        pcb_ = nullptr;
        core.tcp_recv(pcb, nullptr);
        core.tcp_sent(pcb, nullptr);
        core.tcp_err(pcb, nullptr);
        core.tcp_arg(pcb, nullptr);
        core.tcp_ext_arg_set(pcb, LWIP_CORE_EXT_ARG_SERVER, nullptr);
        core.tcp_ext_arg_set(pcb, LWIP_CORE_EXT_ARG_CONNECTION, nullptr);
    });
    pcb_ = nullptr;
    gone = true;
}

void TcpEnd::forget() {
    pcb_ = nullptr;
    rx_head_ = rx_tail_ = nullptr;
    rx_offset_ = collector_room_ = 0;
    gone = true;
    was_reset = true;
    error = ERR_ABRT;
    release_send();
}

} // namespace netcon::server
