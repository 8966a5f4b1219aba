/* engine_rings.hpp: where the reactor thread and the engine's (Python's) threads meet.
 *
 *      UdpSockets, EngineEnds ── up ──► receive()            one ring for all, so that order of arrival is kept
 *      UdpSockets  ◄── down ── send_datagrams()              a ring for the wire
 *      EngineEnd   ◄── down ── send_frames()                 a ring for each end: one that is stuck stops no other
 *
 * Each side sleeps on one doorbell. The engine's also rings when a down ring that refused has room, the reactor's also when
 * the up ring has. Nothing is dropped here: whoever finds a ring full stops taking from what is behind it.
 */
#pragma once

#include <atomic>
#include <unordered_map>
#include <vector>

#include "reactor.hpp"
#include "ring.hpp"

namespace netcon {

/* What stands behind the rings on the reactor's side. */
class RingPort {
  public:
    explicit RingPort(size_t slots) : down(slots) {}
    virtual ~RingPort() = default;
    /* Take what is in `down`, until it is empty or the port can take no more now. */
    virtual void drain() = 0;
    /* The up ring, which may have refused this port, has room. */
    virtual void up_room() = 0;

    Ring down; /* consumed on the reactor thread, produced under the GIL */
};

struct Counters {
    std::atomic<uint64_t> datagrams_in{0}, datagrams_out{0}, frames_up{0}, frames_down{0}, ring_full{0};
    std::atomic<uint64_t> send_errors{0}, receive_errors{0}, oversize{0}, bad_frames{0}, frames_detached{0}, frames_without_port{0};
    std::atomic<uint64_t> send_stuck{0};
};

class EngineEnd;

class EngineRings {
  public:
    EngineRings(netcon_reactor &reactor, size_t slots);
    ~EngineRings();

    /* ---- reactor thread ---- */
    void add(RingPort *port) { ports_.push_back(port); }
    void remove(RingPort *port) { std::erase(ports_, port); }
    /* Drain `port`, and tell the engine if that made room it waits for. */
    void drain(RingPort *port);
    /* Drain all ports at the end of this batch. */
    void drain_later();
    void publish_up() {
        up.publish();
        engine_bell.ring();
    }

    /* ---- under the GIL ---- */
    void published_down() { reactor_bell_.ring(); }
    /* After releasing from `up`: wake ports that it refused; when it is empty, get ready to sleep on the doorbell. */
    void received();
    /* Ends by port number; null: there is none. */
    EngineEnd *end_of(int number) const {
        auto found = ends_.find(number);
        return found == ends_.end() ? nullptr : found->second;
    }
    void add_end(int number, EngineEnd *end) { ends_[number] = end; }
    void remove_end(int number) { ends_.erase(number); }
    void frame_without_port() { ++counters.frames_without_port; }

    netcon_reactor &reactor;
    const size_t slots;
    Ring up;
    Doorbell engine_bell;
    Counters counters;

  private:
    void rung();

    std::unordered_map<int, EngineEnd *> ends_;
    Doorbell reactor_bell_;
    std::vector<RingPort *> ports_;
    bool drain_deferred_ = false;
};

} // namespace netcon
