/* trace.h: telling `netcon trace` of each call (include/netcon/trace.h). Without a tracer it costs one branch.
 *
 * What a pointer of the program points to is never read here: the kernel copies it into the message, so that a bad one costs
 * nothing but the bytes. Only a message header and a length are read, after a call that has succeeded and so has read them itself.
 */
#ifndef NETCON_INTERCEPT_TRACE_H
#define NETCON_INTERCEPT_TRACE_H

#include <netcon/trace.h>
#include <stdbool.h>

#include "environment.h"

/* What of a call is shown: the argument `at` and those behind it. */
enum trace_shown {
    TRACE_NO_BYTES,
    TRACE_BYTES_IN,    /* a pointer, then a length */
    TRACE_BYTES_OUT,   /* a pointer, then a pointer to a length: once the call has succeeded */
    TRACE_MESSAGE_OUT, /* a struct msghdr: its address, once the call has succeeded */
    TRACE_TEXT,        /* a string */
};

struct trace_form {
    char call[24];
    uint8_t count; /* of arguments */
    uint8_t shown; /* enum trace_shown */
    uint8_t at;
    bool of_descriptor;    /* the first argument is a descriptor */
    bool makes_descriptor; /* so is the result */
};

/* A call that is under way. */
struct trace_call {
    const struct trace_form *form;
    bool was_ours;
    uint64_t began_ns; /* on the clock that never goes back */
    struct netcon_trace_record record;
};

static inline bool is_traced(void) { return __builtin_expect(settings.trace_path[0] != 0, 0); }

void trace_begin(struct trace_call *call, const struct trace_form *form, const long arguments[6]);
/* Returns `returned`. */
long trace_end(struct trace_call *call, long returned);

#endif
