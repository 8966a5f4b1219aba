/* exec.c: starting programs.
 *
 * A program that is started by one of ours must be one of ours: sshd, supervisors and tests build the environment of their
 * children anew. What is added to it is LD_PRELOAD and the ZT_NC_* and NETCON_* variables of this process, as they were when the
 * library was loaded, and nothing else; a variable that the program sets itself stays as it sets it, but for LD_PRELOAD, in
 * front of which the kept value is put.
 *
 * A program that runs with other rights than its caller (set-user-id, set-group-id, file capabilities) ignores LD_PRELOAD and
 * would silently use the host's network. It is refused with EPERM and one line; and all are, with E2BIG, if not everything that
 * they need could be kept.
 *
 * The new environment is made on the stack: this code runs in children of vfork and in signal handlers.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <stdarg.h>
#include <sys/stat.h>

#include "environment.h"
#include "kernel.h"
#include "memory.h"
#include "trace.h"
#include "wrapped.h"

#define SCRIPT_DEPTH_MAX 4 /* as the kernel: an interpreter may be a script */
#define SHEBANG_MAX 256    /* BINPRM_BUF_SIZE */

extern void *dlsym(void *restrict handle, const char *restrict symbol) __attribute__((weak));

/* Length of "NAME=" in a kept variable. */
static size_t name_length(const char *variable) {
    size_t length = 0;
    while (variable[length] && variable[length] != '=')
        length++;
    return length + 1;
}

static int find(char *const environment[], const char *variable) {
    size_t length = name_length(variable);
    for (int i = 0; environment && environment[i]; i++)
        if (memcmp(environment[i], variable, length) == 0) /* stops at the first difference, a NUL too */
            return i;
    return -1;
}

static int count_of(char *const list[]) {
    int count = 0;
    while (list && list[count])
        count++;
    return count;
}

static const char *preload_kept(void) {
    for (int i = 0; i < kept_count; i++)
        if (starts_with(kept_variables[i], "LD_PRELOAD=")) return kept_variables[i];
    return NULL;
}

/* Room for the combined LD_PRELOAD, at least 1. */
static size_t preload_room(char *const environment[]) {
    const char *kept = preload_kept();
    int given = kept ? find(environment, kept) : -1;
    return given < 0 ? 1 : strlen(kept) + strlen(environment[given]) + 2;
}

/* Fills `out`, which has room for both lists and a NULL, with the environment of a new program. */
static void make_environment(char *const given[], char **out, char *preload, size_t room) {
    int count = count_of(given);
    for (int i = 0; i < count; i++)
        out[i] = given[i];
    for (int i = 0; i < kept_count; i++) {
        const char *kept = kept_variables[i];
        int at = find(given, kept);
        if (at < 0) {
            out[count++] = (char *)kept;
        } else if (kept == preload_kept()) {
            const char *value = given[at] + name_length(kept);
            if (list_contains(value, kept + name_length(kept))) continue;
            char *end = append(preload, preload + room, kept);
            if (*value) append(append(end, preload + room, ":"), preload + room, value);
            out[at] = preload;
        }
    }
    out[count] = NULL;
}

