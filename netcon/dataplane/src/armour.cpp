/*
 * Packet armour: see armour.hpp. Suites 0 and 1 are Salsa20/12 with Poly1305 (libsodium), suite 3 is AES-GMAC-SIV (OpenSSL).
 */
#include "armour.hpp"

#include <algorithm>
#include <cstring>
#include <new>

#include <openssl/hmac.h>
#include <sodium.h>

namespace netcon {
namespace {

constexpr std::uint8_t flag_legacy_encrypted = 0x80;
constexpr std::uint8_t flag_fragmented = 0x40;
constexpr std::uint8_t mask_hops = 0x07;
constexpr unsigned suite_shift = 3;
constexpr unsigned suite_poly = 0;
constexpr unsigned suite_salsa_poly = 1;
constexpr unsigned suite_siv = 3;
constexpr std::size_t flags_offset = 18;
constexpr std::size_t block_length = 64;

/* Bytes that hold key material for a moment. */
template <std::size_t N> struct Secret {
    std::uint8_t bytes[N];
    ~Secret() { sodium_memzero(bytes, N); }
};

/* The Salsa20/12 key stream, block by block: libsodium has no initial block counter for twelve rounds. */
class Salsa2012 {
  public:
    Salsa2012(const std::uint8_t *key32, const std::uint8_t *nonce8) noexcept : key_(key32) { std::memcpy(input_, nonce8, 8); }

    const std::uint8_t *next() noexcept {
        for (unsigned i = 0; i < 8; ++i) {
            input_[8 + i] = static_cast<std::uint8_t>(counter_ >> (8 * i));
        }
        ++counter_;
        crypto_core_salsa2012(block_.bytes, input_, key_, nullptr);
        return block_.bytes;
    }

    void xor_into(std::uint8_t *data, std::size_t length) noexcept {
        while (length > 0) {
            const std::uint8_t *stream = next();
            const std::size_t n = std::min(length, block_length);
            for (std::size_t i = 0; i < n; ++i) {
                data[i] ^= stream[i];
            }
            data += n;
            length -= n;
        }
    }

