/* memory.h: the few functions on bytes and strings that the library uses; it has no C library to take them from. */
#ifndef NETCON_MEMORY_H
#define NETCON_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *memcpy(void *restrict to, const void *restrict from, size_t length);
void *memset(void *to, int byte, size_t length);
int memcmp(const void *left, const void *right, size_t length);
size_t strlen(const char *text);

/* Never mapped: what lies below mmap_min_addr, and the kernel's half: EFAULT. Other bad pointers end the program, as they would
 * in a C library that looks at them. */
static inline bool is_impossible(const void *pointer) { return (uintptr_t)pointer < 4096 || (intptr_t)pointer < 0; }

/* Does `text` begin with `prefix`? */
bool starts_with(const char *text, const char *prefix);
/* Does the list `text`, separated by colons or blanks, contain `items` as a run of whole entries? */
bool list_contains(const char *text, const char *items);
/* Appends `text` at `at`, not beyond `end`, and ends it with NUL. Returns where the NUL is. */
char *append(char *at, const char *end, const char *text);
/* The same with a number in decimal. */
char *append_number(char *at, const char *end, unsigned long number);

#endif
