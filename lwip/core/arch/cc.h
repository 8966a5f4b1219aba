/* cc.h: what lwIP asks of its port: randomness, failure, memory, checksum. They are core.c's, memory.c's and checksum.c's. */
#ifndef ARCH_CC_H
#define ARCH_CC_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* 32 bits of the stack's keyed generator. */
uint32_t core_random(void);
/* An lwIP assertion: leaves the stack's entry point by longjmp, never returns. */
__attribute__((noreturn)) void core_assertion_failed(const char *text, const char *file, int line);
void *core_allocate(size_t size);
void *core_allocate_zeroed(size_t count, size_t size);
void core_release(void *memory);
/* The ones' complement sum of `length` bytes, folded to 16 bits, not inverted, in memory order. */
uint16_t core_checksum(const void *data, int length);

#ifdef __cplusplus
}
#endif

#define LWIP_RAND() core_random()
#define LWIP_PLATFORM_ASSERT(text) core_assertion_failed(text, __FILE__, __LINE__)
#define LWIP_PLATFORM_DIAG(x) ((void)0)
#define LWIP_NO_CTYPE_H 0

#endif
