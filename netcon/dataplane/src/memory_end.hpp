/* memory_end.hpp: an Ethernet end whose frames are given and taken by a test, with as much room as the test wants. */
#pragma once

#include <cstdint>
#include <deque>
#include <string>

#include "ethernet.hpp"
#include "live.hpp"

namespace netcon {

class MemoryEnd {
  public:
    MemoryEnd() : api_(ethernet_end_of(this)) {}

    const netcon_ethernet_end *api() const { return &api_; }

    size_t deliver(const netcon_frame *frames, size_t count) {
        size_t taken = 0;
        for (; taken < count && held.size() < room_; ++taken)
            held.emplace_back(reinterpret_cast<const char *>(frames[taken].data), frames[taken].length);
        if (taken < count) starved_ = true;
        return taken;
    }
    void resume() { ++resumed; }
    void attach(const netcon_ethernet_end *peer) {
        peer_ = peer;
        starved_ = false;
    }

    /* The rest is the test's, called on the reactor thread. */
    size_t give(const netcon_frame *frames, size_t count) { return peer_ ? peer_->deliver(peer_->self, frames, count) : count; }
    void set_room(size_t room) {
        room_ = room;
        report_room();
    }
    void take(std::deque<std::string> &into) {
        into.swap(held);
        report_room();
    }

    std::deque<std::string> held;
    uint64_t resumed = 0; /* how often the peer said that it has room again */

  private:
    void report_room() {
        if (!starved_ || held.size() >= room_) return;
        starved_ = false;
        peer_->resume(peer_->self);
    }

    const netcon_ethernet_end api_;
    const netcon_ethernet_end *peer_ = nullptr;
    size_t room_ = SIZE_MAX;
    bool starved_ = false;
    Counted<&LiveObjects::memory_ends> counted_;
};

} // namespace netcon
