/* memory.c: see memory.h. Built so that the compiler does not turn these loops into calls of themselves. */
#pragma GCC optimize("no-tree-loop-distribute-patterns")
#include "memory.h"

void *memcpy(void *restrict to, const void *restrict from, size_t length) {
    unsigned char *out = to;
    const unsigned char *in = from;
    while (length--)
        *out++ = *in++;
    return to;
}

void *memset(void *to, int byte, size_t length) {
    unsigned char *out = to;
    while (length--)
        *out++ = (unsigned char)byte;
    return to;
}

int memcmp(const void *left, const void *right, size_t length) {
    const unsigned char *l = left, *r = right;
    for (; length; length--, l++, r++)
        if (*l != *r) return *l - *r;
    return 0;
}

size_t strlen(const char *text) {
    size_t length = 0;
    while (text[length])
        length++;
    return length;
}

bool starts_with(const char *text, const char *prefix) {
    while (*prefix)
        if (*text++ != *prefix++) return false;
    return true;
}

static bool separates(char byte) { return byte == 0 || byte == ':' || byte == ' '; }

bool list_contains(const char *text, const char *items) {
    size_t length = strlen(items);
    for (const char *at = text; *at; at++)
        if ((at == text || separates(at[-1])) && starts_with(at, items) && separates(at[length])) return true;
    return false;
}

char *append(char *at, const char *end, const char *text) {
    while (*text && at < end - 1)
        *at++ = *text++;
    *at = 0;
    return at;
}

char *append_number(char *at, const char *end, unsigned long number) {
    char digits[21];
    char *first = digits + sizeof digits - 1;
    *first = 0;
    do
        *--first = (char)('0' + number % 10);
    while (number /= 10);
    return append(at, end, first);
}
