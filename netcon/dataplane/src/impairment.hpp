/* impairment.hpp: a bad link between two Ethernet ends: delay, jitter, loss, duplication, reordering, a bottleneck.
 *
 * Theory of operation
 *
 * Each direction is a queue ordered by the time at which a frame comes out, a timer for the first of them, and a random
 * stream of its own. For each frame the same draws are made in the same order whatever the parameters are, so that the same
 * seed, frames and times give the same trace, bit for bit, and changing one parameter changes nothing else.
 *
 *   rate       frames leave the bottleneck one after another; one that finds more than `queue_bytes` waiting is lost
 *   loss       chance that a frame is lost behind the bottleneck
 *   delay      added to each frame; jitter adds 0..jitter_us more, but alone it never reorders
 *   reorder    chance that a frame is held back by 1..max(delay_us, 2000) µs more, so that later ones overtake it
 *   duplicate  chance that a frame comes out twice
 *
 * A peer that takes fewer frames stops that direction. Frames then wait, up to `queue_bytes`; beyond, this end takes fewer
 * itself: push-back passes through the link. Without a rate nothing else bounds what is on its way: its users' windows do.
 */
#pragma once

#include <vector>

#include "ethernet.hpp"
#include "reactor.hpp"

namespace netcon {

struct ImpairmentParameters {
    uint64_t delay_us = 0, jitter_us = 0;
    double loss = 0, duplicate = 0, reorder = 0;
    uint64_t rate_bps = 0; /* 0: no bottleneck */
    uint64_t queue_bytes = 0;
};

struct ImpairmentCounters {
    uint64_t forwarded = 0, lost = 0, overflowed = 0, duplicated = 0, reordered = 0, detached = 0;
};

/* PCG32 (M. E. O'Neill, pcg-random.org): 64 bits of state, a stream for each odd increment. */
class Random {
  public:
    Random(uint64_t seed, uint64_t stream) : increment_(stream << 1 | 1) {
        next();
        state_ += seed;
        next();
    }
    uint32_t next() {
        uint64_t old = state_;
        state_ = old * 6364136223846793005u + increment_;
        uint32_t value = static_cast<uint32_t>((old >> 18 ^ old) >> 27);
        unsigned rotation = old >> 59;
        return value >> rotation | value << (-rotation & 31);
    }
    bool chance(double probability) { return next() < static_cast<uint64_t>(probability * 4294967296.0); }
    /* 0..limit */
    uint64_t up_to(uint64_t limit) { return next() * (limit + 1) >> 32; }

  private:
    uint64_t state_ = 0;
    const uint64_t increment_;
};

class Impairment {
  public:
    Impairment(netcon_reactor &reactor, uint64_t seed, const ImpairmentParameters &parameters);

    const netcon_ethernet_end *left() const { return left_.api(); }
    const netcon_ethernet_end *right() const { return right_.api(); }

    /* Reactor thread. Frames under way keep their times. */
    ImpairmentParameters parameters;
    ImpairmentCounters counters;

  private:
    /* One end, and the queue of what comes out of it. Frames delivered to the other end go into this queue. */
    class End {
      public:
        End(Impairment &link, netcon_reactor &reactor, uint64_t seed, uint64_t stream, End &other);
        ~End() { reactor_.timer_free(timer_); }

        const netcon_ethernet_end *api() const { return &api_; }
        size_t deliver(const netcon_frame *frames, size_t count);
        void resume();
        void attach(const netcon_ethernet_end *peer);

      private:
        struct Held {
            uint64_t due;
            uint64_t order;
            std::vector<uint8_t> data;
        };
        static bool later(const Held &a, const Held &b) { return a.due != b.due ? a.due > b.due : a.order > b.order; }

        bool full(size_t length) const { return blocked_ && held_bytes_ + length > link_.parameters.queue_bytes; }
        void enter(const netcon_frame &frame);
        void hold(uint64_t due, const netcon_frame &frame);
        void set_timer();
        void come_out();

        Impairment &link_;
        netcon_reactor &reactor_;
        End &other_;
        Random random_;
        const netcon_ethernet_end api_;
        netcon_timer *timer_;
        const netcon_ethernet_end *peer_ = nullptr;
        std::vector<Held> queue_; /* a heap, first due on top */
        std::vector<Held> due_;   /* those that have come to their time, oldest first */
        uint64_t order_ = 0;
        uint64_t held_bytes_ = 0;
        uint64_t bottleneck_free_us_ = 0; /* when the last frame has left the bottleneck */
        uint64_t bottleneck_part_ = 0;    /* and the rest of a microsecond, in bits × 10⁶ */
        uint64_t last_due_ = 0;
        bool blocked_ = false; /* the peer took fewer than it was offered */
        bool starved_ = false; /* the other end's peer was refused */
    };

    End left_;
    End right_;
    Counted<&LiveObjects::impairments> counted_;
};

} // namespace netcon
