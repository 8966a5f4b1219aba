/* tap.hpp: the Ethernet end whose other side is a kernel TAP device: this host's own TCP/IP on a network.
 *
 * Theory of operation
 *
 * The device lives as long as the descriptor (no TUNSETPERSIST), so that it vanishes with the service however that ends. Names,
 * addresses and routes are others' business (service/tap_port.py, by rtnetlink); here are only frames.
 *
 * In: a readable device is read up to 64 frames at a time, one system call each (there is no recvmmsg for it), into buffers of
 * our own, and they are offered to the peer together. What the peer does not take stays in the buffers, and the device is not
 * watched until the peer has room: the kernel's transmit queue fills behind it and does what it does on any busy card.
 * Out: each frame is one write. A device that takes no more (EAGAIN) is watched until it does, and the peer resumed then. A frame
 * that the kernel refuses for another reason (the device is down: EIO) is counted and gone.
 *
 * Neither TUN offload nor a virtio header is asked for: frames come whole, with checksums, at most the device's MTU.
 */
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "ethernet.hpp"
#include "fd.hpp"
#include "live.hpp"
#include "netcon/reactor.h"

namespace netcon {

struct TapCounters {
    uint64_t frames_in = 0, frames_out = 0, refused = 0, detached = 0;
};

class Tap {
  public:
    explicit Tap(const netcon_reactor_api &reactor) : reactor_(reactor), api_(ethernet_end_of(this)) {}
    ~Tap();

    /* Make the device `name` (at most 15 bytes) in the network namespace of the calling thread. 0 or -errno. Any thread, once. */
    int open(const char *name);
    /* Frames flow from here on. 0 or -errno. Reactor thread, like all below. */
    int start();

    const netcon_ethernet_end *api() const { return &api_; }

    size_t deliver(const netcon_frame *frames, size_t count);
    void resume();
    void attach(const netcon_ethernet_end *peer);

    TapCounters counters;

  private:
    static constexpr size_t batch = 64;
    static constexpr uint32_t frame_max = 14 + 4 + 10'000; /* header, an 802.1Q tag, the largest MTU (vl2 §1.5) */

    void ready(uint32_t events);
    void read_batch();
    void offer();
    void offer_again();
    void rewatch();

    const netcon_reactor_api &reactor_;
    const netcon_ethernet_end api_;
    const netcon_ethernet_end *peer_ = nullptr;
    Fd fd_;
    netcon_timer *again_ = nullptr;
    bool watched_ = false;
    bool paused_ = false;          /* the peer took fewer than it was offered */
    bool starved_ = false;         /* the peer was refused: the device takes no more */
    size_t first_ = 0, count_ = 0; /* of held_: read, and not yet taken by the peer */
    netcon_frame held_[batch];
    std::unique_ptr<uint8_t[]> buffers_;
    Counted<&LiveObjects::taps> counted_;
};

} // namespace netcon
