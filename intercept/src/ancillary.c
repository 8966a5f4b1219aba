/* ancillary.c: see ancillary.h. The order and the sizes of what is given are the kernel's. */
#include "ancillary.h"

#include <netinet/in.h>
#include <time.h>

#include "address.h"
#include "kernel.h"
#include "memory.h"

#ifndef SCM_TIMESTAMPNS
#define SCM_TIMESTAMPNS SO_TIMESTAMPNS
#endif

/* As put_cmsg of the kernel: what does not fit is cut. */
static void put(struct msghdr *message, char **at, int level, int type, const void *data, size_t length) {
    struct cmsghdr header = {.cmsg_len = CMSG_LEN(length), .cmsg_level = level, .cmsg_type = type};
    size_t room = message->msg_controllen;
    if (!message->msg_control || room < sizeof header) {
        message->msg_flags |= MSG_CTRUNC;
        return;
    }
    if (room < header.cmsg_len) {
        message->msg_flags |= MSG_CTRUNC;
        header.cmsg_len = room;
    }
    memcpy(*at, &header, sizeof header);
    memcpy(*at + sizeof header, data, header.cmsg_len - sizeof header);
    size_t taken = CMSG_SPACE(length) < room ? CMSG_SPACE(length) : room;
    *at += taken;
    message->msg_controllen -= taken;
}

static void put_time(struct msghdr *message, char **at, bool nanoseconds) {
    struct timespec now = {0};
    raw(SYS_clock_gettime, CLOCK_REALTIME, &now);
    if (nanoseconds)
        put(message, at, SOL_SOCKET, SCM_TIMESTAMPNS, &now, sizeof now);
    else
        put(message, at, SOL_SOCKET, SCM_TIMESTAMP, &(struct timeval){now.tv_sec, now.tv_nsec / 1000}, sizeof(struct timeval));
}

