/* arena.h - one block of memory per lifetime (run, step, scratch), carved by a bump pointer.
 *
 * The same layout code runs twice: on a measuring arena (no memory behind it) it only adds up sizes, on a
 * real one it hands out pointers.
 *
 *     Arena plan = arena_measuring();
 *     layout(&plan, worst_case);                       // pointers must not be dereferenced
 *     Arena step = device_arena_create(device, &plan); // or arena_create(plan.peak) for host memory alone
 *     for (;;) { arena_reset(&step, ARENA_START); layout(&step, real_sizes); ... }
 *
 * What the host writes and the device reads (row numbers, targets, weights of rows) is staged: for a device
 * with memory of its own it lies in a region of its own, once in host memory and once where the device reads
 * it, so that one copy carries all of it (device_upload_staged). On a host both are the arena's memory.
 *
 * Debug builds (DINOBATCH_POISON) fill what is handed out and what is reset with NaN bytes.
 */
#ifndef DINOBATCH_BASE_ARENA_H
#define DINOBATCH_BASE_ARENA_H

#include <stdbool.h>
#include <stddef.h>

/* A region that is carved from the front. */
typedef struct {
    char *base;      /* NULL: measuring */
    size_t used;     /* bytes handed out */
    size_t capacity; /* bytes behind base */
    size_t peak;     /* largest `used` so far */
} ArenaRegion;

typedef struct {
    char *base;
    size_t used, capacity, peak; /* as in ArenaRegion */
    ArenaRegion staged;          /* host memory of what is staged */
    char *staged_device;         /* the same bytes where the device reads them */
    bool foreign;                /* `base` is no host memory: the host never touches it */
} Arena;

enum { ARENA_ALIGNMENT = 64 };

Arena arena_measuring(void);

/* Host memory, nothing staged. */
Arena arena_create(size_t capacity);
void arena_destroy(Arena *arena);

static inline bool arena_is_measuring(const Arena *arena)
{
    return arena->base == NULL;
}

/* `bytes` of uninitialised memory, 64-byte aligned; CHECK-fails when the plan was too small (our bug).
 * A measuring arena gives a fake non-NULL pointer. Never freed singly. */
void *arena_alloc(Arena *arena, size_t bytes);

/* `bytes` of staged memory: the pointer is where the device reads, and where the host writes goes to *host, a
 * pointer to a pointer (NULL on a measuring arena). */
void *arena_alloc_staged(Arena *arena, size_t bytes, void *host);

/* `bytes` of host memory beside what is staged, for what only the host reads; NULL on a measuring arena. */
void *arena_alloc_host(Arena *arena, size_t bytes);

/* A place to come back to: `ArenaMark mark = arena_mark(arena); ...; arena_reset(arena, mark);` */
typedef struct {
    size_t used, staged;
} ArenaMark;

#define ARENA_START ((ArenaMark){0, 0})

static inline ArenaMark arena_mark(const Arena *arena)
{
    return (ArenaMark){arena->used, arena->staged.used};
}

void arena_reset(Arena *arena, ArenaMark mark);

#endif
