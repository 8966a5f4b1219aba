/* copies.c: see copies.h.
 *
 * An epoll set holds a socket by its file, so the one that takes its number is not in it; a dup keeps the old file. The kernel says
 * who they are: the same inode at other numbers of /proc/thread-self/fd, and, in the fdinfo of an epoll descriptor, a line for each
 * descriptor in the set, with events and data. Other processes cannot be helped: their copies keep the old socket.
 *
 * This is looked for only when a socket is replaced, which costs round trips to the service anyway.
 */
#include "copies.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#include "kernel.h"
#include "memory.h"

#define FOLDER "/proc/thread-self/fd"
#define INFO "/proc/thread-self/fdinfo/"
#define EVENT_POLL "anon_inode:[eventpoll]"

struct entry { /* struct linux_dirent64 */
    uint64_t inode, offset;
    uint16_t length;
    uint8_t type;
    char name[];
};

/* A number at `*at`, behind blanks; `*at` moves behind it. */
static uint64_t number_at(const char **at, unsigned base) {
    uint64_t number = 0;
    while (**at == ' ' || **at == '\t')
        ++*at;
    for (;; ++*at) {
        unsigned digit = **at >= '0' && **at <= '9'   ? (unsigned)(**at - '0')
                         : **at >= 'a' && **at <= 'f' ? (unsigned)(**at - 'a' + 10)
                                                      : 99;
        if (digit >= base) return number;
        number = number * base + digit;
    }
}

/* "tfd:        5 events:       19 data:                5  pos:0 ino:1f3a sdev:8" */
static bool field(const char **at, const char *name) {
    for (; **at; ++*at)
        if (starts_with(*at, name)) {
            *at += strlen(name);
            return true;
        }
    return false;
}

static void read_line(const char *line, int epoll, uint64_t inode, struct copies *copies) {
    struct watch watch = {.epoll = epoll};
    if (!starts_with(line, "tfd:") || copies->watch_count == COPIES_MAX) return;
    line += 4;
    watch.number = (int)number_at(&line, 10);
    if (!field(&line, "events:")) return;
    watch.events = (uint32_t)number_at(&line, 16);
    if (!field(&line, "data:")) return;
    watch.data = number_at(&line, 16);
    if (field(&line, "ino:") && number_at(&line, 16) == inode) copies->watches[copies->watch_count++] = watch;
}

static void read_epoll(int epoll, uint64_t inode, struct copies *copies) {
    char path[64], text[4096];
    size_t kept = 0;
    append_number(append(path, path + sizeof path - 1, INFO), path + sizeof path - 1, (unsigned long)epoll);
    long file = raw(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC), length;
    if (file < 0) return;
    while ((length = raw(SYS_read, file, text + kept, sizeof text - 1 - kept)) > 0) {
        size_t end = kept + (size_t)length, start = 0;
        for (size_t i = kept; i < end; i++)
            if (text[i] == '\n') {
                text[i] = 0;
                read_line(text + start, epoll, inode, copies);
                start = i + 1;
            }
        kept = end - start;
        for (size_t i = 0; i < kept; i++)
            text[i] = text[start + i];
        if (kept == sizeof text - 1) break; /* no line is that long */
    }
    close_descriptor((int)file);
}

static bool is_epoll(const char *name) {
    char path[64], target[sizeof EVENT_POLL];
    char *at = append(path, path + sizeof path - 1, FOLDER "/");
    append(at, path + sizeof path - 1, name);
    long length = raw(SYS_readlinkat, AT_FDCWD, path, target, sizeof target);
    return length == sizeof EVENT_POLL - 1 && memcmp(target, EVENT_POLL, sizeof EVENT_POLL - 1) == 0;
}

void copies_take(int descriptor, struct copies *copies) {
    struct stat wanted, each;
    _Alignas(struct entry) char names[4096];
    copies->count = copies->watch_count = 0;
    if (raw(SYS_fstat, descriptor, &wanted) != 0) return;
    long folder = raw(SYS_openat, AT_FDCWD, FOLDER, O_RDONLY | O_DIRECTORY | O_CLOEXEC), length;
    if (folder < 0) return; /* no /proc here */
    while ((length = raw(SYS_getdents64, folder, names, sizeof names)) > 0)
        for (long i = 0; i < length;) {
            const struct entry *entry = (const struct entry *)(names + i);
            const char *name = entry->name;
            i += entry->length;
            if (*name < '0' || *name > '9') continue;
            int number = (int)number_at(&name, 10);
            if (number == descriptor || number == folder || raw(SYS_fstat, number, &each) != 0) continue;
            if ((each.st_mode & S_IFMT) == 0 && is_epoll(entry->name)) read_epoll(number, wanted.st_ino, copies);
            if (each.st_dev == wanted.st_dev && each.st_ino == wanted.st_ino && copies->count < COPIES_MAX)
                copies->numbers[copies->count++] = number;
        }
    close_descriptor((int)folder);
    int found = copies->watch_count;
    copies->watch_count = 0;
    for (int i = 0; i < found; i++) {
        struct epoll_event none = {0};
        struct watch watch = copies->watches[i];
        /* A set may know the socket by a number that was closed, and is another file's now. */
        if (raw(SYS_epoll_ctl, watch.epoll, EPOLL_CTL_DEL, watch.number, &none) == 0)
            copies->watches[copies->watch_count++] = watch;
    }
}

void copies_replace(const struct copies *copies, int fresh) {
    for (int i = 0; i < copies->count; i++) {
        long flags = raw(SYS_fcntl, copies->numbers[i], F_GETFD);
        if (flags >= 0) raw(SYS_dup3, fresh, copies->numbers[i], flags & FD_CLOEXEC ? O_CLOEXEC : 0);
    }
}

void copies_watch(const struct copies *copies) {
    for (int i = 0; i < copies->watch_count; i++) {
        const struct watch *watch = &copies->watches[i];
        struct epoll_event event = {.events = watch->events, .data.u64 = watch->data};
        raw(SYS_epoll_ctl, watch->epoll, EPOLL_CTL_ADD, watch->number, &event);
    }
}
