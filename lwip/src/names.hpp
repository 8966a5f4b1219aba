/* names.hpp: the write-once abstract AF_UNIX names that make a descriptor describe itself (socket_rpc.h, "names").
 *
 * A name is the prefix, one letter for the kind, and a packed struct in base64url: text, because a zero or newline byte in
 * a name breaks the lines of /proc/net/unix for the whole host. Names are public and can be forged or squatted by any local
 * user, so they tell programs about their own descriptors and are never what permits something: that is the cookie.
 */
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "netcon/socket_rpc.h"

namespace netcon::server {

/* Encode `bytes` in base64url without padding; returns the number of characters, at most `capacity` (0: does not fit). */
size_t base64url_encode(std::span<const uint8_t> bytes, char *text, size_t capacity);

/* The inverse. False when the text is not exactly `bytes.size()` bytes in canonical base64url. */
bool base64url_decode(const char *text, size_t length, std::span<uint8_t> bytes);

struct SocketName {
    sockaddr_un address{};
    socklen_t length = sizeof(sockaddr_un);
};

SocketName make_name(char kind, std::span<const uint8_t> packed);

/* Give the socket its name, once. 0 or an errno: EADDRINUSE when somebody holds that name, EINVAL when it has one. */
int bind_name(int fd, const netcon_name_program &name);
int bind_name(int fd, char kind, const netcon_name_service &name);

/* What the name of this end, or of the other end, says; nothing when it is not one of ours by form. */
std::optional<netcon_name_program> own_program_name(int fd);
std::optional<netcon_name_program> peer_program_name(int fd);

/* Has this socket a name of any kind? */
bool is_named(int fd);

struct ServiceName {
    char kind;
    netcon_name_service fields;
};
std::optional<ServiceName> peer_service_name(int fd);

} // namespace netcon::server
