/* checksum.c: the Internet checksum's sum (RFC 1071) in words that the compiler turns into vector instructions. With checksums a
 * segment costs twice its instructions, so this is the one arithmetic loop of the data path that is worth it. */
#include "arch/cc.h"

uint16_t core_checksum(const void *data, int length) {
    const uint8_t *bytes = data;
    uint64_t sum = 0;
    size_t left = length > 0 ? (size_t)length : 0;
    size_t words = left / 4;
    /* A sum of at most 2^14 words (a packet is below 64 KiB) of 32 bits cannot overflow 64 bits. */
    for (size_t i = 0; i < words; i++) {
        uint32_t word;
        memcpy(&word, bytes + 4 * i, 4);
        sum += word;
    }
    bytes += 4 * words;
    left -= 4 * words;
    if (left > 0) {
        uint32_t word = 0;
        memcpy(&word, bytes, left);
        sum += word;
    }
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}
