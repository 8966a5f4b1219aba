/* dns.c: res_query, res_search, res_querydomain, res_send and their res_n forms, for programs that want records other than
 * addresses.
 *
 * The C library's own send from inside, on the host. Ours give the query to the service, whose answers are those that a DNS client
 * gets on port 53 by TCP; the query itself is made by the C library. res_search looks for a name of one label in the networks'
 * domains first; `search` and `options` of resolv.conf are the host's and do not count.
 */
#include <netdb.h>

#include "environment.h"
#include "kernel.h"
#include "memory.h"
#include "resolver.h"
#include "wrapped.h"

#define QUERY_MAX 512
#define NAME_ROOM 1024
#define HEADER 12 /* of a DNS message: id, flags, and four counts */
#define OPCODE_QUERY 0

extern int *__h_errno_location(void) __attribute__((weak));

typedef int mkquery_function(int, const char *, int, int, const unsigned char *, int, const unsigned char *, unsigned char *, int);
typedef int send_function(const unsigned char *, int, unsigned char *, int);
typedef int nsend_function(void *, const unsigned char *, int, unsigned char *, int);
typedef int query_function(const char *, int, int, unsigned char *, int);
typedef int nquery_function(void *, const char *, int, int, unsigned char *, int);
typedef int domain_function(const char *, const char *, int, int, unsigned char *, int);
typedef int ndomain_function(void *, const char *, const char *, int, int, unsigned char *, int);

static int fail(int error) {
    if (__h_errno_location) *__h_errno_location() = error;
    return -1;
}

/* The length of the response, or -errno. */
static long exchange(const unsigned char *query, int length, int flags, unsigned char *answer, int room) {
    if (length < HEADER || room < HEADER) return -EINVAL;
    return resolver_message(query, (size_t)length, flags, answer, (size_t)room);
}

/* -EREMOTE: the host's resolver is to answer. Otherwise what res_query returns. */
static long query(const char *name, int class, int type, int flags, unsigned char *answer, int room) {
    unsigned char message[QUERY_MAX];
    mkquery_function *make = NULL;
    *(void **)&make = resolver_real("res_mkquery");
    int length = make ? make(OPCODE_QUERY, name, class, type, NULL, 0, NULL, message, sizeof message) : -1;
    if (length < 0) return fail(NO_RECOVERY);
    long got = exchange(message, length, flags, answer, room);
    if (got == -EREMOTE) return got;
    if (got < 0) {
        result(got);
        return fail(TRY_AGAIN);
    }
    if (got < HEADER) return fail(NO_RECOVERY);
    unsigned rcode = answer[3] & 15, answers = (unsigned)answer[6] << 8 | answer[7];
    if (rcode == 0 && answers) return got;
    switch (rcode) {
    case 0:
        return fail(NO_DATA);
    case 2: /* SERVFAIL */
        return fail(TRY_AGAIN);
    case 3: /* NXDOMAIN */
        return fail(HOST_NOT_FOUND);
    default:
        return fail(NO_RECOVERY);
    }
}

/* "name.domain". NULL: too long. */
static const char *join(const char *name, const char *domain, char *buffer) {
    if (!domain || !*domain) return name;
    if (strlen(name) + 1 + strlen(domain) >= NAME_ROOM) return NULL;
    char *at = append(buffer, buffer + NAME_ROOM - 1, name);
    if (at == buffer || at[-1] != '.') at = append(at, buffer + NAME_ROOM - 1, ".");
    append(at, buffer + NAME_ROOM - 1, domain);
    return buffer;
}

int wrapped_res_send(const unsigned char *message, int length, unsigned char *answer, int room) {
    long got = is_active() ? exchange(message, length, 0, answer, room) : -EREMOTE;
    if (got != -EREMOTE) return (int)result(got);
    send_function *function = NULL;
    *(void **)&function = resolver_real("res_send");
    return function ? function(message, length, answer, room) : (int)result(-ENOSYS);
}

int wrapped_res_nsend(void *state, const unsigned char *message, int length, unsigned char *answer, int room) {
    long got = is_active() ? exchange(message, length, 0, answer, room) : -EREMOTE;
    if (got != -EREMOTE) return (int)result(got);
    nsend_function *function = NULL;
    *(void **)&function = resolver_real("res_nsend");
    return function ? function(state, message, length, answer, room) : (int)result(-ENOSYS);
}

static int query_or_real(const char *symbol, const char *name, int class, int type, unsigned char *answer, int room, int flags) {
    long got = is_active() ? query(name, class, type, flags, answer, room) : -EREMOTE;
    if (got != -EREMOTE) return (int)got;
    query_function *function = NULL;
    *(void **)&function = resolver_real(symbol);
    return function ? function(name, class, type, answer, room) : fail(NO_RECOVERY);
}

static int nquery_or_real(const char *symbol, void *state, const char *name, int class, int type, unsigned char *answer, int room,
                          int flags) {
    long got = is_active() ? query(name, class, type, flags, answer, room) : -EREMOTE;
    if (got != -EREMOTE) return (int)got;
    nquery_function *function = NULL;
    *(void **)&function = resolver_real(symbol);
    return function ? function(state, name, class, type, answer, room) : fail(NO_RECOVERY);
}

int wrapped_res_query(const char *name, int class, int type, unsigned char *answer, int room) {
    return query_or_real("res_query", name, class, type, answer, room, 0);
}

int wrapped_res_search(const char *name, int class, int type, unsigned char *answer, int room) {
    return query_or_real("res_search", name, class, type, answer, room, NETCON_RESOLVE_SEARCH);
}

int wrapped_res_nquery(void *state, const char *name, int class, int type, unsigned char *answer, int room) {
    return nquery_or_real("res_nquery", state, name, class, type, answer, room, 0);
}

int wrapped_res_nsearch(void *state, const char *name, int class, int type, unsigned char *answer, int room) {
    return nquery_or_real("res_nsearch", state, name, class, type, answer, room, NETCON_RESOLVE_SEARCH);
}

int wrapped_res_querydomain(const char *name, const char *domain, int class, int type, unsigned char *answer, int room) {
    char whole[NAME_ROOM];
    const char *joined = join(name, domain, whole);
    long got = is_active() ? joined ? query(joined, class, type, 0, answer, room) : fail(NO_RECOVERY) : -EREMOTE;
    if (got != -EREMOTE) return (int)got;
    domain_function *function = NULL;
    *(void **)&function = resolver_real("res_querydomain");
    return function ? function(name, domain, class, type, answer, room) : fail(NO_RECOVERY);
}

int wrapped_res_nquerydomain(void *state, const char *name, const char *domain, int class, int type, unsigned char *answer,
                             int room) {
    char whole[NAME_ROOM];
    const char *joined = join(name, domain, whole);
    long got = is_active() ? joined ? query(joined, class, type, 0, answer, room) : fail(NO_RECOVERY) : -EREMOTE;
    if (got != -EREMOTE) return (int)got;
    ndomain_function *function = NULL;
    *(void **)&function = resolver_real("res_nquerydomain");
    return function ? function(state, name, domain, class, type, answer, room) : fail(NO_RECOVERY);
}

/* Look-ups on threads of the C library's, which ask the host from inside. The documented "no resources now" makes callers use the
 * plain function. */
int wrapped_getaddrinfo_a(int mode, struct gaicb *list[], int count, void *event) {
    typedef int async_function(int, struct gaicb *[], int, void *);
    if (is_active()) return EAI_AGAIN;
    async_function *function = NULL;
    *(void **)&function = resolver_real("getaddrinfo_a");
    return function ? function(mode, list, count, event) : EAI_FAIL;
}
