/*
 * The work behind an identity: the memory-hard digest that ties an address to a public key, and the search for a key that has one
 * (vl1 §2.2).
 *
 * Theory of operation. The digest fills 2 MiB with a chained Salsa20/20 stream, then scans it once, exchanging words between memory
 * and digest and mixing in more of the same stream, so that neither time nor memory can be saved. The stream does not depend on the
 * scan and is therefore made in large pieces, which lets libsodium's vector code run; the scan itself is what costs. The 2 MiB are
 * kept between tries.
 */
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace netcon {

class IdentityWork {
  public:
    /** Takes 2 MiB. Throws std::bad_alloc. */
    IdentityWork();

    /** The 64-byte digest D of a 64-byte public block. */
    void digest(const std::uint8_t *public64, std::uint8_t *digest64) noexcept;

    /**
     * Search from 64 random bytes for a secret block whose public block yields a good address. The result depends on the seed
     * alone. Returns the address; fills both 64-byte blocks.
     */
    std::uint64_t generate(const std::uint8_t *seed64, std::uint8_t *public64, std::uint8_t *secret64) noexcept;

  private:
    static constexpr std::size_t words = 262144; /* of 8 bytes: 2 MiB */
    std::unique_ptr<std::uint64_t[]> memory_;
};

/** The public block of a secret block: X25519 of the first half, Ed25519 of the second (a seed). */
void public_from_secret(const std::uint8_t *secret64, std::uint8_t *public64) noexcept;

} // namespace netcon