static void put_local(struct msghdr *message, char **at, const struct netcon_datagram_header *header, uint16_t family) {
    if (family == AF_INET6) { /* datagrams from IPv4, too: the address is a mapped one */
        struct in6_pktinfo info = {.ipi6_ifindex = header->interface};
        memcpy(&info.ipi6_addr, header->local, sizeof header->local);
        put(message, at, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
    } else {
        struct in_pktinfo info = {.ipi_ifindex = header->interface};
        memcpy(&info.ipi_addr, header->local + 12, 4);
        /* The local address to answer from: of a group or a broadcast there is none in the header, and any will do. */
        if (header->local[12] < 224) info.ipi_spec_dst = info.ipi_addr;
        put(message, at, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
    }
}

void ancillary_write(struct msghdr *message, const struct netcon_datagram_header *header, uint16_t family) {
    char *at = message->msg_control;
    bool ipv6 = family == AF_INET6 && !address_is_mapped(header->peer);
    int number;
    if (header->flags & NETCON_DATAGRAM_STAMP) put_time(message, &at, header->flags & NETCON_DATAGRAM_STAMP_NS);
    if (header->flags & NETCON_DATAGRAM_LOCAL) put_local(message, &at, header, family);
    if (header->flags & NETCON_DATAGRAM_TTL) {
        number = header->ttl;
        put(message, &at, ipv6 ? IPPROTO_IPV6 : IPPROTO_IP, ipv6 ? IPV6_HOPLIMIT : IP_TTL, &number, sizeof number);
    }
    if (header->flags & NETCON_DATAGRAM_TOS) {
        number = header->tos;
        if (ipv6)
            put(message, &at, IPPROTO_IPV6, IPV6_TCLASS, &number, sizeof number);
        else
            put(message, &at, IPPROTO_IP, IP_TOS, &header->tos, sizeof header->tos);
    }
    message->msg_controllen = message->msg_control ? (size_t)(at - (char *)message->msg_control) : 0;
}

/* An int, or for IP_TOS one byte. Returns false if the length is another one or the value not in lowest..255. */
static bool take_number(const struct cmsghdr *item, const void *data, size_t length, int lowest, int *value) {
    if (length == sizeof *value)
        memcpy(value, data, sizeof *value);
    else if (length == 1 && item->cmsg_level == IPPROTO_IP && item->cmsg_type == IP_TOS)
        *value = *(const uint8_t *)data;
    else
        return false;
    return *value >= lowest && *value <= 255;
}

static void set_ttl(struct netcon_datagram_header *header, int value) {
    if (value < 0) return; /* IPV6_HOPLIMIT -1: the socket's own */
    header->ttl = (uint8_t)value;
    header->flags |= NETCON_DATAGRAM_TTL;
}

static void set_tos(struct netcon_datagram_header *header, int value) {
    if (value < 0) return;
    header->tos = (uint8_t)value;
    header->flags |= NETCON_DATAGRAM_TOS;
}

static long take_pktinfo6(struct netcon_datagram_header *header, const void *data, size_t length, bool to_ipv4) {
    struct in6_pktinfo info;
    static const uint8_t any[16];
    if (length < sizeof info) return -EINVAL;
    memcpy(&info, data, sizeof info);
    /* A datagram to an IPv4 address leaves from one, and one to IPv6 from an IPv6 address. */
    bool is_any = memcmp(&info.ipi6_addr, any, sizeof any) == 0;
    if (!is_any && address_is_mapped((const uint8_t *)&info.ipi6_addr) != to_ipv4) return -EINVAL;
    header->interface = (uint16_t)info.ipi6_ifindex;
    memcpy(header->local, &info.ipi6_addr, sizeof header->local);
    header->flags |= NETCON_DATAGRAM_LOCAL;
    return 0;
}

static long take_ipv4(struct netcon_datagram_header *header, const struct cmsghdr *item, const void *data, size_t length) {
    int number;
    struct in_pktinfo info;
    switch (item->cmsg_type) {
    case IP_PKTINFO:
        if (length != sizeof info) return -EINVAL;
        memcpy(&info, data, sizeof info);
        header->interface = (uint16_t)info.ipi_ifindex;
        address_to_header(&(struct netcon_address){.family = AF_INET}, header->local);
        memcpy(header->local + 12, &info.ipi_spec_dst, 4);
        if (!info.ipi_spec_dst.s_addr) memset(header->local, 0, sizeof header->local);
        header->flags |= NETCON_DATAGRAM_LOCAL;
        return 0;
    case IP_TTL:
        if (!take_number(item, data, length, 1, &number)) return -EINVAL;
        set_ttl(header, number);
        return 0;
    case IP_TOS:
        if (!take_number(item, data, length, 0, &number)) return -EINVAL;
        set_tos(header, number);
        return 0;
    default:
        return -EINVAL;
    }
}

static long take_ipv6(struct netcon_datagram_header *header, const struct cmsghdr *item, const void *data, size_t length) {
    int number;
    switch (item->cmsg_type) {
    case IPV6_PKTINFO:
        return take_pktinfo6(header, data, length, false);
    case IPV6_HOPLIMIT:
        if (!take_number(item, data, length, -1, &number)) return -EINVAL;
        set_ttl(header, number);
        return 0;
    case IPV6_TCLASS:
        if (!take_number(item, data, length, -1, &number)) return -EINVAL;
        set_tos(header, number);
        return 0;
    case IPV6_DONTFRAG:
        return take_number(item, data, length, 0, &number) && number <= 1 ? 0 : -EINVAL;
    default:
        return -EINVAL;
    }
}

static long take(struct netcon_datagram_header *header, const struct cmsghdr *item, const void *data, size_t length,
                 uint16_t family, bool to_ipv4) {
    switch (item->cmsg_level) {
    case SOL_SOCKET: /* descriptors and credentials mean nothing here, and the service's end must not get them */
        if (item->cmsg_type == SCM_RIGHTS || item->cmsg_type == SCM_CREDENTIALS) return 0;
        return item->cmsg_type == SO_MARK ? -EPERM : -EINVAL;
    case IPPROTO_IP:
        return to_ipv4 ? take_ipv4(header, item, data, length) : 0;
    case IPPROTO_IPV6:
        if (!to_ipv4) return take_ipv6(header, item, data, length);
        return family == AF_INET6 && item->cmsg_type == IPV6_PKTINFO ? take_pktinfo6(header, data, length, true) : 0;
    case IPPROTO_UDP: /* UDP_SEGMENT */
        return -EINVAL;
    default:
        return 0;
    }
}

long ancillary_read(struct netcon_datagram_header *header, const struct msghdr *message, uint16_t family, bool to_ipv4) {
    const char *at = message->msg_control;
    size_t left = at ? message->msg_controllen : 0;
    while (left >= sizeof(struct cmsghdr)) {
        struct cmsghdr item;
        memcpy(&item, at, sizeof item);
        size_t length = (uint32_t)item.cmsg_len; /* in musl's struct the other half is padding */
        if (length < sizeof item || length > left) return -EINVAL;
        long done = take(header, &item, at + sizeof item, length - sizeof item, family, to_ipv4);
        if (done < 0) return done;
        size_t taken = CMSG_ALIGN(length);
        if (taken >= left) break;
        at += taken;
        left -= taken;
    }
    return 0;
}
