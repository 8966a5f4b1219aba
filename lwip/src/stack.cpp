#include "stack.hpp"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace netcon {

/* ---- Outbox ---- */

bool Outbox::append(const pbuf *frame) {
    if (count_ == frames_max || used_ + frame->tot_len > bytes_max) return false;
    if (!bytes_) {
        bytes_.reset(new (std::nothrow) uint8_t[bytes_max]);
        frames_.reset(new (std::nothrow) netcon_frame[frames_max]);
        if (!bytes_ || !frames_) {
            bytes_.reset();
            return false;
        }
    }
    uint8_t *start = bytes_.get() + used_;
    frames_[count_++] = {start, frame->tot_len};
    used_ += frame->tot_len;
    for (const pbuf *part = frame; part != nullptr; part = part->next) {
        std::memcpy(start, part->payload, part->len);
        start += part->len;
        if (part->len == part->tot_len) // the packet ends here, whatever follows
            break;
    }
    return true;
}

void Outbox::take(size_t count) {
    head_ += count;
    if (empty()) clear();
}

/* ---- life ---- */

namespace {

void fill_key(uint64_t (&key)[4], const std::optional<uint64_t> &seed) {
    if (!seed) {
        if (getrandom(key, sizeof key, 0) != static_cast<ssize_t>(sizeof key))
            throw std::runtime_error(std::string("getrandom: ") + std::strerror(errno));
        return;
    }
    uint64_t state = *seed;
    for (uint64_t &word : key) { // SplitMix64 (Steele, Lea, Flood 2014)
        uint64_t z = state += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        word = z ^ (z >> 31);
    }
}

} // namespace

std::shared_ptr<Stack> Stack::create(const netcon_reactor_api *api, StackConfig config) {
    return std::shared_ptr<Stack>(new Stack(api, std::move(config)));
}

Stack::Stack(const netcon_reactor_api *api, StackConfig config) : api_(api), config_(std::move(config)), core_(&library_.table()) {
    end_ = {
        .abi_version = NETCON_ETHERNET_END_ABI,
        .size = sizeof end_,
        .self = this,
        .deliver = [](void *self, const netcon_frame *frames,
                      size_t count) { return static_cast<Stack *>(self)->deliver(frames, count); },
        .resume =
            [](void *self) {
                auto *stack = static_cast<Stack *>(self);
                stack->blocked_ = false;
                stack->schedule();
            },
        .attach =
            [](void *self, const netcon_ethernet_end *peer) {
                auto *stack = static_cast<Stack *>(self);
                stack->peer_ = peer;
                stack->blocked_ = false;
                if (stack->running()) stack->schedule();
            },
    };
    lwip_core_config core_config{};
    core_config.owner = this;
    core_config.transmit = [](void *owner, pbuf *frame) -> err_t {
        return static_cast<Stack *>(owner)->queue_.append(frame) ? ERR_OK : ERR_WOULDBLOCK;
    };
    fill_key(core_config.key, config_.seed);
    core_config.now_us = api_->now_us(api_->reactor);
    core_config.memory_limit = config_.memory_limit;
    core_config.mtu = config_.mtu;
    std::copy(config_.mac.begin(), config_.mac.end(), core_config.mac);
    timer_ = api_->timer_new(
        api_->reactor,
        [](void *self) {
            auto *stack = static_cast<Stack *>(self);
            stack->armed_for_ = NETCON_NEVER;
            stack->call_core([](void *core) { static_cast<lwip_core *>(core)->run_timers(); }, stack->core_);
            stack->schedule();
        },
        this);
    if (timer_ == nullptr) throw std::bad_alloc();
    if (!core_->start(&core_config)) {
        std::string text = core_->failure();
        api_->timer_free(timer_);
        core_->drop();
        throw std::runtime_error("lwIP did not start: " + text);
    }
}

Stack::~Stack() {
    close();
    end_core();
}

void Stack::close() {
    if (state_ == State::running) {
        state_ = State::closed;
        failure_ = "closed";
    }
    peer_ = nullptr;
    end_core();
}

/* The listeners, then the memory. */
void Stack::end_core() {
    if (core_ended_) return;
    core_ended_ = true;
    api_->timer_free(timer_);
    timer_ = nullptr;
    auto listeners = std::move(listeners_);
    listeners_.clear();
    for (auto &[id, fn] : listeners)
        fn(failure_);
    queue_.clear();
    core_->drop();
}

uint64_t Stack::on_failure(FailureFn fn) {
    listeners_.emplace_back(next_listener_, std::move(fn));
    return next_listener_++;
}

void Stack::forget(uint64_t id) {
    std::erase_if(listeners_, [id](const auto &listener) { return listener.first == id; });
}

void Stack::inject_failure(const char *text) {
    enter([&] { core_->fail(text); });
}

/* ---- in and out of lwIP ---- */

