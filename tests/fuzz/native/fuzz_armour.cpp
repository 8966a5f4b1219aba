/* fuzz_armour.cpp: packets into PeerKeys::open and crypt_field. What the caller seals in any suite opens to the same; nothing
 * outside of the packet is touched (it lies in memory of exactly its length). */
#include <cstdlib>
#include <cstring>
#include <vector>

#include "armour.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    using netcon::ArmourStatus;
    static const uint8_t key[netcon::peer_key_length] = {1, 2, 3};
    static auto keys = netcon::PeerKeys::create(key);
    std::vector<uint8_t> packet(data, data + size);
    ArmourStatus opened = keys->open(packet.data(), packet.size());
    if ((opened == ArmourStatus::too_short) != (size < netcon::packet_minimum_length)) abort();
    for (unsigned suite = 0; suite < 8; suite++) {
        std::vector<uint8_t> sealed(data, data + size);
        ArmourStatus done = keys->seal(sealed.data(), sealed.size(), suite);
        if (done != ArmourStatus::ok) continue;
        if (keys->open(sealed.data(), sealed.size()) != ArmourStatus::ok) abort();
        if (std::memcmp(sealed.data() + netcon::packet_protected_offset, data + netcon::packet_protected_offset,
                        size - netcon::packet_protected_offset) != 0)
            abort();
    }
    if (size) {
        packet.assign(data, data + size);
        size_t offset = data[0] * (size / 128 + 1);
        if (keys->crypt_field(packet.data(), size, offset) == ArmourStatus::ok) {
            keys->crypt_field(packet.data(), size, offset);
            if (std::memcmp(packet.data(), data, size) != 0) abort();
        }
    }
    return 0;
}
