/* trace.h: what the intercept library tells `netcon trace` of each call.
 *
 * NETCON_TRACE in the environment is the absolute path of a SOCK_SEQPACKET socket. The library connects to it and sends one message
 * per event: this record, then up to NETCON_TRACE_BYTES_MAX bytes of what one of the call's pointers points to. It never waits:
 * what the tracer does not take is lost and counted, and a tracer that has gone ends the tracing. All integers are in host order.
 */
#ifndef NETCON_TRACE_H
#define NETCON_TRACE_H

#include <stdint.h>

#include "socket_rpc.h"

#define NETCON_TRACE_MAGIC 0x4e435452u /* "NCTR" */
#define NETCON_TRACE_VERSION 1u
#define NETCON_TRACE_BYTES_MAX 128u
#define NETCON_TRACE_NO_BYTES 255u

enum netcon_trace_phase {
    NETCON_TRACE_BEGIN = 0, /* the call begins; it may never end: execve, or the process is killed */
    NETCON_TRACE_END = 1,
};

/* Whose the socket is after the call. */
enum netcon_trace_decision {
    NETCON_TRACE_NONE = 0,    /* no socket is concerned */
    NETCON_TRACE_OTHER = 1,   /* the kernel's, of no internet family, or no socket at all */
    NETCON_TRACE_HOST = 2,    /* the kernel's */
    NETCON_TRACE_NETWORK = 3, /* the service's */
    NETCON_TRACE_GIVEN = 4,   /* was the service's before the call, and is the kernel's now */
};

struct netcon_trace_record {
    uint32_t magic;
    uint16_t version;
    uint8_t phase;
    uint8_t decision; /* END only */
    int32_t process;
    int32_t thread;
    uint64_t started_ns;  /* since 1970 */
    uint64_t duration_ns; /* END only */
    int64_t arguments[6];
    int64_t result;   /* END only: as the kernel gives it, -errno for an error */
    uint64_t network; /* of new sockets of the process; 0: whichever fits the destination */
    uint64_t socket;  /* id, family, type and protocol: if the decision is NETWORK */
    uint16_t family;
    uint16_t type;
    uint16_t protocol;
    uint8_t count; /* of arguments */
    uint8_t bytes; /* which argument the bytes behind the record belong to, or NETCON_TRACE_NO_BYTES */
    uint8_t state; /* 'L' listening, 'C' connected, 'F' failed, 0 none of them; then local and remote hold */
    uint8_t reserved[3];
    uint32_t lost; /* events of this process that could not be sent so far */
    struct netcon_address local;
    struct netcon_address remote;
    char call[24]; /* name of the function, padded with NUL */
};

#endif
