/* arena.h - one block of memory per lifetime (run, step, scratch), carved by a bump pointer.
 *
 * The same layout code runs twice: on a measuring arena (no memory behind it) it only adds up sizes, on a
 * real one it hands out pointers.
 *
 *     Arena plan = arena_measuring();
 *     layout(&plan, worst_case);                       // pointers must not be dereferenced
 *     Arena step = arena_create(plan.peak);
 *     for (;;) { arena_reset(&step, 0); layout(&step, real_sizes); ... }
 *
 * Debug builds (DINOBATCH_POISON) fill what is handed out and what is reset with NaN bytes.
 */
#ifndef DINOBATCH_BASE_ARENA_H
#define DINOBATCH_BASE_ARENA_H

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    char *base;      /* NULL: measuring */
    size_t used;     /* bytes handed out */
    size_t capacity; /* bytes behind base */
    size_t peak;     /* largest `used` so far */
} Arena;

enum { ARENA_ALIGNMENT = 64 };

Arena arena_measuring(void);
Arena arena_create(size_t capacity);
void arena_destroy(Arena *arena);

static inline bool arena_is_measuring(const Arena *arena)
{
    return arena->base == NULL;
}

/* `bytes` of uninitialised memory, 64-byte aligned; CHECK-fails when the plan was too small (our bug).
 * A measuring arena gives a fake non-NULL pointer. Never freed singly. */
void *arena_alloc(Arena *arena, size_t bytes);

/* A mark to come back to: `size_t mark = arena->used; ...; arena_reset(arena, mark);` */
void arena_reset(Arena *arena, size_t mark);

#endif
