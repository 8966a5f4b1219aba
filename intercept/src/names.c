/* names.c: see names.h. */
#include "names.h"

#include <poll.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "kernel.h"
#include "memory.h"

_Static_assert(sizeof(struct netcon_name_program) == 24, "layout of kind P");
_Static_assert(sizeof(struct netcon_name_service) == 56, "layout of kinds L, C, F");
_Static_assert(NAME_MAX_LENGTH <= sizeof(((struct sockaddr_un *)0)->sun_path), "a name fits");

static const char alphabet[64] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static size_t encode(char *out, const unsigned char *in, size_t length) {
    char *at = out;
    uint32_t bits = 0;
    int held = 0;
    for (size_t i = 0; i < length; i++) {
        bits = bits << 8 | in[i];
        for (held += 8; held >= 6; held -= 6)
            *at++ = alphabet[bits >> (held - 6) & 63];
    }
    if (held) *at++ = alphabet[bits << (6 - held) & 63];
    return (size_t)(at - out);
}

static int value_of(char digit) {
    if (digit >= 'A' && digit <= 'Z') return digit - 'A';
    if (digit >= 'a' && digit <= 'z') return digit - 'a' + 26;
    if (digit >= '0' && digit <= '9') return digit - '0' + 52;
    return digit == '-' ? 62 : digit == '_' ? 63 : -1;
}

/* Decodes exactly `length` bytes from `digits` digits. */
static bool decode(unsigned char *out, size_t length, const char *in, size_t digits) {
    if (digits != (length * 4 + 2) / 3) return false;
    uint32_t bits = 0;
    int held = 0;
    size_t done = 0;
    for (size_t i = 0; i < digits; i++) {
        int value = value_of(in[i]);
        if (value < 0) return false;
        bits = bits << 6 | (uint32_t)value;
        held += 6;
        if (held >= 8 && done < length) {
            held -= 8;
            out[done++] = (unsigned char)(bits >> held);
        }
    }
    return done == length;
}

static const size_t head_length = offsetof(struct sockaddr_un, sun_path) + NAME_HEAD;

/* The kind that a name of `length` bytes says, or 0 if it is none of ours. */
static char kind_of_name(const struct sockaddr_un *address, socklen_t length) {
    if (length <= head_length || length > sizeof *address || address->sun_family != AF_UNIX || address->sun_path[0] != 0 ||
        memcmp(address->sun_path + 1, NETCON_NAME_PREFIX, NETCON_NAME_PREFIX_LENGTH) != 0)
        return 0;
    return address->sun_path[NAME_HEAD - 1];
}

/* Reads a name by `call` (getsockname or getpeername). Returns its kind, or 0 if it is none of ours. */
static char read_name(long call, int descriptor, unsigned char *out, const char *kinds, size_t size) {
    struct sockaddr_un address;
    socklen_t length = sizeof address;
    if (raw(call, descriptor, &address, &length) != 0) return 0;
    char kind = kind_of_name(&address, length);
    while (*kinds && *kinds != kind)
        kinds++;
    return *kinds && decode(out, size, address.sun_path + NAME_HEAD, length - head_length) ? kind : 0;
}

bool names_program(int descriptor, struct netcon_name_program *name) {
    return read_name(SYS_getsockname, descriptor, (unsigned char *)name, "P", sizeof *name) != 0;
}

int names_connected(int descriptor) {
    struct sockaddr_un address;
    socklen_t length = sizeof address;
    /* Both ends of ours exist for as long as the descriptor, so its other end always has an address, be it without a name. */
    if (raw(SYS_getpeername, descriptor, &address, &length) != 0 || address.sun_family != AF_UNIX) return 0;
    return kind_of_name(&address, length) == 'C' ? 1 : -1;
}

bool names_datagrams(int descriptor, struct netcon_name_program *name) {
    int type = 0;
    socklen_t length = sizeof type;
    return raw(SYS_getsockopt, descriptor, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_SEQPACKET &&
           names_program(descriptor, name) && is_datagrams(name);
}

char names_service(int descriptor, struct netcon_name_service *name) {
    struct netcon_name_service unwanted;
    return read_name(SYS_getpeername, descriptor, (unsigned char *)(name ? name : &unwanted), "LCF", sizeof unwanted);
}

bool names_unconnected(int descriptor) {
    char kind = names_service(descriptor, NULL);
    if (kind) return kind == 'L';
    /* While it connects it is not writable, and it has its name before it is writable again: the name is looked at last. */
    struct pollfd wanted = {.fd = descriptor, .events = POLLOUT};
    struct timespec now = {0};
    if (raw(SYS_ppoll, &wanted, 1, &now, NULL, 8) != 1 || wanted.revents != POLLOUT) return false;
    return !names_service(descriptor, NULL);
}

bool names_hung_up(int descriptor, short events) {
    struct pollfd wanted = {.fd = descriptor, .events = events};
    struct timespec now = {0};
    return raw(SYS_ppoll, &wanted, 1, &now, NULL, 8) == 1 && (wanted.revents & (events | POLLHUP));
}

long names_bind(int descriptor, const struct netcon_name_program *name) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path + 1, NETCON_NAME_PREFIX, NETCON_NAME_PREFIX_LENGTH);
    address.sun_path[NAME_HEAD - 1] = 'P';
    size_t digits = encode(address.sun_path + NAME_HEAD, (const unsigned char *)name, sizeof *name);
    return raw(SYS_bind, descriptor, &address, offsetof(struct sockaddr_un, sun_path) + NAME_HEAD + digits);
}
