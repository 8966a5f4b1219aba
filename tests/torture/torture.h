/* torture.h: what the interpreter's files share; see torture.c. */
#ifndef TORTURE_H
#define TORTURE_H

#define _GNU_SOURCE
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define SLOTS 1024
#define ACTORS 64
#define ARGUMENTS 64
#define TEXT 4096
#define PATIENCE_MS 4000 /* for the network to come to what is expected */
#define STUCK_MS 20000   /* for the others */

/* One operation of one actor. It may begin when `after` operations of all actors have ended. */
struct line {
    int number, after, actor, count;
    char name[20];
    long a[ARGUMENTS];
};

/* What all processes of a script see, mapped from a file: no descriptor stays open for it. */
struct shared {
    _Atomic uint32_t finished;
    _Atomic uint32_t ports[SLOTS]; /* on which a slot's socket is, host order; 0: on none */
};

extern struct shared *shared;
extern int fds[SLOTS]; /* of this process: the descriptors that the script names by slot; -1: none */
extern bool loose;     /* the numbers of descriptors are not told: a handler makes some meanwhile, in another thread */
extern sa_family_t family;
extern const char *own_path, *own_address;

/* The expected text of this line, or NULL if this run is the one that finds out. */
const char *expected(const struct line *line);
int64_t now_ms(void);

/* Until `text` is what is expected, or for PATIENCE_MS, perform `look` again. Only for what changes nothing. */
void settle(const struct line *line, char *text, void (*look)(const struct line *line, char *text));

/* Appends to text of TEXT bytes. */
void say(char *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* calls.c: performs an operation on sockets; false if it is none. */
bool perform_call(const struct line *line, char *text);
socklen_t make_address(struct sockaddr_storage *address, bool any, unsigned port);
unsigned port_of(const struct sockaddr_storage *address);
unsigned char pattern(long seed, size_t at);
uint32_t hashed(uint32_t hash, const void *data, size_t length);
#define HASH_START 2166136261u

/* crowds.c: operations that are many calls, made while other actors make theirs; false if it is none. */
bool perform_crowd(const struct line *line, char *text);

/* storm.c: signals at 10 kHz whose handler makes calls of its own. */
void storm_begin(bool restart, char *text);
void storm_end(char *text);
void storm_pause(bool pause); /* around fork, which no signal may interrupt for ever */
void storm_forget(void);      /* in a child: timers are not inherited */

#endif
