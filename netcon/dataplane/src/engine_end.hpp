/* engine_end.hpp: the Ethernet end whose other side is the rings to the engine.
 *
 * Frames that are delivered here go up, as many as the ring takes; the peer is resumed when it has room again. Frames from
 * the engine lie in this end's own down ring and are offered to the peer from there; what it does not take stays.
 */
#pragma once

#include "capture.hpp"
#include "engine_rings.hpp"
#include "ethernet.hpp"

namespace netcon {

class EngineEnd final : public RingPort {
  public:
    EngineEnd(EngineRings &rings, int number)
        : RingPort(rings.slots), rings_(rings), number_(number), api_(ethernet_end_of(this)) {}

    const netcon_ethernet_end *api() const { return &api_; }

    size_t deliver(const netcon_frame *frames, size_t count);
    void resume();
    void attach(const netcon_ethernet_end *peer);

    void drain() override;
    void up_room() override;

    Captures captures;

  private:
    EngineRings &rings_;
    const int number_;
    const netcon_ethernet_end api_;
    const netcon_ethernet_end *peer_ = nullptr;
    size_t shown_ = 0;     /* frames at the head of the down ring that captures have seen already */
    bool blocked_ = false; /* the peer took fewer than it was offered */
    bool starved_ = false; /* the peer was refused */
    Counted<&LiveObjects::engine_ends> counted_;
};

} // namespace netcon
