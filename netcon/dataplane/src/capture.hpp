/* capture.hpp: captures of the frames that pass an Ethernet end, as pcapng.
 *
 * Theory of operation
 *
 * The engine end shows each frame that it takes or hands on to its captures, once: what its peer refuses is shown when it is first
 * offered, because whoever is offered a frame may write into it. Inbound is what goes to the network's port (stack, TAP device),
 * outbound what comes from it. Without a capture this costs a branch for each batch.
 *
 * A capture writes to a pipe or stream socket, which never blocks the reactor: blocks are put into a buffer of bounded size, which
 * is written when the batch is over and whenever the reader has made room. A frame for which there is no room in the buffer is
 * dropped, and counted in the next frame that is not (epb_dropcount) and in the statistics at the end. A capture ends when it is
 * told to, at its limits (then with its statistics, and the end of the stream behind them), or when its reader has gone.
 */
#pragma once

#include <string>
#include <vector>

#include "ethernet.hpp"
#include "fd.hpp"
#include "pcapng.hpp"
#include "reactor.hpp"

namespace netcon {

/* Which frames: all of what is set must fit. */
struct CaptureFilter {
    uint32_t ethertype = 0; /* 0: any */
    uint8_t host[16] = {};  /* source or destination, of IPv4, IPv6 or ARP */
    uint8_t host_length = 0;
    uint32_t port = 0; /* source or destination, of TCP, UDP; not of later fragments. 0: any */

    bool matches(const uint8_t *frame, uint32_t length) const;
};

struct CaptureParameters {
    uint32_t snaplen = 0; /* bytes kept of a frame */
    uint64_t frames = 0;  /* end after so many; 0: no limit */
    uint64_t bytes = 0;   /* end before the file is longer; 0: no limit */
    uint64_t buffer_bytes = 0;
    CaptureFilter filter;
    std::string interface;
    std::string application;
};

struct CaptureCounters {
    uint64_t seen = 0, matched = 0, written = 0, dropped = 0;
    uint64_t bytes = 0; /* of the file so far, with what is still in the buffer */
    bool ended = false; /* the descriptor is closed */
};

class Capture {
  public:
    /* `out` does not block. */
    Capture(netcon_reactor &reactor, Fd out, const CaptureParameters &parameters);
    ~Capture();
    Capture(const Capture &) = delete;

    void frame(const netcon_frame &frame, pcapng::Direction direction, uint64_t time_ns);
    /* No more frames: the statistics, then the end of the stream, as the reader takes it. */
    void finish();

    CaptureCounters counters;

  private:
    void flush();
    void wait_for_room(bool wanted);
    void end();
    size_t waiting() const { return buffer_.size() - head_; }

    netcon_reactor &reactor_;
    Fd out_;
    const CaptureParameters parameters_;
    netcon_timer *timer_;
    std::vector<uint8_t> buffer_;
    size_t head_ = 0; /* of what is not written yet */
    uint64_t started_ns_;
    uint64_t dropped_since_ = 0;
    bool finishing_ = false;
    bool watched_ = false;
    Counted<&LiveObjects::captures> counted_;
};

/* Those of one end. */
class Captures {
  public:
    bool any() const { return !captures_.empty(); }
    void add(Capture *capture) { captures_.push_back(capture); }
    void remove(Capture *capture) { std::erase(captures_, capture); }
    void show(const netcon_frame *frames, size_t count, pcapng::Direction direction);

  private:
    std::vector<Capture *> captures_;
};

} // namespace netcon
