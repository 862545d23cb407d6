/* memory.c - counted, aligned allocation. */
#include "base/memory.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LARGE_BYTES = 64 << 20 };

static atomic_llong allocations; /* process-wide statistics only; no behaviour depends on it */

static _Noreturn void out_of_memory(size_t bytes)
{
    fprintf(stderr, "dinobatch: out of memory: %zu bytes could not be had\n", bytes);
    abort();
}

/* A child that checks a file (h5/h5_check.h) has no use for these, and a fork that need not list their pages
 * takes milliseconds and not seconds. They are mappings of their own, so the mark goes when they do. */
static void keep_from_children(void *block, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), skipped = -(uintptr_t)block % page;
    if (bytes >= LARGE_BYTES)
        madvise((char *)block + skipped, (bytes - skipped) / page * page, MADV_DONTFORK);
}

/* Not inlined: gcc 12 takes the address of `block` for one that escapes. */
__attribute__((noinline)) static void *aligned(size_t bytes)
{
    void *block = NULL;
    if (posix_memalign(&block, 64, bytes ? bytes : 1) != 0) out_of_memory(bytes);
    keep_from_children(block, bytes);
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    return block;
}

void *memory_alloc(size_t bytes)
{
    return memset(aligned(bytes), 0, bytes);
}

void *memory_alloc_array(size_t count, size_t element_bytes)
{
    if (element_bytes && count > SIZE_MAX / element_bytes) out_of_memory(SIZE_MAX);
    return memory_alloc(count * element_bytes);
}

void *memory_grow(void *old, size_t old_bytes, size_t new_bytes)
{
    void *block = aligned(new_bytes);
    if (old) {
        memcpy(block, old, old_bytes < new_bytes ? old_bytes : new_bytes);
        free(old);
    }
    return block;
}

void memory_free(void *block)
{
    free(block);
}

char *memory_strdup(const char *text)
{
    return memory_strndup(text, strlen(text));
}

char *memory_strndup(const char *text, size_t n)
{
    size_t length = strnlen(text, n);
    char *copy = memory_alloc(length + 1);
    memcpy(copy, text, length);
    return copy;
}

static size_t kernel_figure(const char *format)
{
    char line[256];
    unsigned long kib = 0;
    FILE *file = fopen("/proc/self/status", "re");
    if (!file) return 0;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, format, &kib) == 1) break;
    fclose(file);
    return (size_t)kib * 1024;
}

size_t memory_resident(void)
{
    return kernel_figure("VmRSS: %lu");
}

size_t memory_resident_peak(void)
{
    return kernel_figure("VmHWM: %lu");
}

int64_t memory_allocation_count(void)
{
    return atomic_load_explicit(&allocations, memory_order_relaxed);
}
