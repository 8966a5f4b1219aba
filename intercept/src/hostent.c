/* hostent.c: gethostbyname, gethostbyname2, gethostbyaddr and their _r forms.
 *
 * The plain forms answer in one static buffer each, as the C libraries do (POSIX: they need not be thread-safe). When policy sends
 * a name to the host's resolver, the C library's function of the same name answers.
 */
#include <netdb.h>
#include <sys/socket.h>

#include "environment.h"
#include "kernel.h"
#include "memory.h"
#include "resolver.h"
#include "trace.h"
#include "wrapped.h"

#define STATIC_ROOM 4096

extern int *__h_errno_location(void) __attribute__((weak));

typedef struct hostent *byname_function(const char *);
typedef struct hostent *byname2_function(const char *, int);
typedef struct hostent *byaddr_function(const void *, socklen_t, int);
typedef int byname_r_function(const char *, struct hostent *, char *, size_t, struct hostent **, int *);
typedef int byname2_r_function(const char *, int, struct hostent *, char *, size_t, struct hostent **, int *);
typedef int byaddr_r_function(const void *, socklen_t, int, struct hostent *, char *, size_t, struct hostent **, int *);
typedef int pton_function(int, const char *, void *);
typedef int aton_function(const char *, void *);

/* Where an answer goes. */
struct place {
    struct hostent *host;
    char *buffer;
    size_t room;
    int *error; /* h_errno */
};

enum { GO_TO_HOST = -1 }; /* the real function is to answer */

static void set_h_errno(int error) {
    if (__h_errno_location) *__h_errno_location() = error;
}

/* A number is its own name. */
static bool numeric(const char *name, int family, struct resolved *found) {
    pton_function *pton = NULL;
    aton_function *aton = NULL;
    *(void **)&pton = resolver_real("inet_pton");
    *(void **)&aton = resolver_real("inet_aton");
    *found = (struct resolved){.count = 1, .addresses = {{.family = (uint16_t)family}}};
    uint8_t *ip = found->addresses[0].ip;
    if (family == AF_INET ? !aton || !aton(name, ip) : !pton || pton(family, name, ip) != 1) return false;
    append(found->name, found->name + sizeof found->name - 1, name);
    return true;
}

/* Lays out: the pointers of both lists, the addresses, the names. Return: 0, or ERANGE. */
static int fill(const struct resolved *found, int family, const char *asked, struct place *place) {
    size_t width = resolver_width(family), count = 0;
    for (unsigned i = 0; i < found->count; i++)
        count += found->addresses[i].family == family;
    const char *name = found->name[0] ? found->name : asked;
    bool alias = asked && (strlen(asked) != strlen(name) || memcmp(asked, name, strlen(name)) != 0);
    size_t skip = -(uintptr_t)place->buffer & (sizeof(char *) - 1);
    size_t pointers = (count + 1 + 2) * sizeof(char *);
    size_t need = skip + pointers + count * width + strlen(name) + 1 + (alias ? strlen(asked) + 1 : 0);
    if (need > place->room) return ERANGE;
    char **list = (char **)(place->buffer + skip), **aliases = list + count + 1;
    char *at = (char *)(aliases + 2);
    size_t next = 0;
    for (unsigned i = 0; i < found->count; i++) {
        if (found->addresses[i].family != family) continue;
        list[next++] = memcpy(at, found->addresses[i].ip, width);
        at += width;
    }
    list[next] = NULL;
    *place->host =
        (struct hostent){.h_aliases = aliases, .h_addrtype = family, .h_length = (int)width, .h_addr_list = list, .h_name = at};
    memcpy(at, name, strlen(name) + 1);
    at += strlen(name) + 1;
    aliases[0] = alias ? memcpy(at, asked, strlen(asked) + 1) : NULL;
    aliases[1] = NULL;
    return 0;
}

/* Turns what was found into the result of an _r function: 0 (with or without a host), an errno, or GO_TO_HOST. */
static int conclude(long done, const struct resolved *found, int family, const char *asked, struct place *place,
                    struct hostent **out) {
    *out = NULL;
    if (done < 0) {
        bool ours = done == -EMFILE || done == -ENFILE;
        *place->error = ours ? NETDB_INTERNAL : TRY_AGAIN;
        return ours ? (int)-done : EAGAIN;
    }
    switch (found->status) {
    case NETCON_RESOLVE_FOUND:
        if (fill(found, family, asked, place)) {
            *place->error = NETDB_INTERNAL;
            return ERANGE;
        }
        *place->error = 0;
        *out = place->host;
        return 0;
    case NETCON_RESOLVE_HOST:
        return GO_TO_HOST;
    case NETCON_RESOLVE_AGAIN:
        *place->error = TRY_AGAIN;
        return EAGAIN;
    case NETCON_RESOLVE_FAILED:
        *place->error = NO_RECOVERY;
        return EBADMSG;
    default:
        *place->error = found->status == NETCON_RESOLVE_NO_DATA ? NO_DATA : HOST_NOT_FOUND;
        return 0;
    }
}

static int find_name(const char *name, int family, struct place *place, struct hostent **out) {
    struct resolved found;
    *out = NULL;
    if (family != AF_INET && family != AF_INET6) {
        *place->error = NETDB_INTERNAL;
        return EAFNOSUPPORT;
    }
    if (numeric(name, family, &found)) return conclude(0, &found, family, NULL, place, out);
    long done = resolver_name(name, family, 0, &found);
    return conclude(done, &found, family, name, place, out);
}

