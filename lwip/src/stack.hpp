/* stack.hpp: one TCP/IP stack: a private copy of lwIP, its end of an Ethernet link, its timer on the reactor.
 *
 * Theory of operation. Frames arrive in batches (netcon_ethernet_end::deliver) and go into lwIP at once. What lwIP sends is copied
 * into an outbox; at the end of the reactor's batch `settle` hands the outbox to the peer, polls packets to ourselves, and arms the
 * timer for the next thing that lwIP has to do (never, if there is none). A peer that takes fewer frames blocks the outbox until it
 * resumes; a full outbox refuses lwIP's output (ERR_WOULDBLOCK), which then stays in the PCBs and is tried again when there is
 * room.
 *
 * How to use it (the socket server):
 *
 *   - On the reactor's thread only. Hold a std::shared_ptr<Stack>; read lwIP's structs through `core()` and its headers.
 *   - Every call of a function of `core()` that is lwIP's happens inside `enter`:
 *
 *         bool alive = stack->enter([&] { error = stack->core().tcp_write(pcb, data, length, 0); });
 *
 *     An lwIP assertion jumps out of it: `enter` returns false, the stack has failed, and what the lambda had not finished is not
 * done. The jump runs no destructor. So neither the lambda, nor any frame between it and lwIP, may hold something that owns (a
 * string, a vector being filled, a lock, a unique_ptr); capture references to what lives outside. `enter` nests; it also may be
 * called from lwIP's callbacks.
 *   - lwIP's callbacks (recv, sent, err, accept, poll) run inside `enter`, under the same rule: they must not throw and must only
 * enqueue: set fields, append to a preallocated or intrusive list, keep the pbuf pointer. Work happens after `enter` returned.
 *   - No flush is needed: `enter` schedules `settle`. tcp_output after tcp_write is yours.
 *   - Failure: `enter` (and `running`) are false at once; at the end of the batch every `on_failure` function is called, and when
 * they have returned the stack's memory is dropped: all PCB and pbuf pointers of it are dead, and must not be freed or touched. The
 * same happens when the stack is closed.
 */
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "core_library.hpp"
#include "netcon/ethernet_port.h"
#include "netcon/reactor.h"

namespace netcon {

struct StackConfig {
    std::array<uint8_t, 6> mac{};
    uint16_t mtu = 2800;
    std::string name;
    /* Randomness: from the kernel, or all of it from this (simulations). */
    std::optional<uint64_t> seed;
    size_t memory_limit = size_t{512} << 20;
};

/* Frames that wait for the peer: contiguous bytes, oldest first. Memory is reserved once and touched as needed. */
class Outbox {
  public:
    static constexpr size_t bytes_max = size_t{1} << 20;
    static constexpr size_t frames_max = 1024;

    bool append(const pbuf *frame);
    bool empty() const { return head_ == count_; }
    const netcon_frame *frames() const { return frames_.get() + head_; }
    size_t size() const { return count_ - head_; }
    bool half_full() const { return count_ > frames_max / 2 || used_ > bytes_max / 2; }
    void take(size_t count);
    void clear() { head_ = count_ = used_ = 0; }

  private:
    std::unique_ptr<uint8_t[]> bytes_;
    std::unique_ptr<netcon_frame[]> frames_;
    size_t used_ = 0, head_ = 0, count_ = 0;
};

class Stack : public std::enable_shared_from_this<Stack> {
  public:
    using FailureFn = std::function<void(const std::string &text)>;

    /* Loads the core and starts it. CoreLibraryError, or std::runtime_error. On the reactor's thread. */
    static std::shared_ptr<Stack> create(const netcon_reactor_api *api, StackConfig config);
    ~Stack();
    Stack(const Stack &) = delete;
    Stack &operator=(const Stack &) = delete;