  private:
    const std::uint8_t *key_;
    std::uint64_t counter_ = 0;
    std::uint8_t input_[16];
    Secret<block_length> block_;
};

} // namespace

bool derive_aes_key(const std::uint8_t *key48, std::uint8_t label, std::uint8_t *key32) noexcept {
    const std::uint8_t message[13] = {0, 0, 0, 0, 'Z', 'T', label, 0, 0, 0, 0, 0x01, 0x80};
    Secret<48> output;
    unsigned length = 0;
    if (HMAC(EVP_sha384(), key48, static_cast<int>(peer_key_length), message, sizeof message, output.bytes, &length) == nullptr) {
        return false;
    }
    std::memcpy(key32, output.bytes, 32);
    return true;
}

std::unique_ptr<PeerKeys> PeerKeys::create(const std::uint8_t *key48) noexcept {
    std::unique_ptr<PeerKeys> keys(new (std::nothrow) PeerKeys());
    if (!keys) {
        return nullptr;
    }
    std::memcpy(keys->base_.data(), key48, keys->base_.size());
    Secret<32> key0;
    Secret<32> key1;
    for (Context *context : {&keys->gmac_, &keys->ctr_, &keys->encrypt_block_, &keys->decrypt_block_}) {
        context->reset(EVP_CIPHER_CTX_new());
        if (!*context) {
            return nullptr;
        }
    }
    /* The IVs come with each packet. */
    const bool ready = derive_aes_key(key48, 0x30, key0.bytes) && derive_aes_key(key48, 0x31, key1.bytes) &&
                       EVP_EncryptInit_ex(keys->gmac_.get(), EVP_aes_256_gcm(), nullptr, key0.bytes, nullptr) == 1 &&
                       EVP_EncryptInit_ex(keys->ctr_.get(), EVP_aes_256_ctr(), nullptr, key1.bytes, nullptr) == 1 &&
                       EVP_EncryptInit_ex(keys->encrypt_block_.get(), EVP_aes_256_ecb(), nullptr, key1.bytes, nullptr) == 1 &&
                       EVP_DecryptInit_ex(keys->decrypt_block_.get(), EVP_aes_256_ecb(), nullptr, key1.bytes, nullptr) == 1 &&
                       EVP_CIPHER_CTX_set_padding(keys->encrypt_block_.get(), 0) == 1 &&
                       EVP_CIPHER_CTX_set_padding(keys->decrypt_block_.get(), 0) == 1;
    return ready ? std::move(keys) : nullptr;
}

PeerKeys::~PeerKeys() { sodium_memzero(base_.data(), base_.size()); /* OpenSSL wipes its contexts itself. */ }

/* The key of one packet under suites 0 and 1: the base key with the header's bound fields mixed in (vl1 §2.5.1). */
void PeerKeys::packet_key(const std::uint8_t *packet, std::size_t length, std::uint8_t *key32) const noexcept {
    std::memcpy(key32, base_.data(), 32);
    for (std::size_t i = 0; i < flags_offset; ++i) {
        key32[i] ^= packet[i];
    }
    key32[18] ^= packet[flags_offset] & static_cast<std::uint8_t>(~mask_hops);
    key32[19] ^= static_cast<std::uint8_t>(length); /* little-endian, here alone */
    key32[20] ^= static_cast<std::uint8_t>(length >> 8);
}

/* GMAC over the bound header fields and the plain text, folded to 8 bytes (vl1 §2.5.2 steps 1 to 3). `id` is the random packet id.
 */
bool PeerKeys::gmac_folded(const std::uint8_t *packet, std::size_t length, const std::uint8_t *id, std::uint8_t *folded) noexcept {
    std::uint8_t nonce[12] = {};
    std::memcpy(nonce, id, 8);
    std::uint8_t bound[16] = {};
    std::memcpy(bound, packet + 8, 11);
    bound[10] &= static_cast<std::uint8_t>(~mask_hops);
    std::uint8_t tag[16];
    int written = 0;
    EVP_CIPHER_CTX *context = gmac_.get();
    if (EVP_EncryptInit_ex(context, nullptr, nullptr, nullptr, nonce) != 1 ||
        EVP_EncryptUpdate(context, nullptr, &written, bound, sizeof bound) != 1 ||
        EVP_EncryptUpdate(context, nullptr, &written, packet + packet_protected_offset,
                          static_cast<int>(length - packet_protected_offset)) != 1 ||
        EVP_EncryptFinal_ex(context, tag, &written) != 1 ||
        EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, sizeof tag, tag) != 1) {
        return false;
    }
    for (unsigned i = 0; i < 8; ++i) {
        folded[i] = tag[i] ^ tag[8 + i];
    }
    return true;
}

/* XOR the protected part with the counter-mode stream that starts at `tag` (step 5). Its cleared bit keeps the counter from
 * carrying. */
bool PeerKeys::ctr(std::uint8_t *packet, std::size_t length, const std::uint8_t *tag) noexcept {
    std::uint8_t counter[16];
    std::memcpy(counter, tag, sizeof counter);
    counter[12] &= 0x7f;
    int written = 0;
    std::uint8_t *body = packet + packet_protected_offset;
    return EVP_EncryptInit_ex(ctr_.get(), nullptr, nullptr, nullptr, counter) == 1 &&
           EVP_EncryptUpdate(ctr_.get(), body, &written, body, static_cast<int>(length - packet_protected_offset)) == 1;
}

ArmourStatus PeerKeys::seal_siv(std::uint8_t *packet, std::size_t length) noexcept {
    std::uint8_t block[16];
    std::uint8_t tag[16];
    int written = 0;
    std::memcpy(block, packet, 8);
    if (!gmac_folded(packet, length, packet, block + 8) ||
        EVP_EncryptUpdate(encrypt_block_.get(), tag, &written, block, sizeof block) != 1 || !ctr(packet, length, tag)) {
        return ArmourStatus::library;
    }
    std::memcpy(packet, tag, 8);
    std::memcpy(packet + packet_mac_offset, tag + 8, 8);
    return ArmourStatus::ok;
}

