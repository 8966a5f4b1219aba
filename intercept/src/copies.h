/* copies.h: what else of this process has a socket that is about to be replaced: other numbers (dup) and epoll sets. */
#ifndef NETCON_COPIES_H
#define NETCON_COPIES_H

#include <stdint.h>

#define COPIES_MAX 32 /* of each kind; what is beyond keeps the old socket */

struct copies {
    int count, watch_count;
    int numbers[COPIES_MAX]; /* without the one that is replaced itself */
    struct watch {
        int epoll, number;
        uint32_t events;
        uint64_t data;
    } watches[COPIES_MAX];
};

/* Looks for them, and takes the socket out of the epoll sets. */
void copies_take(int descriptor, struct copies *copies);

/* Puts `fresh` at the other numbers, each with its own close-on-exec flag. */
void copies_replace(const struct copies *copies, int fresh);

/* Puts what has the numbers now into the epoll sets, with the old events and data. */
void copies_watch(const struct copies *copies);

#endif
