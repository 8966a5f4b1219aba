/* kept.h: a descriptor of the library's own that is kept from call to call.
 *
 * It has a number from 900 to 1023, away from the numbers that programs use and count on, and not so high that the table that
 * every fork copies grows; it is close-on-exec. It is not trusted to be there: programs close descriptors that they do not know
 * (sshd's closefrom), so before each use its SO_COOKIE is compared with the one remembered. Number and what fits of the cookie
 * are one word that changes at once: any value of it is safe, whoever forks, closes or races. 0: none is kept.
 */
#ifndef NETCON_KEPT_H
#define NETCON_KEPT_H

#include <stdatomic.h>
#include <stdint.h>

/* The kept descriptor, and the word it was kept by; -1 if there is none (any more). */
int kept_get(_Atomic uint64_t *slot, uint64_t *word);

/* Keeps a socket, if there is a number for it and none was kept meanwhile. Returns the descriptor to use. `*word` is 0 if it was
 * not kept: then it is to be closed after the call. */
int kept_put(_Atomic uint64_t *slot, int descriptor, uint64_t *word);

/* Forgets what is kept as `word`; closes it if it is still the one. */
void kept_forget(_Atomic uint64_t *slot, uint64_t word);

#endif
