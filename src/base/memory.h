/* memory.h - allocation that counts, and growable arrays.
 *
 * All heap memory of our own code comes through here, so that a test can prove that a training step allocates
 * nothing (memory_allocation_count). Allocation failure aborts with a message: sizes from input are bounded
 * before they get here.
 */
#ifndef DINOBATCH_BASE_MEMORY_H
#define DINOBATCH_BASE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* `bytes` of zeroed memory, 64-byte aligned; never NULL (0 bytes give a valid pointer). Free by memory_free.
 * A forked child does not have what is 64 MiB or larger. */
void *memory_alloc(size_t bytes);

/* `count` zeroed elements; aborts if the product overflows. */
void *memory_alloc_array(size_t count, size_t element_bytes);

/* Grows (or makes, from NULL) a block; the new part is not zeroed. Free by memory_free. */
void *memory_grow(void *old, size_t old_bytes, size_t new_bytes);

void memory_free(void *block);

/* A heap copy of a string, or of its first n bytes. */
char *memory_strdup(const char *text);
char *memory_strndup(const char *text, size_t n);

/* Allocations of this process so far, all threads. */
int64_t memory_allocation_count(void);

/* Bytes of this process that lie in real memory now, and the most that ever did, as the kernel counts them;
 * 0 where it does not say. */
size_t memory_resident(void);
size_t memory_resident_peak(void);

#endif
