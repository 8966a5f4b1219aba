/* network_sets.hpp: which networks a socket may be on. Wherever the server keeps "the network", 0 stands for all of them, and the
 * number of a set for several (ZT_NC_NWID with a list). Numbers of sets are below 2^24: a network's id begins with the address of
 * its controller, which is never 0. Sets are kept for the server's life; equal ones have one number. */
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace netcon::server {

class NetworkSets {
  public:
    /* The number for `count` ids, 8 bytes each; the id itself for a single one. 0: there is a 0 among them, or no room. */
    uint64_t number_of(const uint8_t *ids, size_t count) {
        std::vector<uint64_t> set(count);
        if (count > 0) std::memcpy(set.data(), ids, count * sizeof set[0]);
        std::sort(set.begin(), set.end());
        set.erase(std::unique(set.begin(), set.end()), set.end());
        if (set.empty() || set.front() < first_network) return 0;
        if (set.size() == 1) return set.front();
        auto found = std::find(sets_.begin(), sets_.end(), set);
        if (found == sets_.end()) {
            if (sets_.size() == sets_max) return 0;
            found = sets_.insert(sets_.end(), std::move(set));
        }
        return static_cast<uint64_t>(found - sets_.begin()) + 1;
    }

    bool is_set(uint64_t on) const { return on != 0 && on < first_network; }

    /* Is `network` (a single one) among those that `on` stands for? */
    bool covers(uint64_t on, uint64_t network) const {
        if (!is_set(on)) return on == 0 || on == network;
        return on <= sets_.size() && std::binary_search(sets_[on - 1].begin(), sets_[on - 1].end(), network);
    }

    /* Have two of them a network in common? */
    bool meet(uint64_t a, uint64_t b) const {
        if (!is_set(a)) return a == 0 || b == 0 || covers(b, a);
        if (a > sets_.size()) return false;
        return b == 0 || std::any_of(sets_[a - 1].begin(), sets_[a - 1].end(), [&](uint64_t one) { return covers(b, one); });
    }

  private:
    static constexpr uint64_t first_network = 1u << 24;
    static constexpr size_t sets_max = 1024;
    std::vector<std::vector<uint64_t>> sets_;
};

} // namespace netcon::server