bool Stack::call_core(void (*fn)(void *), void *context) {
    if (state_ != State::running) return false;
    bool outermost = !inside_;
    inside_ = true;
    if (outermost) core_->set_time(api_->now_us(api_->reactor));
    bool alive = core_->enter(fn, context);
    if (outermost) inside_ = false;
    if (!alive) {
        state_ = State::failed;
        failure_ = core_->failure();
    }
    return alive;
}

void Stack::schedule() {
    if (settle_scheduled_ || core_ended_) return;
    settle_scheduled_ = true;
    keep_ = shared_from_this();
    api_->defer(
        api_->reactor, [](void *self) { static_cast<Stack *>(self)->settle(); }, this);
}

void Stack::settle() {
    auto self = std::move(keep_);
    settle_scheduled_ = false;
    if (state_ != State::running) {
        end_core();
        return;
    }
    /* Each round may make the next one necessary: output that had been refused finds room after a flush. */
    constexpr int rounds = 16;
    for (int round = 0; round < rounds && running(); round++) {
        flush();
        struct {
            lwip_core *core;
            bool did;
        } poll{core_, false};
        call_core(
            [](void *context) {
                auto *call = static_cast<decltype(poll) *>(context);
                call->did = call->core->poll();
            },
            &poll);
        if (!poll.did && (queue_.empty() || blocked_)) break;
        if (round == rounds - 1 && !blocked_) schedule();
    }
    if (state_ != State::running) {
        end_core();
        return;
    }
    if (refused_input_ && peer_ != nullptr) {
        refused_input_ = false;
        peer_->resume(peer_->self);
    }
    arm();
    if (room_wanted_ && !crowded()) {
        room_wanted_ = false;
        if (room_) room_();
    }
}

void Stack::arm() {
    uint64_t deadline = core_->deadline();
    if (deadline != armed_for_) {
        armed_for_ = deadline;
        api_->timer_set(timer_, deadline);
    }
}

void Stack::flush() {
    if (flushing_ || blocked_) return;
    flushing_ = true;
    while (true) {
        if (sending_.empty()) std::swap(sending_, queue_);
        size_t count = sending_.size();
        if (count == 0) break;
        if (peer_ == nullptr) {
            frames_dropped_ += count;
            sending_.clear();
            continue;
        }
        size_t taken = peer_->deliver(peer_->self, sending_.frames(), count);
        sending_.take(std::min(taken, count));
        if (taken < count) {
            deliveries_refused_++;
            blocked_ = true;
            break;
        }
    }
    flushing_ = false;
}

size_t Stack::deliver(const netcon_frame *frames, size_t count) {
    if (state_ != State::running) {
        frames_dropped_ += count;
        return count;
    }
    if (inside_) { // lwIP is not re-entrant; it is offered again when it has settled
        refused_input_ = true;
        schedule();
        return 0;
    }
    enter([&] {
        for (size_t i = 0; i < count; i++)
            core_->receive(frames[i].data, frames[i].length);
        core_->receive_end();
    });
    return count;
}

/* ---- addresses and the rest ---- */

bool Stack::is_local(const ip_addr_t &ip) const { return running() && core_->is_local(&ip); }

std::optional<ip_addr_t> Stack::source_for(const ip_addr_t &destination) {
    bool found = false;
    ip_addr_t source{};
    bool alive = enter([&] { found = core_->source_for(&destination, &source); });
    return alive && found ? std::optional(source) : std::nullopt;
}

std::vector<lwip_core_address> Stack::addresses() const {
    std::vector<lwip_core_address> all(LWIP_IPV6_NUM_ADDRESSES + 128);
    all.resize(running() ? core_->addresses(all.data(), all.size()) : 0);
    return all;
}

std::vector<ip_addr_t> Stack::groups() const {
    std::vector<ip_addr_t> all(1024);
    all.resize(running() ? core_->groups(all.data(), all.size()) : 0);
    return all;
}

err_t Stack::add_address(const ip_addr_t &ip, uint8_t bits) {
    err_t result = ERR_OK;
    return enter([&] { result = core_->add_address(&ip, bits); }) ? result : err_t{ERR_CLSD};
}

err_t Stack::remove_address(const ip_addr_t &ip) {
    err_t result = ERR_OK;
    return enter([&] { result = core_->remove_address(&ip); }) ? result : err_t{ERR_CLSD};
}

err_t Stack::set_routes(const std::vector<lwip_core_route> &routes) {
    err_t result = ERR_OK;
    return enter([&] { result = core_->set_routes(routes.data(), routes.size()); }) ? result : err_t{ERR_CLSD};
}

void Stack::set_mtu(uint16_t mtu) {
    config_.mtu = mtu;
    enter([&] { core_->set_mtu(mtu); });
}

Stack::Stats Stack::stats() const {
    Stats stats{};
    stats.frames_dropped = frames_dropped_;
    stats.deliveries_refused = deliveries_refused_;
    if (!core_ended_) {
        core_->counters(&stats.core);
        stats.tcp_drops = core_->stats->tcp.drop;
        stats.checksum_errors = core_->stats->tcp.chkerr + core_->stats->udp.chkerr + core_->stats->ip.chkerr;
    }
    return stats;
}

} // namespace netcon
