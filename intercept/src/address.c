/* address.c: see address.h. */
#include "address.h"

#include <netinet/in.h>

#include "kernel.h"
#include "memory.h"

static const uint8_t mapped_prefix[12] = {[10] = 0xff, [11] = 0xff};

/* Without sin6_scope_id (RFC 2133): the kernel accepts it. */
#define OLD_IPV6_LENGTH 24

static uint16_t swapped(uint16_t value) { return __builtin_bswap16(value); /* both architectures are little-endian */ }

static long read_ipv4(struct netcon_address *out, const struct sockaddr *address, socklen_t length, bool binding) {
    struct sockaddr_in in;
    if (length < sizeof in) return -EINVAL;
    memcpy(&in, address, sizeof in);
    if (in.sin_family != AF_INET && !(binding && in.sin_family == AF_UNSPEC && in.sin_addr.s_addr == 0)) return -EAFNOSUPPORT;
    out->family = AF_INET;
    out->port = swapped(in.sin_port);
    memcpy(out->ip, &in.sin_addr, 4);
    return 0;
}

static long read_ipv6(struct netcon_address *out, const struct sockaddr *address, socklen_t length) {
    struct sockaddr_in6 in = {0};
    if (length < OLD_IPV6_LENGTH) return -EINVAL;
    memcpy(&in, address, length < sizeof in ? length : sizeof in);
    if (in.sin6_family != AF_INET6) return -EAFNOSUPPORT;
    out->family = AF_INET6;
    out->port = swapped(in.sin6_port);
    out->scope = in.sin6_scope_id;
    out->flow = in.sin6_flowinfo;
    memcpy(out->ip, &in.sin6_addr, 16);
    return 0;
}

long address_read(struct netcon_address *out, int descriptor, uint16_t family, const struct sockaddr *address, socklen_t length,
                  bool binding) {
    sa_family_t given;
    memset(out, 0, sizeof *out);
    if ((int)length < 0 || length > sizeof(struct sockaddr_storage)) return -EINVAL;
    /* A bound socket cannot be bound again, but the kernel copies the address first. */
    if (length && raw(SYS_bind, descriptor, address, length) == -EFAULT) return -EFAULT;
    if (length < sizeof given) return -EINVAL;
    memcpy(&given, address, sizeof given);
    if (!binding && given == AF_UNSPEC) return 0;
    return family == AF_INET ? read_ipv4(out, address, length, binding) : read_ipv6(out, address, length);
}

long address_of_destination(struct netcon_address *out, uint16_t family, const struct sockaddr *address, socklen_t length) {
    sa_family_t given;
    memset(out, 0, sizeof *out);
    if ((int)length < 0 || length > sizeof(struct sockaddr_storage)) return -EINVAL;
    if (is_impossible(address)) return -EFAULT;
    if (length < sizeof given) return -EINVAL;
    memcpy(&given, address, sizeof given);
    if (family == AF_INET) {
        if (length < sizeof(struct sockaddr_in)) return -EINVAL;
        if (given != AF_INET && given != AF_UNSPEC) return -EAFNOSUPPORT;
    } else {
        if (given == AF_UNSPEC) return 0;
        if (given == AF_INET6) return read_ipv6(out, address, length);
        if (given != AF_INET || length < sizeof(struct sockaddr_in)) return -EINVAL;
    }
    struct sockaddr_in in;
    memcpy(&in, address, sizeof in);
    out->family = AF_INET;
    out->port = swapped(in.sin_port);
    memcpy(out->ip, &in.sin_addr, 4);
    return 0;
}

long address_write(const struct netcon_address *in, uint16_t family, struct sockaddr *address, socklen_t *length) {
    union {
        struct sockaddr_in ipv4;
        struct sockaddr_in6 ipv6;
    } whole = {0};
    socklen_t size;
    if (is_impossible(length) || (is_impossible(address) && *length)) return -EFAULT;
    if ((int)*length < 0) return -EINVAL;
    if (family == AF_INET) {
        size = sizeof whole.ipv4;
        whole.ipv4.sin_family = AF_INET;
        whole.ipv4.sin_port = swapped(in->port);
        memcpy(&whole.ipv4.sin_addr, in->ip, 4);
    } else {
        size = sizeof whole.ipv6;
        whole.ipv6.sin6_family = AF_INET6;
        whole.ipv6.sin6_port = swapped(in->port);
        if (in->ip[0] == 0xfe && (in->ip[1] & 0xc0) == 0x80)
            whole.ipv6.sin6_scope_id = in->scope; /* link-local addresses alone have one */
        if (in->family == AF_INET) {
            memcpy(&whole.ipv6.sin6_addr, mapped_prefix, sizeof mapped_prefix);
            memcpy((uint8_t *)&whole.ipv6.sin6_addr + sizeof mapped_prefix, in->ip, 4);
        } else {
            memcpy(&whole.ipv6.sin6_addr, in->ip, 16);
        }
    }
    memcpy(address, &whole, *length < size ? *length : size);
    *length = size;
    return 0;
}

struct netcon_address address_of_name(const struct netcon_name_service *name, bool remote) {
    struct netcon_address address = {
        .family = name->family,
        .port = remote ? name->remote_port : name->local_port,
        .scope = name->scope,
    };
    memcpy(address.ip, remote ? name->remote_ip : name->local_ip, sizeof address.ip);
    return address;
}

bool address_is_mapped(const uint8_t ip[16]) { return memcmp(ip, mapped_prefix, sizeof mapped_prefix) == 0; }

struct netcon_address address_of_header(const uint8_t ip[16], uint16_t port, uint32_t scope) {
    bool mapped = address_is_mapped(ip);
    struct netcon_address address = {.family = mapped ? AF_INET : AF_INET6, .port = port, .scope = mapped ? 0 : scope};
    memcpy(address.ip, mapped ? ip + sizeof mapped_prefix : ip, mapped ? 4 : 16);
    return address;
}

void address_to_header(const struct netcon_address *in, uint8_t ip[16]) {
    if (in->family == AF_INET) {
        memcpy(ip, mapped_prefix, sizeof mapped_prefix);
        memcpy(ip + sizeof mapped_prefix, in->ip, 4);
    } else {
        memcpy(ip, in->ip, 16);
    }
}

bool address_is_loopback(const struct netcon_address *address) {
    static const uint8_t loopback[16] = {[15] = 1};
    if (address->family == AF_INET) return address->ip[0] == 127;
    if (address->family != AF_INET6) return false;
    if (address_is_mapped(address->ip)) return address->ip[12] == 127;
    return memcmp(address->ip, loopback, sizeof loopback) == 0;
}
