/* trace.c: see trace.h. */
#include "trace.h"

#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "kept.h"
#include "kernel.h"
#include "memory.h"
#include "names.h"

static _Atomic uint64_t kept;
static _Atomic uint32_t lost;

_Static_assert(sizeof(struct netcon_trace_record) == 200, "the layout that netcon/trace.py reads");

static uint64_t clock_ns(clockid_t clock) {
    struct timespec now = {0};
    raw(SYS_clock_gettime, clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* There is no tracer any more. Processes that are started from now on may try again: they find nobody either. */
static void stop(void) { settings.trace_path[0] = 0; }

static int dial(uint64_t *word) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, settings.trace_path, sizeof settings.trace_path);
    *word = 0;
    if (!address.sun_path[0]) return -1;
    long made = raw(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (made < 0) return -1;
    long done = raw(SYS_connect, made, &address, sizeof address);
    if (done == 0) return kept_put(&kept, (int)made, word);
    close_descriptor((int)made);
    if (done == -ENOENT || done == -ECONNREFUSED) stop();
    return -1;
}

static void send_record(struct netcon_trace_record *record, const void *bytes, size_t length) {
    uint64_t word;
    int channel = kept_get(&kept, &word);
    if (channel < 0) channel = dial(&word);
    record->lost = atomic_load(&lost);
    struct iovec parts[2] = {{record, sizeof *record}, {(void *)bytes, length}};
    struct msghdr sent = {.msg_iov = parts, .msg_iovlen = bytes && length ? 2 : 1};
    long done = channel < 0 ? channel : raw(SYS_sendmsg, channel, &sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (done == -EFAULT) {
        record->bytes = NETCON_TRACE_NO_BYTES;
        sent.msg_iovlen = 1;
        done = raw(SYS_sendmsg, channel, &sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    if (done < 0) atomic_fetch_add(&lost, 1);
    if (channel >= 0 && !word) close_descriptor(channel);
    if (done != -EPIPE && done != -ECONNRESET) return;
    if (word) kept_forget(&kept, word);
    stop();
}

static void send_event(struct trace_call *call, bool ended) {
    const struct trace_form *form = call->form;
    struct netcon_trace_record *record = &call->record;
    const void *pointer = (const void *)record->arguments[form->at];
    bool succeeded = ended && record->result >= 0;
    size_t length = 0;
    if (form->shown == TRACE_BYTES_IN) length = (size_t)record->arguments[form->at + 1];
    if (form->shown == TRACE_TEXT && !is_impossible(pointer)) length = strlen(pointer);
    if (form->shown == TRACE_BYTES_OUT && succeeded && pointer) {
        const socklen_t *out = (const socklen_t *)record->arguments[form->at + 1];
        length = out ? *out : 0;
    }
    if (form->shown == TRACE_MESSAGE_OUT && succeeded) {
        const struct msghdr *message = pointer;
        pointer = message->msg_name;
        length = message->msg_namelen;
    }
    if (length > NETCON_TRACE_BYTES_MAX) length = NETCON_TRACE_BYTES_MAX;
    record->bytes = pointer && length ? form->at : NETCON_TRACE_NO_BYTES;
    record->phase = ended ? NETCON_TRACE_END : NETCON_TRACE_BEGIN;
    send_record(record, pointer, length);
}

/* What the descriptor is now; its addresses. */
static uint8_t decision_about(struct trace_call *call, int descriptor) {
    struct netcon_trace_record *record = &call->record;
    struct netcon_name_program name;
    struct netcon_name_service service;
    if (!names_program(descriptor, &name)) {
        int family = 0;
        socklen_t length = sizeof family;
        raw(SYS_getsockopt, descriptor, SOL_SOCKET, SO_DOMAIN, &family, &length);
        if (family != AF_INET && family != AF_INET6) return NETCON_TRACE_OTHER;
        return call->was_ours ? NETCON_TRACE_GIVEN : NETCON_TRACE_HOST;
    }
    record->socket = name.socket;
    record->family = name.family;
    record->type = name.type;
    record->protocol = name.protocol;
    record->state = is_datagrams(&name) ? 0 : (uint8_t)names_service(descriptor, &service);
    if (record->state) {
        record->local = (struct netcon_address){.family = service.family, .port = service.local_port, .scope = service.scope};
        record->remote = (struct netcon_address){.family = service.family, .port = service.remote_port, .scope = service.scope};
        memcpy(record->local.ip, service.local_ip, sizeof service.local_ip);
        memcpy(record->remote.ip, service.remote_ip, sizeof service.remote_ip);
    }
    return NETCON_TRACE_NETWORK;
}

void trace_begin(struct trace_call *call, const struct trace_form *form, const long arguments[6]) {
    call->form = form;
    call->was_ours = form->of_descriptor && names_program((int)arguments[0], &(struct netcon_name_program){0});
    call->record = (struct netcon_trace_record){
        .magic = NETCON_TRACE_MAGIC,
        .version = NETCON_TRACE_VERSION,
        .process = (int32_t)raw(SYS_getpid),
        .thread = (int32_t)raw(SYS_gettid),
        .started_ns = clock_ns(CLOCK_REALTIME),
        .network = settings.network,
        .count = form->count,
    };
    memcpy(call->record.arguments, arguments, sizeof call->record.arguments);
    memcpy(call->record.call, form->call, sizeof form->call);
    call->began_ns = clock_ns(CLOCK_MONOTONIC);
    send_event(call, false);
}

long trace_end(struct trace_call *call, long returned) {
    const struct trace_form *form = call->form;
    struct netcon_trace_record *record = &call->record;
    record->duration_ns = clock_ns(CLOCK_MONOTONIC) - call->began_ns;
    record->result = returned;
    if (form->makes_descriptor && returned >= 0)
        record->decision = decision_about(call, (int)returned);
    else if (form->of_descriptor)
        record->decision = decision_about(call, (int)record->arguments[0]);
    send_event(call, true);
    return returned;
}
