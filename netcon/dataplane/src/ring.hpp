/* ring.hpp: a bounded ring of records between one producer thread and one consumer thread.
 *
 * Theory of operation
 *
 * Records lie one after another in a power of two of bytes: a header, then the payload, each rounded up to 32 bytes, never
 * wrapped (a `skip` record fills the end). `written_` and `read_` are byte counts that only grow; each is stored by one side.
 * Pushing allocates nothing and makes no system call.
 *
 * The producer reserves records and publishes them together, or takes them back. The consumer scans without freeing, so that
 * a batch can be offered from where it lies, then releases as many as were taken and scans the rest again.
 *
 * Push-back: a producer that is refused leaves a mark and looks once more; a consumer that has released looks for the mark
 * when half of the ring is free (`room_due`), and then tells the producer. Both put a full fence between writing their own
 * word and reading the other's, so one of the two always sees.
 *
 * A doorbell wakes a consumer that sleeps on a descriptor: it is armed only when the consumer found nothing, so a busy
 * consumer costs its producer no system call. After arming, the consumer looks once more.
 */
#pragma once

#include <sys/eventfd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <system_error>

#include "fd.hpp"

namespace netcon {

/* Header of a record. A datagram has a socket number, an address and a ttl; a frame has a port number only. */
struct Record {
    enum Kind : uint8_t { skip, datagram, frame };
    uint32_t length; /* of the payload; of a skip: everything after the header */
    int32_t number;
    uint16_t port;
    Kind kind;
    uint8_t ttl;
    uint8_t ip_length;
    uint8_t reserved[3];
    uint8_t ip[16];

    uint8_t *data() { return reinterpret_cast<uint8_t *>(this + 1); }
};
static_assert(sizeof(Record) == 32);

class Ring {
  public:
    /* The longest payload: a whole datagram (vl1 §3.4: 10 024) and a whole frame (14 + 10 000) fit. */
    static constexpr uint32_t payload_max = 10'100;

    /* At most `slots` records, and half a KiB a slot. */
    explicit Ring(size_t slots)
        : slots_(slots), bytes_(std::bit_ceil(std::max<size_t>(slots * 512, 64 * 1024))),
          memory_(std::make_unique_for_overwrite<Aligned[]>(bytes_ / sizeof(Aligned))) {}

    /* ---- producer ---- */

    /* A record for `length` bytes, to be filled and published; null: full, and the consumer will report room. */
    Record *reserve(uint32_t length) {
        if (Record *record = try_reserve(length)) return record;
        wanted_.store(true, std::memory_order_relaxed);
        std::atomic_thread_fence(std::memory_order_seq_cst);
        return try_reserve(length);
    }
    void publish() {
        pushed_.store(reserved_count_, std::memory_order_relaxed);
        written_.store(reserved_, std::memory_order_release);
    }
    /* Forget what was reserved since the last publish. */
    void take_back() {
        reserved_ = written_.load(std::memory_order_relaxed);
        reserved_count_ = pushed_.load(std::memory_order_relaxed);
    }
    /* How many records of any length surely fit; 0 leaves the mark, as a refused reserve does. */
    size_t room() {
        if (size_t records = free_records()) return records;
        wanted_.store(true, std::memory_order_relaxed);
        std::atomic_thread_fence(std::memory_order_seq_cst);
        return free_records();
    }

    /* ---- consumer ---- */

    bool empty() const { return read_.load(std::memory_order_relaxed) == written_.load(std::memory_order_acquire); }
    /* The next record not yet scanned, or null. */
    Record *scan() {
        Record *record = at_or_null(scanned_);
        if (record) scanned_ += footprint(record->length);
        return record;
    }
    /* Scan again from the oldest record that was not released. */
    void rewind() { scanned_ = read_.load(std::memory_order_relaxed); }
    /* Free the oldest `count` records; scanning goes on from there. */
    void release(size_t count) {
        uint64_t position = read_.load(std::memory_order_relaxed);
        for (size_t i = 0; i < count; ++i) {
            Record *record = at_or_null(position);
            position += footprint(record->length);
        }
        scanned_ = position;
        popped_.store(popped_.load(std::memory_order_relaxed) + count, std::memory_order_relaxed);
        read_.store(position, std::memory_order_release);
    }
    /* Whether the producer, who was refused, must now be told that there is room. True once. */
    bool room_due() {
        std::atomic_thread_fence(std::memory_order_seq_cst);
        if (!wanted_.load(std::memory_order_relaxed)) return false;
        uint64_t used = written_.load(std::memory_order_acquire) - read_.load(std::memory_order_relaxed);
        uint64_t held = pushed_.load(std::memory_order_relaxed) - popped_.load(std::memory_order_relaxed);
        if (used > bytes_ / 2 || held > slots_ / 2) return false;
        return wanted_.exchange(false);
    }
    /* Whether a refused producer still waits to be told. */
    bool wanted() const { return wanted_.load(); }

