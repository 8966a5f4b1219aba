/* impairment.cpp: a bad link; theory of operation in impairment.hpp. */
#include "impairment.hpp"

#include <algorithm>
#include <new>

namespace netcon {

namespace {
constexpr uint64_t hold_back_min_us = 2'000;
constexpr size_t batch = 64;
} // namespace

Impairment::Impairment(netcon_reactor &reactor, uint64_t seed, const ImpairmentParameters &parameters)
    : parameters(parameters), left_(*this, reactor, seed, 1, right_), right_(*this, reactor, seed, 2, left_) {}

Impairment::End::End(Impairment &link, netcon_reactor &reactor, uint64_t seed, uint64_t stream, End &other)
    : link_(link), reactor_(reactor), other_(other), random_(seed, stream), api_(ethernet_end_of(this)),
      timer_(reactor.timer_new([](void *self) { static_cast<End *>(self)->come_out(); }, this)) {
    if (!timer_) throw std::bad_alloc();
}

/* deliver: frames enter here and come out of the other end. */
size_t Impairment::End::deliver(const netcon_frame *frames, size_t count) {
    for (size_t taken = 0; taken < count; ++taken) {
        if (other_.full(frames[taken].length)) {
            other_.starved_ = true;
            return taken;
        }
        other_.enter(frames[taken]);
    }
    return count;
}

void Impairment::End::enter(const netcon_frame &frame) {
    const ImpairmentParameters &link = link_.parameters;
    ImpairmentCounters &counters = link_.counters;
    uint64_t now = reactor_.now();
    bool lost = random_.chance(link.loss);
    bool twice = random_.chance(link.duplicate);
    bool held_back = random_.chance(link.reorder);
    uint64_t jitter = random_.up_to(link.jitter_us);
    uint64_t hold_back = 1 + random_.up_to(std::max(link.delay_us, hold_back_min_us) - 1);

    uint64_t leaves = now;
    if (link.rate_bps) {
        if (bottleneck_free_us_ < now) {
            bottleneck_free_us_ = now;
            bottleneck_part_ = 0;
        }
        uint64_t waiting_bytes =
            static_cast<uint64_t>(static_cast<double>(bottleneck_free_us_ - now) * static_cast<double>(link.rate_bps) / 8e6);
        if (waiting_bytes + frame.length > link.queue_bytes) {
            ++counters.overflowed;
            return;
        }
        bottleneck_part_ += uint64_t{frame.length} * 8 * 1'000'000;
        bottleneck_free_us_ += bottleneck_part_ / link.rate_bps;
        bottleneck_part_ %= link.rate_bps;
        leaves = bottleneck_free_us_;
    }
    if (lost) {
        ++counters.lost;
        return;
    }
    uint64_t due = leaves + link.delay_us + jitter;
    if (held_back) {
        ++counters.reordered;
        due += hold_back;
    } else {
        due = last_due_ = std::max(due, last_due_);
    }
    hold(due, frame);
    if (twice) {
        ++counters.duplicated;
        hold(due, frame);
    }
    set_timer();
}

void Impairment::End::hold(uint64_t due, const netcon_frame &frame) {
    queue_.push_back({due, order_++, {frame.data, frame.data + frame.length}});
    std::push_heap(queue_.begin(), queue_.end(), later);
    held_bytes_ += frame.length;
}

void Impairment::End::set_timer() {
    uint64_t next = !due_.empty() ? reactor_.now() : !queue_.empty() ? queue_.front().due : NETCON_NEVER;
    reactor_.timer_set(timer_, blocked_ ? NETCON_NEVER : next);
}

void Impairment::End::come_out() {
    while (!queue_.empty() && queue_.front().due <= reactor_.now() && due_.size() < batch) {
        std::pop_heap(queue_.begin(), queue_.end(), later);
        due_.push_back(std::move(queue_.back()));
        queue_.pop_back();
    }
    size_t count = due_.size(), taken = count;
    if (!peer_) {
        link_.counters.detached += count;
    } else {
        netcon_frame frames[batch];
        for (size_t i = 0; i < count; ++i)
            frames[i] = {due_[i].data.data(), static_cast<uint32_t>(due_[i].data.size())};
        blocked_ = true; /* before the call: the peer may resume us inside it */
        taken = peer_->deliver(peer_->self, frames, count);
        if (taken == count) blocked_ = false;
        link_.counters.forwarded += taken;
    }
    for (size_t i = 0; i < taken; ++i)
        held_bytes_ -= due_[i].data.size();
    due_.erase(due_.begin(), due_.begin() + static_cast<ptrdiff_t>(taken));
    set_timer();
    if (starved_ && !blocked_) {
        starved_ = false;
        if (other_.peer_) other_.peer_->resume(other_.peer_->self);
    }
}

void Impairment::End::resume() {
    blocked_ = false;
    set_timer();
}

void Impairment::End::attach(const netcon_ethernet_end *peer) {
    peer_ = peer;
    other_.starved_ = false; /* it was the former peer that waited for room behind the other end */
    resume();
}

} // namespace netcon