#define WITH_KEPT(made, given)                                                                                                     \
    size_t made##_room = preload_room(given);                                                                                      \
    char made##_preload[made##_room];                                                                                              \
    char *made[count_of(given) + KEPT_MAX + 1];                                                                                    \
    make_environment(given, made, made##_preload, made##_room)

/* Reads the interpreter of a script into `interpreter`. */
static bool read_interpreter(const char *path, char interpreter[SHEBANG_MAX]) {
    char head[SHEBANG_MAX];
    long descriptor = raw(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) return false; /* executable but not readable: no script */
    long length = raw(SYS_read, descriptor, head, sizeof head - 1);
    close_descriptor((int)descriptor);
    if (length < 3 || head[0] != '#' || head[1] != '!') return false;
    head[length] = 0;
    const char *at = head + 2;
    while (*at == ' ' || *at == '\t')
        at++;
    char *out = interpreter;
    while (*at && *at != ' ' && *at != '\t' && *at != '\n')
        *out++ = *at++;
    *out = 0;
    return out > interpreter;
}

/* Would the kernel run this file with other rights than ours (AT_SECURE)? */
static bool ignores_preload(const char *path) {
    char here[SHEBANG_MAX], next[SHEBANG_MAX];
    struct stat status;
    for (int depth = 0;; depth++) {
        if (raw(SYS_newfstatat, AT_FDCWD, path, &status, 0) != 0 || !S_ISREG(status.st_mode))
            return false; /* execve itself says what is wrong */
        if (depth > SCRIPT_DEPTH_MAX || !read_interpreter(path, next)) break;
        memcpy(here, next, sizeof here);
        path = here;
    }
    if ((status.st_mode & S_ISUID) && (long)status.st_uid != raw(SYS_getuid)) return true;
    if ((status.st_mode & S_ISGID) && (status.st_mode & S_IXGRP) && (long)status.st_gid != raw(SYS_getgid)) return true;
    return raw(SYS_getuid) != 0 && raw(SYS_getxattr, path, "security.capability", NULL, 0) > 0;
}

/* 0, or why a program is not started, with one line. */
static long refusal(const char *path) {
    if (kept_too_much) {
        complain_always(path,
                        "not started: it would lack some of LD_PRELOAD, ZT_NC_* and NETCON_*, which are too many or too long");
        return -E2BIG;
    }
    if (!path || !ignores_preload(path)) return 0;
    complain_always(path,
                    "not started: it has set-user-id, set-group-id or file capabilities, ignores LD_PRELOAD, and would use the "
                    "host's network (start it outside of netcon, or use a copy without them)");
    return -EPERM;
}

long virtual_execve(const char *path, char *const arguments[], char *const environment[]) {
    long refused = refusal(path);
    if (refused) return refused;
    WITH_KEPT(made, environment);
    return raw(SYS_execve, path, arguments, made);
}

long virtual_execveat(int directory, const char *path, char *const arguments[], char *const environment[], int flags) {
    char whole[PATH_MAX];
    const char *looked_at = path;
    if (path && path[0] != '/' && directory != AT_FDCWD) {
        char *at = append(whole, whole + sizeof whole, "/proc/self/fd/");
        at = append_number(at, whole + sizeof whole, (unsigned int)directory);
        if (*path) append(append(at, whole + sizeof whole, "/"), whole + sizeof whole, path);
        looked_at = whole;
    }
    long refused = refusal(looked_at);
    if (refused) return refused;
    WITH_KEPT(made, environment);
    return raw(SYS_execveat, directory, path, arguments, made, flags);
}

static long execute(const char *path, char *const arguments[], char *const environment[]) {
    return is_active() ? entered_execve(path, arguments, environment) : raw(SYS_execve, path, arguments, environment);
}

/* A file that is no program the kernel knows is a script of the shell (POSIX). */
static long execute_or_script(const char *path, char *const arguments[], char *const environment[]) {
    long done = execute(path, arguments, environment);
    if (done != -ENOEXEC) return done;
    int count = count_of(arguments);
    char *script[count + 3];
    script[0] = "/bin/sh";
    script[1] = (char *)path;
    for (int i = 1; i < count; i++)
        script[i + 1] = arguments[i];
    script[count > 0 ? count + 1 : 2] = NULL;
    return execute(script[0], script, environment);
}

static const char *search_path(void) {
    char **environment = current_environment();
    int at = environment ? find(environment, "PATH=") : -1;
    return at < 0 ? "/bin:/usr/bin" : environment[at] + 5;
}

/* Writes the next candidate of a search into `out`. Returns where the search goes on, or NULL at its end. */
static const char *next_candidate(const char *list, const char *file, char out[PATH_MAX]) {
    size_t length = 0;
    while (list[length] && list[length] != ':')
        length++;
    const char *folder = length ? list : ".";
    size_t room = length ? length : 1;
    out[0] = 0;
    if (room + strlen(file) + 2 < PATH_MAX) {
        memcpy(out, folder, room);
        out[room] = '/';
        append(out + room + 1, out + PATH_MAX, file);
    }
    return list[length] ? list + length + 1 : NULL;
}

static bool contains_slash(const char *file) {
    while (*file && *file != '/')
        file++;
    return *file == '/';
}

static long search_and_execute(const char *file, char *const arguments[], char *const environment[]) {
    char path[PATH_MAX];
    if (!file || !*file) return -ENOENT;
    if (contains_slash(file)) return execute_or_script(file, arguments, environment);
    long seen = -ENOENT;
    for (const char *list = search_path(); list;) {
        list = next_candidate(list, file, path);
        if (!path[0]) continue;
        long done = execute_or_script(path, arguments, environment);
        switch (done) {
        case -EACCES:
            seen = done;
            break;
        case -ENOENT:
        case -ENOTDIR:
        case -ESTALE:
        case -ENODEV:
        case -ETIMEDOUT:
            break;
        default:
            return done;
        }
    }
    return seen;
}

int wrapped_execv(const char *path, char *const arguments[]) {
    return (int)result(execute(path, arguments, current_environment()));
}

int wrapped_execvp(const char *file, char *const arguments[]) {
    return (int)result(search_and_execute(file, arguments, current_environment()));
}

int wrapped_execvpe(const char *file, char *const arguments[], char *const environment[]) {
    return (int)result(search_and_execute(file, arguments, environment));
}

int wrapped_fexecve(int descriptor, char *const arguments[], char *const environment[]) {
    return (int)result(is_active() ? entered_execveat(descriptor, "", arguments, environment, AT_EMPTY_PATH)
                                   : raw(SYS_execveat, descriptor, "", arguments, environment, AT_EMPTY_PATH));
}

/* The variadic forms: counts the arguments, then takes them again into a list on the stack. */
#define LIST_OF(list, first)                                                                                                       \
    va_list list##_rest;                                                                                                           \
    int list##_count = 1;                                                                                                          \
    va_start(list##_rest, first);                                                                                                  \
    while (first && va_arg(list##_rest, char *))                                                                                   \
        list##_count++;                                                                                                            \
    va_end(list##_rest);                                                                                                           \
    char *list[list##_count + 1];                                                                                                  \
    list[0] = (char *)first;                                                                                                       \
    list[1] = NULL;                                                                                                                \
    va_start(list##_rest, first);                                                                                                  \
    for (int list##_i = 1; first && list##_i <= list##_count; list##_i++)                                                          \
    list[list##_i] = va_arg(list##_rest, char *)

int wrapped_execl(const char *path, const char *argument, ...) {
    LIST_OF(list, argument);
    va_end(list_rest);
    return (int)result(execute(path, list, current_environment()));
}

int wrapped_execlp(const char *file, const char *argument, ...) {
    LIST_OF(list, argument);
    va_end(list_rest);
    return (int)result(search_and_execute(file, list, current_environment()));
}

int wrapped_execle(const char *path, const char *argument, ...) {
    LIST_OF(list, argument);
    char *const *environment = va_arg(list_rest, char *const *);
    va_end(list_rest);
    return (int)result(execute(path, list, environment));
}

typedef int spawn_function(pid_t *, const char *, const void *, const void *, char *const[], char *const[]);

/* The C library's posix_spawn knows its own file actions and attributes; only the environment is ours. It returns the error. */
static int spawn(const char *symbol, const char *looked_at, pid_t *child, const char *file, const void *actions,
                 const void *attributes, char *const arguments[], char *const environment[]) {
    spawn_function *real = NULL;
    if (dlsym) *(void **)&real = dlsym(RTLD_NEXT, symbol);
    if (!real) return ENOSYS;
    if (!is_active()) return real(child, file, actions, attributes, arguments, environment);
    static const struct trace_form form = {.call = "posix_spawn", .count = 1, .shown = TRACE_TEXT};
    struct trace_call call;
    bool traced = is_traced();
    if (traced) trace_begin(&call, &form, (const long[6]){(long)file});
    int error = (int)-refusal(looked_at);
    if (!error) {
        WITH_KEPT(made, environment);
        error = real(child, file, actions, attributes, arguments, made);
    }
    if (traced) trace_end(&call, -error);
    return error;
}

int wrapped_posix_spawn(pid_t *child, const char *path, const void *actions, const void *attributes, char *const arguments[],
                        char *const environment[]) {
    return spawn("posix_spawn", path, child, path, actions, attributes, arguments, environment);
}

int wrapped_posix_spawnp(pid_t *child, const char *file, const void *actions, const void *attributes, char *const arguments[],
                         char *const environment[]) {
    char path[PATH_MAX];
    const char *looked_at = file;
    if (file && *file && !contains_slash(file)) {
        looked_at = NULL;
        for (const char *list = search_path(); list && !looked_at;) {
            list = next_candidate(list, file, path);
            if (path[0] && raw(SYS_faccessat, AT_FDCWD, path, 1 /* X_OK */) == 0) looked_at = path;
        }
    }
    return spawn("posix_spawnp", looked_at, child, file, actions, attributes, arguments, environment);
}