ArmourStatus PeerKeys::open_siv(std::uint8_t *packet, std::size_t length) noexcept {
    std::uint8_t tag[16];
    std::uint8_t block[16];
    std::uint8_t folded[8];
    int written = 0;
    std::memcpy(tag, packet, 8);
    std::memcpy(tag + 8, packet + packet_mac_offset, 8);
    ArmourStatus status = ArmourStatus::library;
    if (ctr(packet, length, tag) && EVP_DecryptUpdate(decrypt_block_.get(), block, &written, tag, sizeof tag) == 1 &&
        gmac_folded(packet, length, block, folded)) {
        status = sodium_memcmp(folded, block + 8, sizeof folded) == 0 ? ArmourStatus::ok : ArmourStatus::not_authentic;
    }
    if (status != ArmourStatus::ok) {
        sodium_memzero(packet + packet_protected_offset, length - packet_protected_offset);
    }
    return status;
}

ArmourStatus PeerKeys::seal(std::uint8_t *packet, std::size_t length, unsigned suite) noexcept {
    if (length < packet_minimum_length) {
        return ArmourStatus::too_short;
    }
    if (suite != suite_poly && suite != suite_salsa_poly && suite != suite_siv) {
        return ArmourStatus::bad_suite;
    }
    /* The flags are part of what is authenticated, so they come first (vl1 §2.5.1, §3.3). */
    packet[flags_offset] = static_cast<std::uint8_t>((packet[flags_offset] & flag_fragmented) | (suite << suite_shift) |
                                                     (suite == suite_salsa_poly ? flag_legacy_encrypted : 0));
    if (suite == suite_siv) {
        return seal_siv(packet, length);
    }
    Secret<32> key;
    Secret<32> mac_key;
    packet_key(packet, length, key.bytes);
    Salsa2012 stream(key.bytes, packet);
    std::memcpy(mac_key.bytes, stream.next(), 32);
    std::uint8_t *body = packet + packet_protected_offset;
    const std::size_t body_length = length - packet_protected_offset;
    if (suite == suite_salsa_poly) {
        stream.xor_into(body, body_length);
    }
    std::uint8_t mac[16];
    crypto_onetimeauth_poly1305(mac, body, body_length, mac_key.bytes);
    std::memcpy(packet + packet_mac_offset, mac, 8);
    return ArmourStatus::ok;
}

ArmourStatus PeerKeys::open(std::uint8_t *packet, std::size_t length) noexcept {
    if (length < packet_minimum_length) {
        return ArmourStatus::too_short;
    }
    const unsigned suite = (packet[flags_offset] >> suite_shift) & 0x07;
    if (suite == suite_siv) {
        return open_siv(packet, length);
    }
    if (suite != suite_poly && suite != suite_salsa_poly) {
        return ArmourStatus::not_authentic;
    }
    Secret<32> key;
    Secret<32> mac_key;
    packet_key(packet, length, key.bytes);
    Salsa2012 stream(key.bytes, packet);
    std::memcpy(mac_key.bytes, stream.next(), 32);
    std::uint8_t *body = packet + packet_protected_offset;
    const std::size_t body_length = length - packet_protected_offset;
    std::uint8_t mac[16];
    crypto_onetimeauth_poly1305(mac, body, body_length, mac_key.bytes);
    if (sodium_memcmp(mac, packet + packet_mac_offset, 8) != 0) {
        sodium_memzero(body, body_length);
        return ArmourStatus::not_authentic;
    }
    if (suite == suite_salsa_poly) {
        stream.xor_into(body, body_length);
    }
    return ArmourStatus::ok;
}

ArmourStatus PeerKeys::crypt_field(std::uint8_t *packet, std::size_t length, std::size_t offset) const noexcept {
    if (length < packet_minimum_length) {
        return ArmourStatus::too_short;
    }
    if (offset < packet_minimum_length || offset > length) {
        return ArmourStatus::bad_offset;
    }
    std::uint8_t nonce[8];
    std::memcpy(nonce, packet, sizeof nonce);
    nonce[7] &= 0xf8;
    Salsa2012(base_.data(), nonce).xor_into(packet + offset, length - offset);
    return ArmourStatus::ok;
}

} // namespace netcon