  private:
    struct alignas(sizeof(Record)) Aligned {
        uint8_t bytes[sizeof(Record)];
    };
    static constexpr uint64_t footprint(uint64_t length) {
        return sizeof(Record) + (length + sizeof(Record) - 1) / sizeof(Record) * sizeof(Record);
    }
    Record *at(uint64_t position) {
        return reinterpret_cast<Record *>(reinterpret_cast<uint8_t *>(memory_.get()) + (position & (bytes_ - 1)));
    }
    Record *at_or_null(uint64_t &position) {
        while (position != written_.load(std::memory_order_acquire)) {
            Record *record = at(position);
            if (record->kind != Record::skip) return record;
            position += footprint(record->length);
        }
        return nullptr;
    }
    uint64_t free_bytes() const { return bytes_ - (reserved_ - read_.load(std::memory_order_acquire)); }
    size_t free_slots() const { return slots_ - (reserved_count_ - popped_.load(std::memory_order_relaxed)); }
    size_t free_records() const {
        /* One less than fit: the end of the ring may have to be skipped. */
        uint64_t fit = free_bytes() / footprint(payload_max);
        return std::min<size_t>(fit ? fit - 1 : 0, free_slots());
    }
    Record *try_reserve(uint32_t length) {
        uint64_t need = footprint(length), to_end = bytes_ - (reserved_ & (bytes_ - 1));
        uint64_t skip = need > to_end ? to_end : 0;
        if (free_bytes() < skip + need || free_slots() == 0) return nullptr;
        if (skip) {
            Record *filler = at(reserved_);
            filler->kind = Record::skip;
            filler->length = static_cast<uint32_t>(skip - sizeof(Record));
            reserved_ += skip;
        }
        Record *record = at(reserved_);
        *record = {};
        record->length = length;
        reserved_ += need;
        ++reserved_count_;
        return record;
    }

    const size_t slots_;
    const size_t bytes_;
    const std::unique_ptr<Aligned[]> memory_;

    alignas(64) std::atomic<uint64_t> written_{0}; /* the producer's line */
    std::atomic<uint64_t> pushed_{0};
    uint64_t reserved_ = 0;
    uint64_t reserved_count_ = 0;

    alignas(64) std::atomic<uint64_t> read_{0}; /* the consumer's line */
    std::atomic<uint64_t> popped_{0};
    uint64_t scanned_ = 0;

    alignas(64) std::atomic<bool> wanted_{false};
};

class Doorbell {
  public:
    Doorbell() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
        if (!fd_) throw std::system_error(errno, std::generic_category(), "eventfd");
    }
    int fd() const { return fd_.get(); }
    /* Producer, after publishing: wake the consumer if it sleeps. */
    void ring() {
        std::atomic_thread_fence(std::memory_order_seq_cst);
        if (armed_.load(std::memory_order_relaxed) && armed_.exchange(false)) signal();
    }
    /* Wake it in any case. */
    void signal() { eventfd_write(fd_.get(), 1); }
    /* Consumer: forget what rang. */
    void clear() {
        eventfd_t value;
        eventfd_read(fd_.get(), &value);
    }
    /* Consumer: about to sleep; look into the rings once more after this. */
    void arm() {
        armed_.store(true, std::memory_order_relaxed);
        std::atomic_thread_fence(std::memory_order_seq_cst);
    }

  private:
    Fd fd_;
    std::atomic<bool> armed_{true};
};

} // namespace netcon
