/* memory.c: one stack's memory, which can be dropped as a whole.
 *
 * Theory of operation: blocks come in size classes (four per power of two) from chunks, and go back to their class's free list,
 * never to the system: what a stack once needed it keeps, so the data path allocates without a system call. Blocks above the
 * largest class are the C library's, in a list. Dropping frees chunks and list and nothing else needs to be known. A stack that an
 * assertion ended is freed the same way. Under AddressSanitizer every block is the C library's, so that it sees each one's end.
 */
#include "core_internal.h"

#define CHUNK_BYTES (64u << 10)
#define SMALLEST_SHIFT 5 /* 32 bytes */
#define LARGEST_SHIFT 13 /* 8 KiB: a frame of the usual MTU with room to spare */
#define CLASSES ((LARGEST_SHIFT - SMALLEST_SHIFT) * 4 + 1)
#define LARGE UINT32_MAX
#ifdef __SANITIZE_ADDRESS__
#define POOLED_MAX 0u
#else
#define POOLED_MAX (1u << LARGEST_SHIFT)
#endif

/* In front of each block. 16 bytes, so that blocks are aligned for anything. */
struct block {
    uint32_t class;
    uint32_t size;
    struct block *next; /* in the free list while free; of the list of large blocks while allocated */
};
/* Large blocks need a way back as well. */
struct large_block {
    struct large_block *previous, *next;
    struct block block;
};
struct chunk {
    struct chunk *next;
    uint8_t pad[8];
    uint8_t bytes[];
};

size_t core_memory_limit;
static struct block *free_blocks[CLASSES];
static struct chunk *chunks;
static size_t chunk_used = CHUNK_BYTES;
static struct large_block *large_blocks;

/* The class whose blocks hold `size`, and its size. */
static uint32_t class_of(size_t size, size_t *class_size) {
    if (size <= 1u << SMALLEST_SHIFT) {
        *class_size = 1u << SMALLEST_SHIFT;
        return 0;
    }
    unsigned shift = 63 - (unsigned)__builtin_clzll(size - 1); /* 2^shift < size <= 2^(shift+1) */
    size_t quarter = (size_t)1 << (shift - 2);
    size_t quarters = (size - ((size_t)1 << shift) + quarter - 1) / quarter;
    *class_size = ((size_t)1 << shift) + quarters * quarter;
    return (shift - SMALLEST_SHIFT) * 4 + (uint32_t)quarters;
}

static void account(size_t size) {
    core_count.memory += size;
    if (core_count.memory > core_count.memory_peak) core_count.memory_peak = core_count.memory;
}

static void *allocate_large(size_t size) {
    struct large_block *large = malloc(sizeof *large + size);
    if (large == NULL) return NULL;
    large->previous = NULL;
    large->next = large_blocks;
    if (large_blocks != NULL) large_blocks->previous = large;
    large_blocks = large;
    large->block = (struct block){.class = LARGE, .size = (uint32_t)size, .next = NULL};
    account(size);
    return &large->block + 1;
}

void *core_allocate(size_t size) {
    if (size > UINT32_MAX || core_count.memory + size > core_memory_limit) return NULL;
    if (size > POOLED_MAX) return allocate_large(size);
    size_t class_size;
    uint32_t class = class_of(size, &class_size);
    struct block *block = free_blocks[class];
    if (block != NULL) {
        free_blocks[class] = block->next;
    } else {
        size_t step = (sizeof *block + class_size + 15) & ~(size_t)15;
        if (chunk_used + step > CHUNK_BYTES) {
            struct chunk *chunk = malloc(sizeof *chunk + CHUNK_BYTES);
            if (chunk == NULL) return NULL;
            chunk->next = chunks;
            chunks = chunk;
            chunk_used = 0;
        }
        block = (struct block *)(void *)(chunks->bytes + chunk_used);
        chunk_used += step;
        block->class = class;
        block->size = (uint32_t)class_size;
    }
    account(class_size);
    return block + 1;
}

void *core_allocate_zeroed(size_t count, size_t size) {
    void *memory = size != 0 && count > SIZE_MAX / size ? NULL : core_allocate(count * size);
    return memory == NULL ? NULL : memset(memory, 0, count * size);
}

void core_release(void *memory) {
    if (memory == NULL) return;
    struct block *block = (struct block *)memory - 1;
    core_count.memory -= block->size;
    if (block->class == LARGE) {
        struct large_block *large = (struct large_block *)(void *)((uint8_t *)block - offsetof(struct large_block, block));
        if (large->previous != NULL)
            large->previous->next = large->next;
        else
            large_blocks = large->next;
        if (large->next != NULL) large->next->previous = large->previous;
        free(large);
        return;
    }
    block->next = free_blocks[block->class];
    free_blocks[block->class] = block;
}

/* What a packet really costs, headers and unused room included: Linux calls it truesize. */
size_t core_true_size(const struct pbuf *packet) {
    size_t size = 0;
    for (; packet != NULL; packet = packet->next)
        size += sizeof(struct block) + ((const struct block *)packet - 1)->size;
    return size;
}

bool core_memory_is_short(void) { return core_count.memory > core_memory_limit / 2; }

void core_memory_drop(void) {
    while (chunks != NULL) {
        struct chunk *next = chunks->next;
        free(chunks);
        chunks = next;
    }
    while (large_blocks != NULL) {
        struct large_block *next = large_blocks->next;
        free(large_blocks);
        large_blocks = next;
    }
    memset(free_blocks, 0, sizeof free_blocks);
    chunk_used = CHUNK_BYTES;
    core_count.memory = 0;
}
