/*
 * Packet armour of one pair of identities (vl1 §2.5, §2.6).
 *
 * Theory of operation. A pair of identities shares a static 48-byte key. From it this class derives, once, what each packet needs:
 * the Salsa20 base key of suites 0 and 1, and the two AES keys of suite 3 with their OpenSSL contexts. Sealing and opening then
 * work in place on a whole packet (27-byte header, protected rest) and allocate nothing. A context is rewound by giving it the
 * packet's IV, never its key.
 *
 * The contexts are working state: one thread at a time per object. Keys are wiped when the object goes.
 */
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include <openssl/evp.h>

namespace netcon {

/** What became of a call. Everything but `ok` means that the buffer's protected part must not be used. */
enum class ArmourStatus : int {
    ok = 0,
    not_authentic, /**< The MAC does not fit, or the suite is none that authenticates. */
    too_short,     /**< Not a packet: under 28 bytes. */
    bad_suite,     /**< Asked to seal with a suite other than 0, 1 or 3. */
    bad_offset,    /**< The field to encrypt begins outside the packet's verb data. */
    library,       /**< OpenSSL refused; out of memory or a broken installation. */
};

/** Sizes and offsets of the packet header (vl1 §3.1). */
inline constexpr std::size_t packet_mac_offset = 19;
inline constexpr std::size_t packet_protected_offset = 27;
inline constexpr std::size_t packet_minimum_length = 28;
inline constexpr std::size_t peer_key_length = 48;

/** First block of the counter-mode KDF with HMAC-SHA-384 (vl1 §2.5.2). False if OpenSSL fails. */
bool derive_aes_key(const std::uint8_t *key48, std::uint8_t label, std::uint8_t *key32) noexcept;

class PeerKeys {
  public:
    /** From the 48-byte agreed key K. Null if OpenSSL fails. */
    static std::unique_ptr<PeerKeys> create(const std::uint8_t *key48) noexcept;
    ~PeerKeys();
    PeerKeys(const PeerKeys &) = delete;
    PeerKeys &operator=(const PeerKeys &) = delete;

    /**
     * Armour `packet` in place with suite 0, 1 or 3. Packet id, addresses and the fragmented mark (0x40) are set by the caller; the
     * other flags, the MAC and, in suite 3, the packet id are written here.
     */
    ArmourStatus seal(std::uint8_t *packet, std::size_t length, unsigned suite) noexcept;

    /** Verify and decrypt `packet` in place, whatever its hop count. The header stays as it is. The protected part is wiped on
     * failure. */
    ArmourStatus open(std::uint8_t *packet, std::size_t length) noexcept;

    /** HELLO field encryption, its own inverse: XOR the bytes from `offset` to the end (vl1 §2.6). */
    ArmourStatus crypt_field(std::uint8_t *packet, std::size_t length, std::size_t offset) const noexcept;

  private:
    struct FreeContext {
        void operator()(EVP_CIPHER_CTX *context) const noexcept { EVP_CIPHER_CTX_free(context); }
    };
    using Context = std::unique_ptr<EVP_CIPHER_CTX, FreeContext>;

    PeerKeys() = default;
    bool gmac_folded(const std::uint8_t *packet, std::size_t length, const std::uint8_t *id, std::uint8_t *folded) noexcept;
    bool ctr(std::uint8_t *packet, std::size_t length, const std::uint8_t *tag) noexcept;
    ArmourStatus seal_siv(std::uint8_t *packet, std::size_t length) noexcept;
    ArmourStatus open_siv(std::uint8_t *packet, std::size_t length) noexcept;
    void packet_key(const std::uint8_t *packet, std::size_t length, std::uint8_t *key32) const noexcept;

    std::array<std::uint8_t, 32> base_{}; /* Salsa20 base key, K[0..31] */
    Context gmac_;                        /* AES-256-GCM under key 0: only its tag is used */
    Context ctr_;                         /* AES-256-CTR under key 1 */
    Context encrypt_block_;               /* AES-256-ECB under key 1, both directions, for the tag */
    Context decrypt_block_;
};

} // namespace netcon
