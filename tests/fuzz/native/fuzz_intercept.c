/* fuzz_intercept.c: what the library reads that others wrote: control data and addresses of the program, names of descriptors, the
 * policy of a run. The first byte says which. */
#include <netcon/policy.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "address.h"
#include "ancillary.h"
#include "names.h"

/* A copy of exactly its length, so that AddressSanitizer sees the byte behind it. */
static void *copy(const uint8_t *data, size_t size) {
    void *made = malloc(size ? size : 1);
    if (size) memcpy(made, data, size);
    return made;
}

static void control_data(const uint8_t *data, size_t size, unsigned how) {
    struct netcon_datagram_header header = {0};
    struct msghdr message = {.msg_control = copy(data, size), .msg_controllen = size};
    ancillary_read(&header, &message, how & 1 ? AF_INET6 : AF_INET, how & 2);
    free(message.msg_control);
    if (size < sizeof header) return;
    memcpy(&header, data, sizeof header);
    size_t room = (data[size - 1] * 2u) % 300;
    message.msg_control = malloc(room + 1);
    message.msg_controllen = room;
    ancillary_write(&message, &header, how & 1 ? AF_INET6 : AF_INET);
    if (message.msg_controllen > room) abort();
    free(message.msg_control);
}

static void addresses(const uint8_t *data, size_t size, unsigned how) {
    struct netcon_address address = {0};
    if (!size) return;
    struct sockaddr *given = copy(data, size);
    uint16_t family = how & 1 ? AF_INET6 : AF_INET;
    long done = address_of_destination(&address, family, given, (socklen_t)size);
    free(given);
    if (done) return;
    struct sockaddr *out = malloc(how >> 2 ? how >> 2 : 1);
    socklen_t length = how >> 2;
    address_write(&address, family, out, &length);
    free(out);
}

/* Names that anybody may have bound. */
static void names(const uint8_t *data, size_t size, unsigned how) {
    int pair[2];
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    if (size > sizeof name.sun_path - 6) size = sizeof name.sun_path - 6;
    memcpy(name.sun_path, "\0znc1", 5);
    name.sun_path[5] = "PLCFDX"[how % 6];
    if (size) memcpy(name.sun_path + 6, data, size);
    if (socketpair(AF_UNIX, how & 128 ? SOCK_STREAM : SOCK_SEQPACKET, 0, pair) != 0) return;
    if (bind(pair[0], (struct sockaddr *)&name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 6 + size)) == 0) {
        struct netcon_name_program program;
        struct netcon_name_service service;
        names_program(pair[0], &program);
        names_datagrams(pair[0], &program);
        if (names_service(pair[1], &service)) {
            address_of_name(&service, false);
            address_of_name(&service, true);
        }
    }
    close(pair[0]);
    close(pair[1]);
}

static void policy(const uint8_t *data, size_t size) {
    struct netcon_policy *table = calloc(1, sizeof *table);
    memcpy(table, data, size < sizeof *table ? size : sizeof *table);
    if (netcon_policy_is_valid(table, size) && size) {
        uint8_t ip[16];
        for (unsigned i = 0; i < 16; i++)
            ip[i] = data[i % size];
        netcon_policy_match(table, NETCON_POLICY_CONNECT, NETCON_POLICY_TCP, ip, (uint16_t)size);
        for (unsigned i = 0; i < table->count; i++)
            netcon_policy_match(table, NETCON_POLICY_BIND, NETCON_POLICY_UDP, table->rules[i].ip, table->rules[i].first_port);
    }
    free(table);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    switch (data[0] & 3) {
    case 0:
        control_data(data + 2, size - 2, data[1]);
        break;
    case 1:
        addresses(data + 2, size - 2, data[1]);
        break;
    case 2:
        names(data + 2, size - 2, data[1]);
        break;
    default:
        policy(data + 2, size - 2);
    }
    return 0;
}
