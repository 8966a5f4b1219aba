/* engine_end.cpp: frames between a peer and the engine's rings; see engine_end.hpp. */
#include "engine_end.hpp"

#include <algorithm>
#include <cstring>

namespace netcon {

namespace {
constexpr size_t batch = 64;
}

size_t EngineEnd::deliver(const netcon_frame *frames, size_t count) {
    size_t taken = 0;
    uint64_t up = 0;
    for (; taken < count; ++taken) {
        const netcon_frame &frame = frames[taken];
        if (frame.length < ethernet_header_bytes || frame.length > Ring::payload_max) {
            ++rings_.counters.bad_frames;
            continue;
        }
        Record *record = rings_.up.reserve(frame.length);
        if (!record) {
            ++rings_.counters.ring_full;
            starved_ = true;
            break;
        }
        record->kind = Record::frame;
        record->number = number_;
        memcpy(record->data(), frame.data, frame.length);
        ++up;
    }
    if (captures.any()) captures.show(frames, taken, pcapng::Direction::outbound);
    rings_.counters.frames_up += up;
    if (up) rings_.publish_up();
    return taken;
}

void EngineEnd::resume() {
    blocked_ = false;
    rings_.drain_later(); /* not here: the peer is in the middle of its own work */
}

void EngineEnd::attach(const netcon_ethernet_end *peer) {
    peer_ = peer;
    blocked_ = starved_ = false;
    rings_.drain_later();
}

void EngineEnd::up_room() {
    if (!starved_) return;
    starved_ = false;
    peer_->resume(peer_->self);
}

void EngineEnd::drain() {
    while (!blocked_) {
        netcon_frame frames[batch];
        size_t count = 0, taken;
        for (Record *record; count < batch && (record = down.scan()); ++count)
            frames[count] = {record->data(), record->length};
        if (count == 0) return;
        if (!captures.any()) {
            shown_ = 0;
        } else if (shown_ < count) {
            captures.show(frames + shown_, count - shown_, pcapng::Direction::inbound);
            shown_ = count;
        }
        if (!peer_) {
            rings_.counters.frames_detached += count;
            taken = count;
        } else {
            blocked_ = true; /* before the call: the peer may resume us inside it */
            taken = peer_->deliver(peer_->self, frames, count);
            if (taken == count) blocked_ = false;
            rings_.counters.frames_down += taken;
        }
        down.release(taken);
        shown_ -= std::min(shown_, taken);
    }
}

} // namespace netcon
