/* pcapng.hpp: the blocks of a pcapng file (draft-ietf-opsawg-pcapng), in host order, for one Ethernet interface.
 *
 * A file is: section header, interface description, then an enhanced packet block for each frame, then interface statistics.
 * Times are nanoseconds since 1970 (if_tsresol 9).
 */
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace netcon::pcapng {

enum class Direction : uint32_t { inbound = 1, outbound = 2 }; /* epb_flags, bits 0 and 1 */

struct Statistics {
    uint64_t started_ns, ended_ns;
    uint64_t seen, matched, dropped, written; /* isb_ifrecv, isb_filteraccept, isb_osdrop, isb_usrdeliv */
};

/* Appends blocks to a buffer. */
class Writer {
  public:
    explicit Writer(std::vector<uint8_t> &into) : into_(into) {}

    void section(std::string_view application) {
        begin(0x0A0D0D0A);
        put(uint32_t{0x1A2B3C4D});
        put(uint16_t{1});
        put(uint16_t{0});
        put(UINT64_MAX); /* the length of the section is not known */
        option(4, application.data(), application.size());
        end_options();
        end();
    }

    void interface(std::string_view name, uint32_t snaplen) {
        begin(1);
        put(uint16_t{1}); /* LINKTYPE_ETHERNET */
        put(uint16_t{0});
        put(snaplen);
        option(2, name.data(), name.size());
        option(9, "\x09", 1);
        end_options();
        end();
    }

    /* `length` of the frame, of which `kept` bytes are written; `dropped` frames were lost since the last one. */
    void packet(const uint8_t *data, uint32_t kept, uint32_t length, Direction direction, uint64_t time_ns, uint64_t dropped) {
        begin(6);
        put(uint32_t{0}); /* the interface */
        time(time_ns);
        put(kept);
        put(length);
        bytes(data, kept);
        uint32_t flags = static_cast<uint32_t>(direction);
        option(2, &flags, sizeof flags);
        if (dropped) option(4, &dropped, sizeof dropped);
        end_options();
        end();
    }
    /* At most this for a frame of which `kept` bytes are written. */
    static size_t packet_size(uint32_t kept) { return 32 + (kept + 3u) / 4 * 4 + 8 + 12 + 4; }

    void statistics(const Statistics &counted) {
        begin(5);
        put(uint32_t{0});
        time(counted.ended_ns);
        uint32_t halves[2] = {static_cast<uint32_t>(counted.started_ns >> 32), static_cast<uint32_t>(counted.started_ns)};
        option(2, halves, sizeof halves);
        halves[0] = static_cast<uint32_t>(counted.ended_ns >> 32);
        halves[1] = static_cast<uint32_t>(counted.ended_ns);
        option(3, halves, sizeof halves);
        option(4, &counted.seen, sizeof counted.seen);
        option(6, &counted.matched, sizeof counted.matched);
        option(7, &counted.dropped, sizeof counted.dropped);
        option(8, &counted.written, sizeof counted.written);
        end_options();
        end();
    }

  private:
    template <class Integer> void put(Integer value) { raw(&value, sizeof value); }
    void raw(const void *data, size_t size) {
        const auto *first = static_cast<const uint8_t *>(data);
        into_.insert(into_.end(), first, first + size);
    }
    void bytes(const void *data, size_t size) {
        raw(data, size);
        into_.resize(into_.size() + (-size & 3));
    }
    void time(uint64_t time_ns) {
        put(static_cast<uint32_t>(time_ns >> 32));
        put(static_cast<uint32_t>(time_ns));
    }
    void option(uint16_t code, const void *data, size_t size) {
        put(code);
        put(static_cast<uint16_t>(size));
        bytes(data, size);
    }
    void end_options() { put(uint32_t{0}); }
    void begin(uint32_t type) {
        start_ = into_.size();
        put(type);
        put(uint32_t{0}); /* the length, which end() fills in */
    }
    void end() {
        uint32_t length = static_cast<uint32_t>(into_.size() - start_ + 4);
        memcpy(&into_[start_ + 4], &length, sizeof length);
        put(length);
    }

    std::vector<uint8_t> &into_;
    size_t start_ = 0;
};

} // namespace netcon::pcapng
