/* capture.cpp: theory of operation in capture.hpp. */
#include "capture.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <new>

namespace netcon {

namespace {

constexpr uint32_t ethertype_ipv4 = 0x0800, ethertype_arp = 0x0806, ethertype_ipv6 = 0x86DD;
constexpr int extension_headers_max = 8;
constexpr size_t statistics_room = 256;

uint64_t wall_clock_ns() {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

uint32_t word(const uint8_t *at) { return static_cast<uint32_t>(at[0]) << 8 | at[1]; }

bool has_ports(uint8_t protocol) { return protocol == 6 || protocol == 17 || protocol == 132 || protocol == 136; }

/* What of a packet the filter asks about. `ports`: null if there are none. */
struct Packet {
    const uint8_t *source = nullptr, *destination = nullptr;
    uint8_t address_length = 0;
    const uint8_t *ports = nullptr;
};

Packet look_at_ipv4(const uint8_t *ip, size_t length) {
    Packet packet;
    if (length < 20) return packet;
    packet = {ip + 12, ip + 16, 4, nullptr};
    size_t header = (ip[0] & 15u) * 4;
    bool later_fragment = (word(ip + 6) & 0x1FFF) != 0;
    if (header >= 20 && !later_fragment && has_ports(ip[9]) && length >= header + 4) packet.ports = ip + header;
    return packet;
}

Packet look_at_ipv6(const uint8_t *ip, size_t length) {
    Packet packet;
    if (length < 40) return packet;
    packet = {ip + 8, ip + 24, 16, nullptr};
    uint8_t next = ip[6];
    size_t at = 40;
    for (int i = 0; i < extension_headers_max && at + 8 <= length; ++i) {
        if (next == 0 || next == 43 || next == 60) { /* hop by hop, routing, destination options (RFC 8200 §4) */
            next = ip[at];
            at += (ip[at + 1] + 1u) * 8;
        } else if (next == 44) { /* fragment */
            if (word(ip + at + 2) & 0xFFF8) return packet;
            next = ip[at];
            at += 8;
        } else {
            break;
        }
    }
    if (has_ports(next) && at + 4 <= length) packet.ports = ip + at;
    return packet;
}

Packet look_at_arp(const uint8_t *arp, size_t length) {
    if (length < 28 || arp[4] != 6 || arp[5] != 4) return {};
    return {arp + 14, arp + 24, 4, nullptr};
}

} // namespace

bool CaptureFilter::matches(const uint8_t *frame, uint32_t length) const {
    if (length < ethernet_header_bytes) return false;
    uint32_t type = word(frame + 12);
    if (ethertype && type != ethertype) return false;
    if (!host_length && !port) return true;
    const uint8_t *inner = frame + ethernet_header_bytes;
    size_t rest = length - ethernet_header_bytes;
    Packet packet = type == ethertype_ipv4   ? look_at_ipv4(inner, rest)
                    : type == ethertype_ipv6 ? look_at_ipv6(inner, rest)
                    : type == ethertype_arp  ? look_at_arp(inner, rest)
                                             : Packet{};
    if (host_length) {
        if (packet.address_length != host_length) return false;
        if (memcmp(packet.source, host, host_length) != 0 && memcmp(packet.destination, host, host_length) != 0) return false;
    }
    return !port || (packet.ports && (word(packet.ports) == port || word(packet.ports + 2) == port));
}

Capture::Capture(netcon_reactor &reactor, Fd out, const CaptureParameters &parameters)
    : reactor_(reactor), out_(std::move(out)), parameters_(parameters),
      timer_(reactor.timer_new([](void *self) { static_cast<Capture *>(self)->flush(); }, this)), started_ns_(wall_clock_ns()) {
    if (!timer_) throw std::bad_alloc();
    pcapng::Writer writer(buffer_);
    writer.section(parameters_.application);
    writer.interface(parameters_.interface, parameters_.snaplen);
    counters.bytes = buffer_.size();
    reactor_.timer_set(timer_, reactor_.now());
}

Capture::~Capture() {
    end();
    reactor_.timer_free(timer_);
}

void Capture::frame(const netcon_frame &frame, pcapng::Direction direction, uint64_t time_ns) {
    if (finishing_ || counters.ended) return;
    ++counters.seen;
    if (!parameters_.filter.matches(frame.data, frame.length)) return;
    ++counters.matched;
    uint32_t kept = std::min(frame.length, parameters_.snaplen);
    size_t size = pcapng::Writer::packet_size(kept);
    if (parameters_.bytes && counters.bytes + size + statistics_room > parameters_.bytes) {
        ++counters.dropped;
        finish();
        return;
    }
    if (waiting() + size > parameters_.buffer_bytes) {
        ++counters.dropped;
        ++dropped_since_;
        return;
    }
    size_t before = buffer_.size();
    pcapng::Writer(buffer_).packet(frame.data, kept, frame.length, direction, time_ns, dropped_since_);
    counters.bytes += buffer_.size() - before;
    dropped_since_ = 0;
    ++counters.written;
    if (parameters_.frames && counters.written >= parameters_.frames)
        finish();
    else if (!watched_)
        reactor_.timer_set(timer_, reactor_.now());
}

void Capture::finish() {
    if (finishing_ || counters.ended) return;
    finishing_ = true;
    size_t before = buffer_.size();
    pcapng::Writer(buffer_).statistics(
        {started_ns_, wall_clock_ns(), counters.seen, counters.matched, counters.dropped, counters.written});
    counters.bytes += buffer_.size() - before;
    flush();
}

void Capture::flush() {
    while (waiting() > 0) {
        ssize_t done = send(out_.get(), buffer_.data() + head_, waiting(), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (done < 0 && errno == ENOTSOCK) done = write(out_.get(), buffer_.data() + head_, waiting());
        if (done < 0 && errno == EINTR) continue;
        if (done < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            if (head_ > waiting()) { /* so that the buffer stays bounded, and little is moved */
                buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<ptrdiff_t>(head_));
                head_ = 0;
            }
            wait_for_room(true);
            return;
        }
        if (done < 0) { /* the reader has gone */
            end();
            return;
        }
        head_ += static_cast<size_t>(done);
    }
    buffer_.clear();
    head_ = 0;
    wait_for_room(false);
    if (finishing_) end();
}

void Capture::wait_for_room(bool wanted) {
    if (wanted == watched_) return;
    if (!wanted) {
        reactor_.unwatch(out_.get());
    } else if (reactor_.watch(
                   out_.get(), EPOLLOUT, [](void *self, int, uint32_t) { static_cast<Capture *>(self)->flush(); }, this) < 0) {
        end();
        return;
    }
    watched_ = wanted;
}

void Capture::end() {
    if (counters.ended) return;
    counters.ended = true;
    if (watched_) reactor_.unwatch(out_.get());
    watched_ = false;
    shutdown(out_.get(), SHUT_WR); /* the end of the stream, though others may have the descriptor too */
    out_ = Fd();
    buffer_ = {};
    head_ = 0;
}

void Captures::show(const netcon_frame *frames, size_t count, pcapng::Direction direction) {
    uint64_t now = wall_clock_ns();
    for (size_t i = 0; i < count; ++i)
        for (Capture *capture : captures_)
            capture->frame(frames[i], direction, now);
}

} // namespace netcon