    const lwip_core &core() const { return *core_; }
    bool running() const { return state_ == State::running; }
    /* Why it is not running: the assertion's text, or "closed"; empty while it runs. */
    const std::string &failure() const { return failure_; }
    const std::string &name() const { return config_.name; }
    uint16_t mtu() const { return config_.mtu; }
    const std::array<uint8_t, 6> &mac() const { return config_.mac; }
    /* The groups that are to be received, as joined by sockets and as lwIP itself needs. */
    std::vector<ip_addr_t> groups() const;
    const netcon_reactor_api *reactor() const { return api_; }
    const netcon_ethernet_end *end() const { return &end_; }

    /* Run `fn()` inside lwIP's trap; see above. False: the stack has failed or is closed. */
    template <class Fn> bool enter(Fn &&fn) {
        using Call = std::remove_reference_t<Fn>;
        static_assert(std::is_trivially_destructible_v<Call>, "an assertion jumps over it: capture references");
        bool alive =
            call_core([](void *context) { (*static_cast<Call *>(context))(); }, const_cast<std::remove_const_t<Call> *>(&fn));
        schedule();
        return alive;
    }

    /* Settle at the end of the batch. `enter` does it. */
    void schedule();

    /* Called once if the stack fails or is closed, before its memory goes. Returns an id for `forget`. */
    uint64_t on_failure(FailureFn fn);
    void forget(uint64_t id);

    /* The outbox is filling faster than the peer takes from it: whoever can wait, waits, and is called when there is room. */
    bool crowded() const { return queue_.half_full(); }
    void want_room() {
        room_wanted_ = true;
        schedule();
    }
    void on_room(std::function<void()> fn) { room_ = std::move(fn); }

    /* Is this address one of ours? (IPv4 as IPADDR_TYPE_V4, not mapped.) */
    bool is_local(const ip_addr_t &ip) const;
    /* The address of ours from which a packet to `destination` would go; nullopt: there is no route. */
    std::optional<ip_addr_t> source_for(const ip_addr_t &destination);
    std::vector<lwip_core_address> addresses() const;
    /* ERR_OK, ERR_USE, ERR_MEM, ERR_VAL (lwip_core.h), ERR_CLSD: not running. Removing an address aborts its connections. */
    err_t add_address(const ip_addr_t &ip, uint8_t bits);
    err_t remove_address(const ip_addr_t &ip);
    err_t set_routes(const std::vector<lwip_core_route> &routes);
    void set_mtu(uint16_t mtu);

    struct Stats {
        lwip_core_counters core;
        uint64_t frames_dropped;     /* no peer, or the stack is not running */
        uint64_t deliveries_refused; /* the peer took fewer than offered */
        uint64_t tcp_drops, checksum_errors;
    };
    Stats stats() const;

    void inject_failure(const char *text);
    /* Ends the stack: its sockets are told, its memory goes. Idempotent. */
    void close();

  private:
    enum class State { running, failed, closed };

    Stack(const netcon_reactor_api *api, StackConfig config);
    bool call_core(void (*fn)(void *), void *context);
    void settle();
    void flush();
    void arm();
    void end_core();
    size_t deliver(const netcon_frame *frames, size_t count);

    const netcon_reactor_api *api_;
    StackConfig config_;
    CoreLibrary library_;
    lwip_core *core_;
    State state_ = State::running;
    std::string failure_;
    bool inside_ = false;
    bool core_ended_ = false;

    netcon_ethernet_end end_;
    const netcon_ethernet_end *peer_ = nullptr;
    Outbox queue_, sending_; // lwIP appends to one, the peer takes from the other
    std::function<void()> room_;
    bool room_wanted_ = false;
    bool flushing_ = false, blocked_ = false, refused_input_ = false;

    netcon_timer *timer_ = nullptr;
    uint64_t armed_for_ = NETCON_NEVER;
    bool settle_scheduled_ = false;
    std::shared_ptr<Stack> keep_; // while settle is scheduled

    uint64_t next_listener_ = 1;
    std::vector<std::pair<uint64_t, FailureFn>> listeners_;
    uint64_t frames_dropped_ = 0, deliveries_refused_ = 0;
};

} // namespace netcon
