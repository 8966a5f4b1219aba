/* address.hpp: socket addresses inside the server. One form for both families: an IPv4 address is kept IPv4-mapped, so that
 * dual-stack sockets need no second code path; the family appears only where an address meets a program. */
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <cstring>

#include "netcon/socket_rpc.h"

namespace netcon::server {

struct Address {
    std::array<uint8_t, 16> ip{};
    uint16_t port = 0;
    uint32_t scope = 0;

    static constexpr std::array<uint8_t, 12> mapped_prefix{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

    static Address v4(const uint8_t *bytes, uint16_t port) {
        Address a;
        std::memcpy(a.ip.data(), mapped_prefix.data(), mapped_prefix.size());
        std::memcpy(a.ip.data() + 12, bytes, 4);
        a.port = port;
        return a;
    }
    static Address v6(const uint8_t *bytes, uint16_t port, uint32_t scope = 0) {
        Address a;
        std::memcpy(a.ip.data(), bytes, 16);
        a.port = port;
        a.scope = scope;
        return a;
    }
    static Address any(uint16_t family) {
        static constexpr uint8_t zero[16]{};
        return family == AF_INET ? v4(zero, 0) : v6(zero, 0);
    }
    /* Any family but AF_INET6 is read as IPv4; the caller has checked it. */
    static Address from(const netcon_address &a) { return a.family == AF_INET6 ? v6(a.ip, a.port, a.scope) : v4(a.ip, a.port); }

    bool is_v4() const { return std::memcmp(ip.data(), mapped_prefix.data(), mapped_prefix.size()) == 0; }
    bool is_any() const {
        static constexpr uint8_t zero[16]{};
        return is_v4() ? std::memcmp(ip.data() + 12, zero, 4) == 0 : std::memcmp(ip.data(), zero, 16) == 0;
    }
    bool is_multicast() const { return is_v4() ? (ip[12] & 0xf0) == 0xe0 : ip[0] == 0xff; }
    bool is_broadcast() const { return is_v4() && ip[12] == 0xff && ip[13] == 0xff && ip[14] == 0xff && ip[15] == 0xff; }
    bool is_link_local() const { return !is_v4() && ip[0] == 0xfe && (ip[1] & 0xc0) == 0x80; }
    bool is_loopback() const {
        static constexpr uint8_t one[16]{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
        return is_v4() ? ip[12] == 127 : std::memcmp(ip.data(), one, 16) == 0;
    }
    static Address loopback(bool v4) {
        Address a;
        if (v4) {
            static constexpr uint8_t bytes[4]{127, 0, 0, 1};
            return Address::v4(bytes, 0);
        }
        a.ip[15] = 1;
        return a;
    }
    bool same_ip(const Address &other) const { return ip == other.ip; }
    bool operator==(const Address &other) const { return ip == other.ip && port == other.port; }

    /* As a socket of `family` shows it. */
    netcon_address to(uint16_t family) const {
        netcon_address a{};
        a.family = family;
        a.port = port;
        if (family == AF_INET) {
            std::memcpy(a.ip, ip.data() + 12, 4);
        } else {
            a.scope = is_link_local() ? scope : 0;
            std::memcpy(a.ip, ip.data(), 16);
        }
        return a;
    }
};

} // namespace netcon::server
