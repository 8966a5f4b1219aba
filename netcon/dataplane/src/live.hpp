/* live.hpp: how many native objects of each kind are alive, so that a test can end by asserting that none is. */
#pragma once

#include <atomic>

namespace netcon {

struct LiveObjects {
    std::atomic<long> reactors{0}, timers{0}, watches{0}, sockets{0}, engine_ends{0}, impairments{0}, memory_ends{0}, taps{0},
        captures{0};
};

inline LiveObjects live;

/* A member that counts its owner while it lives. */
template <std::atomic<long> LiveObjects::*kind> struct Counted {
    Counted() { ++(live.*kind); }
    ~Counted() { --(live.*kind); }
    Counted(const Counted &) = delete;
    Counted &operator=(const Counted &) = delete;
};

} // namespace netcon
