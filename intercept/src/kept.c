/* kept.c: see kept.h. */
#include "kept.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "kernel.h"

#define FIRST 900
#define LAST 1023
#define COOKIE_BITS 57 /* the rest of the word tells the number, less FIRST */
#define COOKIE_MASK ((1ull << COOKIE_BITS) - 1)

static uint64_t cookie_of(int descriptor) {
    uint64_t cookie = 0;
    socklen_t length = sizeof cookie;
    return raw(SYS_getsockopt, descriptor, SOL_SOCKET, SO_COOKIE, &cookie, &length) == 0 ? cookie & COOKIE_MASK : 0;
}

int kept_get(_Atomic uint64_t *slot, uint64_t *word) {
    *word = atomic_load(slot);
    if (!*word) return -1;
    int descriptor = FIRST + (int)(*word >> COOKIE_BITS);
    if (cookie_of(descriptor) == (*word & COOKIE_MASK)) return descriptor;
    /* The program closed it; what has the number now is not ours to close. */
    atomic_compare_exchange_strong(slot, word, 0);
    return -1;
}

int kept_put(_Atomic uint64_t *slot, int descriptor, uint64_t *word) {
    *word = 0;
    long high = raw(SYS_fcntl, descriptor, F_DUPFD_CLOEXEC, FIRST);
    if (high < 0) return descriptor; /* the limit is below 900, or the table is full */
    uint64_t none = 0, made = (uint64_t)(high - FIRST) << COOKIE_BITS | cookie_of((int)high);
    if (high > LAST || !atomic_compare_exchange_strong(slot, &none, made)) {
        close_descriptor((int)high);
        return descriptor;
    }
    close_descriptor(descriptor);
    *word = made;
    return (int)high;
}

void kept_forget(_Atomic uint64_t *slot, uint64_t word) {
    int descriptor = FIRST + (int)(word >> COOKIE_BITS);
    uint64_t cookie = word & COOKIE_MASK;
    if (atomic_compare_exchange_strong(slot, &word, 0) && cookie_of(descriptor) == cookie) close_descriptor(descriptor);
}
