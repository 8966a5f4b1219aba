/*
 * The memory-hard digest and the search for an identity: see identity_work.hpp.
 */
#include "identity_work.hpp"

#include <bit>
#include <cstring>

#include <sodium.h>

namespace netcon {
namespace {

constexpr std::size_t block_words = 8;
constexpr std::uint8_t first_byte_limit = 17; /* D[0] must be below (vl1 §2.2 step 5) */

std::uint64_t big_endian(std::uint64_t word) noexcept {
    return std::endian::native == std::endian::little ? __builtin_bswap64(word) : word;
}

std::uint64_t address_of(const std::uint8_t *digest64) noexcept {
    std::uint64_t address = 0;
    for (std::size_t i = 59; i < 64; ++i) {
        address = address << 8 | digest64[i];
    }
    return address;
}

bool acceptable(const std::uint8_t *digest64) noexcept {
    const std::uint64_t address = address_of(digest64);
    return digest64[0] < first_byte_limit && address != 0 && address >> 32 != 0xff;
}

} // namespace

IdentityWork::IdentityWork() : memory_(new std::uint64_t[words]) {}

void IdentityWork::digest(const std::uint8_t *public64, std::uint8_t *digest64) noexcept {
    alignas(64) std::uint64_t d[block_words];
    crypto_hash_sha512(reinterpret_cast<std::uint8_t *>(d), public64, 64);
    std::uint8_t key[32];
    std::uint8_t nonce[8];
    std::memcpy(key, d, sizeof key);
    std::memcpy(nonce, d + 4, sizeof nonce);

    std::uint64_t *const m = memory_.get();
    crypto_stream_salsa20(reinterpret_cast<std::uint8_t *>(m), words * sizeof(std::uint64_t), nonce, key);
    for (std::size_t i = block_words; i < words; ++i) {
        m[i] ^= m[i - block_words];
    }

    constexpr std::size_t piece_blocks = 256; /* 16 KiB: fits the first-level cache beside the digest */
    alignas(64) std::uint64_t stream[piece_blocks * block_words];
    std::uint64_t counter = words / block_words;
    std::size_t i = 0;
    while (i < words) {
        std::memset(stream, 0, sizeof stream);
        crypto_stream_salsa20_xor_ic(reinterpret_cast<std::uint8_t *>(stream), reinterpret_cast<const std::uint8_t *>(stream),
                                     sizeof stream, nonce, counter, key);
        counter += piece_blocks;
        for (const std::uint64_t *block = stream; block != stream + piece_blocks * block_words; block += block_words) {
            const std::size_t a = big_endian(m[i]) % block_words;
            const std::size_t b = big_endian(m[i + 1]) % words;
            i += 2;
            const std::uint64_t word = d[a];
            d[a] = m[b];
            m[b] = word;
            for (std::size_t j = 0; j < block_words; ++j) {
                d[j] ^= block[j];
            }
        }
    }
    std::memcpy(digest64, d, sizeof d);
}

std::uint64_t IdentityWork::generate(const std::uint8_t *seed64, std::uint8_t *public64, std::uint8_t *secret64) noexcept {
    std::uint8_t digest64[64];
    std::memcpy(secret64, seed64, 64);
    public_from_secret(secret64, public64);
    for (;;) {
        digest(public64, digest64);
        if (acceptable(digest64)) {
            return address_of(digest64);
        }
        /* The signing half stays; the other counts on, in bytes that clamping leaves alone. */
        sodium_increment(secret64 + 8, 16);
        crypto_scalarmult_curve25519_base(public64, secret64);
    }
}

void public_from_secret(const std::uint8_t *secret64, std::uint8_t *public64) noexcept {
    std::uint8_t expanded[crypto_sign_SECRETKEYBYTES];
    crypto_scalarmult_curve25519_base(public64, secret64);
    crypto_sign_seed_keypair(public64 + 32, expanded, secret64 + 32);
    sodium_memzero(expanded, sizeof expanded);
}

} // namespace netcon
