/* names.cpp: see names.hpp. */
#include "names.hpp"

#include <cerrno>
#include <cstring>

namespace netcon::server {

namespace {

constexpr char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
constexpr size_t head_length = 1 + NETCON_NAME_PREFIX_LENGTH + 1; // NUL, prefix, kind

int digit(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '-' ? 62 : c == '_' ? 63 : -1;
}

template <typename T> std::span<const uint8_t> bytes_of(const T &value) {
    return {reinterpret_cast<const uint8_t *>(&value), sizeof value};
}
template <typename T> std::span<uint8_t> bytes_of(T &value) { return {reinterpret_cast<uint8_t *>(&value), sizeof value}; }

int bind_to(int fd, const SocketName &name) {
    return ::bind(fd, reinterpret_cast<const sockaddr *>(&name.address), name.length) == 0 ? 0 : errno;
}

/* The text after the kind letter, or nullptr when the name is not ours by form. */
const char *body_of(const SocketName &name, char &kind, size_t &length) {
    if (name.address.sun_family != AF_UNIX || name.length > sizeof(sockaddr_un) ||
        name.length <= offsetof(sockaddr_un, sun_path) + head_length)
        return nullptr;
    const char *path = name.address.sun_path;
    if (path[0] != 0 || std::memcmp(path + 1, NETCON_NAME_PREFIX, NETCON_NAME_PREFIX_LENGTH) != 0) return nullptr;
    kind = path[head_length - 1];
    length = name.length - offsetof(sockaddr_un, sun_path) - head_length;
    return path + head_length;
}

std::optional<netcon_name_program> program_name(const SocketName &name) {
    char kind = 0;
    size_t length = 0;
    netcon_name_program fields{};
    const char *text = body_of(name, kind, length);
    if (text == nullptr || kind != 'P' || !base64url_decode(text, length, bytes_of(fields))) return std::nullopt;
    return fields;
}

} // namespace

size_t base64url_encode(std::span<const uint8_t> bytes, char *text, size_t capacity) {
    size_t length = (bytes.size() * 8 + 5) / 6;
    if (length > capacity) return 0;
    uint32_t bits = 0;
    int held = 0;
    size_t out = 0;
    for (uint8_t byte : bytes) {
        bits = bits << 8 | byte;
        for (held += 8; held >= 6; held -= 6)
            text[out++] = alphabet[bits >> (held - 6) & 63];
    }
    if (held > 0) text[out++] = alphabet[bits << (6 - held) & 63];
    return out;
}

bool base64url_decode(const char *text, size_t length, std::span<uint8_t> bytes) {
    if (length != (bytes.size() * 8 + 5) / 6) return false;
    uint32_t bits = 0;
    int held = 0;
    size_t out = 0;
    for (size_t i = 0; i < length; i++) {
        int value = digit(text[i]);
        if (value < 0) return false;
        bits = bits << 6 | static_cast<uint32_t>(value);
        if ((held += 6) >= 8) {
            held -= 8;
            bytes[out++] = static_cast<uint8_t>(bits >> held);
        }
    }
    return (bits & ((1u << held) - 1)) == 0; // left-over bits are zero in the canonical form
}

SocketName make_name(char kind, std::span<const uint8_t> packed) {
    SocketName name;
    char *path = name.address.sun_path;
    name.address.sun_family = AF_UNIX;
    std::memcpy(path + 1, NETCON_NAME_PREFIX, NETCON_NAME_PREFIX_LENGTH);
    path[head_length - 1] = kind;
    size_t length = base64url_encode(packed, path + head_length, sizeof name.address.sun_path - head_length);
    name.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + head_length + length);
    return name;
}

int bind_name(int fd, const netcon_name_program &name) { return bind_to(fd, make_name('P', bytes_of(name))); }

int bind_name(int fd, char kind, const netcon_name_service &name) { return bind_to(fd, make_name(kind, bytes_of(name))); }

std::optional<netcon_name_program> own_program_name(int fd) {
    SocketName name;
    if (::getsockname(fd, reinterpret_cast<sockaddr *>(&name.address), &name.length) != 0) return std::nullopt;
    return program_name(name);
}

std::optional<netcon_name_program> peer_program_name(int fd) {
    SocketName name;
    if (::getpeername(fd, reinterpret_cast<sockaddr *>(&name.address), &name.length) != 0) return std::nullopt;
    return program_name(name);
}

bool is_named(int fd) {
    SocketName name;
    return ::getsockname(fd, reinterpret_cast<sockaddr *>(&name.address), &name.length) != 0 || name.length > sizeof(sa_family_t);
}

std::optional<ServiceName> peer_service_name(int fd) {
    SocketName name;
    if (::getpeername(fd, reinterpret_cast<sockaddr *>(&name.address), &name.length) != 0) return std::nullopt;
    ServiceName result{};
    size_t length = 0;
    const char *text = body_of(name, result.kind, length);
    if (text == nullptr || result.kind == 'P' || !base64url_decode(text, length, bytes_of(result.fields))) return std::nullopt;
    return result;
}

} // namespace netcon::server
