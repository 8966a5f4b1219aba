/* network_sets.hpp: which networks a socket may be on. Wherever the server keeps "the network", 0 stands for all of them, and the
 * number of a set for several (ZT_NC_NWID with a list). No network has the number of a set: an id begins with the address of its
 * controller, and none begins with 0xff (vl1 §1.5); those of ad-hoc networks do, but end in 24 bits of 0 (vl2 §6.6). Sets are kept
 * for the server's life, for sockets may be on them; equal ones have one number. So there is a limit to those that a user may add,
 * and to those that the users who are not the service's owner may add together: nobody takes away the owner's. */
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <sys/types.h>
#include <unordered_map>
#include <vector>

namespace netcon::server {

class NetworkSets {
  public:
    /* The number for `count` ids, 8 bytes each, of which `uid` (`owner`: the service's, or root) asks; the id itself for a single
     * one. 0: there is what is no id among them, or (`full`) no room for another set of this user. */
    uint64_t number_of(const uint8_t *ids, size_t count, uid_t uid, bool owner, bool &full) {
        full = false;
        std::vector<uint64_t> set(count);
        if (count > 0) std::memcpy(set.data(), ids, count * sizeof set[0]);
        std::sort(set.begin(), set.end());
        set.erase(std::unique(set.begin(), set.end()), set.end());
        if (set.empty() || set.front() == 0 || is_set(set.back())) return 0;
        if (set.size() == 1) return set.front();
        auto found = std::find(sets_.begin(), sets_.end(), set);
        if (found == sets_.end()) {
            full = sets_.size() == sets_max || (!owner && (others_ == others_max || added_[uid] == user_max));
            if (full) return 0;
            found = sets_.insert(sets_.end(), std::move(set));
            if (!owner) others_++, added_[uid]++;
        }
        return prefix | (static_cast<uint64_t>(found - sets_.begin()) + 1);
    }

    static bool is_set(uint64_t on) { return on > prefix; }

    /* Is `network` (a single one) among those that `on` stands for? */
    bool covers(uint64_t on, uint64_t network) const {
        if (!is_set(on)) return on == 0 || on == network;
        const std::vector<uint64_t> *set = find(on);
        return set != nullptr && std::binary_search(set->begin(), set->end(), network);
    }

    /* Have two of them a network in common? */
    bool meet(uint64_t a, uint64_t b) const {
        if (!is_set(a)) return a == 0 || b == 0 || covers(b, a);
        const std::vector<uint64_t> *set = find(a);
        return set != nullptr && std::any_of(set->begin(), set->end(), [&](uint64_t one) { return covers(b, one); });
    }

  private:
    const std::vector<uint64_t> *find(uint64_t on) const {
        uint64_t index = on - prefix - 1;
        return index < sets_.size() ? &sets_[index] : nullptr;
    }

    static constexpr uint64_t prefix = 0xffffffffff000000;
    static constexpr size_t sets_max = 1024, others_max = sets_max / 2, user_max = 64;
    std::vector<std::vector<uint64_t>> sets_;
    std::unordered_map<uid_t, size_t> added_; // by users who are not the owner; at most others_max of them
    size_t others_ = 0;
};

} // namespace netcon::server