static int find_address(const void *ip, socklen_t length, int family, struct place *place, struct hostent **out) {
    struct resolved found;
    *out = NULL;
    if ((family != AF_INET && family != AF_INET6) || length != resolver_width(family)) {
        *place->error = NETDB_INTERNAL;
        return EINVAL;
    }
    long done = resolver_address(family, ip, &found);
    if (done == 0 && found.status == NETCON_RESOLVE_FOUND && !found.name[0]) found.status = NETCON_RESOLVE_NO_DATA;
    if (done == 0 && found.status == NETCON_RESOLVE_FOUND) {
        found.count = 1;
        found.addresses[0] = (struct netcon_resolved_address){.family = (uint16_t)family};
        memcpy(found.addresses[0].ip, ip, length);
    }
    return conclude(done, &found, family, NULL, place, out);
}

/* For a trace: 0, or -h_errno, or (NETDB_INTERNAL) -errno. */
static long shown(int done, const struct place *place, struct hostent *out) {
    return out || done == GO_TO_HOST ? 0 : *place->error > 0 ? -*place->error : -done;
}

static int by_name(const char *name, int family, struct place *place, struct hostent **out) {
    static const struct trace_form form = {.call = "gethostbyname", .count = 2, .shown = TRACE_TEXT};
    struct trace_call call;
    if (!is_traced()) return find_name(name, family, place, out);
    trace_begin(&call, &form, (const long[6]){(long)name, family});
    int done = find_name(name, family, place, out);
    trace_end(&call, shown(done, place, *out));
    return done;
}

static int by_address(const void *ip, socklen_t length, int family, struct place *place, struct hostent **out) {
    static const struct trace_form form = {.call = "gethostbyaddr", .count = 3, .shown = TRACE_BYTES_IN};
    struct trace_call call;
    if (!is_traced()) return find_address(ip, length, family, place, out);
    trace_begin(&call, &form, (const long[6]){(long)ip, length, family});
    int done = find_address(ip, length, family, place, out);
    trace_end(&call, shown(done, place, *out));
    return done;
}

int wrapped_gethostbyname2_r(const char *name, int family, struct hostent *host, char *buffer, size_t room, struct hostent **out,
                             int *error) {
    struct place place = {host, buffer, room, error};
    int done = is_active() ? by_name(name, family, &place, out) : GO_TO_HOST;
    if (done != GO_TO_HOST) return done;
    byname2_r_function *function = NULL;
    *(void **)&function = resolver_real("gethostbyname2_r");
    return function ? function(name, family, host, buffer, room, out, error) : ENOSYS;
}

int wrapped_gethostbyname_r(const char *name, struct hostent *host, char *buffer, size_t room, struct hostent **out, int *error) {
    struct place place = {host, buffer, room, error};
    int done = is_active() ? by_name(name, AF_INET, &place, out) : GO_TO_HOST;
    if (done != GO_TO_HOST) return done;
    byname_r_function *function = NULL;
    *(void **)&function = resolver_real("gethostbyname_r");
    return function ? function(name, host, buffer, room, out, error) : ENOSYS;
}

int wrapped_gethostbyaddr_r(const void *ip, socklen_t length, int family, struct hostent *host, char *buffer, size_t room,
                            struct hostent **out, int *error) {
    struct place place = {host, buffer, room, error};
    int done = is_active() ? by_address(ip, length, family, &place, out) : GO_TO_HOST;
    if (done != GO_TO_HOST) return done;
    byaddr_r_function *function = NULL;
    *(void **)&function = resolver_real("gethostbyaddr_r");
    return function ? function(ip, length, family, host, buffer, room, out, error) : ENOSYS;
}

/* Of a plain form: h_errno, errno, and the host. */
static struct hostent *finish(int done, struct hostent *out, int error) {
    set_h_errno(error);
    if (done) result(-done);
    return out;
}

struct hostent *wrapped_gethostbyname(const char *name) {
    static struct hostent host;
    static char buffer[STATIC_ROOM];
    struct hostent *out = NULL;
    int error = 0;
    struct place place = {&host, buffer, sizeof buffer, &error};
    int done = is_active() ? by_name(name, AF_INET, &place, &out) : GO_TO_HOST;
    if (done != GO_TO_HOST) return finish(done, out, error);
    byname_function *function = NULL;
    *(void **)&function = resolver_real("gethostbyname");
    return function ? function(name) : NULL;
}

struct hostent *wrapped_gethostbyname2(const char *name, int family) {
    static struct hostent host;
    static char buffer[STATIC_ROOM];
    struct hostent *out = NULL;
    int error = 0;
    struct place place = {&host, buffer, sizeof buffer, &error};
    int done = is_active() ? by_name(name, family, &place, &out) : GO_TO_HOST;
    if (done != GO_TO_HOST) return finish(done, out, error);
    byname2_function *function = NULL;
    *(void **)&function = resolver_real("gethostbyname2");
    return function ? function(name, family) : NULL;
}

struct hostent *wrapped_gethostbyaddr(const void *ip, socklen_t length, int family) {
    static struct hostent host;
    static char buffer[STATIC_ROOM];
    struct hostent *out = NULL;
    int error = 0;
    struct place place = {&host, buffer, sizeof buffer, &error};
    int done = is_active() ? by_address(ip, length, family, &place, &out) : GO_TO_HOST;
    if (done != GO_TO_HOST) return finish(done, out, error);
    byaddr_function *function = NULL;
    *(void **)&function = resolver_real("gethostbyaddr");
    return function ? function(ip, length, family) : NULL;
}
