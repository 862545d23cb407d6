/* arena.c - bump allocation, measuring, poisoning. */
#include "base/arena.h"

#include "base/check.h"
#include "base/memory.h"

#include <stdint.h>
#include <string.h>

Arena arena_measuring(void)
{
    return (Arena){0};
}

Arena arena_create(size_t capacity)
{
    Arena arena = {.base = memory_alloc(capacity), .capacity = capacity};
#ifdef DINOBATCH_POISON
    memset(arena.base, 0xff, capacity);
#endif
    return arena;
}

void arena_destroy(Arena *arena)
{
    memory_free(arena->base);
    *arena = (Arena){0};
}

/* Host memory that nobody may read before it is written. */
static void poison(const Arena *arena, char *memory, size_t bytes)
{
#ifdef DINOBATCH_POISON
    if (!arena_is_measuring(arena)) memset(memory, 0xff, bytes);
#else
    (void)arena, (void)memory, (void)bytes;
#endif
}

/* Offset of `bytes` more; moves `used` and `peak`. */
static size_t carve(size_t bytes, size_t *used, size_t *peak)
{
    CHECK(bytes < SIZE_MAX / 2);
    size_t start = *used;
    *used = start + (bytes + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT;
    if (*used > *peak) *peak = *used;
    return start;
}

static void *fake(size_t start)
{
    return (void *)(uintptr_t)(ARENA_ALIGNMENT + start);
}

void *arena_alloc(Arena *arena, size_t bytes)
{
    size_t start = carve(bytes, &arena->used, &arena->peak);
    if (arena_is_measuring(arena)) return fake(start);
    CHECK(arena->used <= arena->capacity);
    if (!arena->foreign) poison(arena, arena->base + start, arena->used - start);
    return arena->base + start;
}

void *arena_alloc_staged(Arena *arena, size_t bytes, void *host)
{
    if (!arena_is_measuring(arena) && !arena->foreign) { /* one memory for both */
        void *memory = arena_alloc(arena, bytes);
        memcpy(host, &memory, sizeof memory);
        return memory;
    }
    ArenaRegion *staged = &arena->staged;
    size_t start = carve(bytes, &staged->used, &staged->peak);
    char *host_memory = arena_is_measuring(arena) ? NULL : staged->base + start;
    memcpy(host, &host_memory, sizeof host_memory);
    if (arena_is_measuring(arena)) return fake(start);
    CHECK(staged->used <= staged->capacity);
    poison(arena, host_memory, staged->used - start);
    return arena->staged_device + start;
}

void *arena_alloc_host(Arena *arena, size_t bytes)
{
    void *host;
    arena_alloc_staged(arena, bytes, &host);
    return host;
}

void arena_reset(Arena *arena, ArenaMark mark)
{
    CHECK(mark.used <= arena->used && mark.staged <= arena->staged.used);
    if (!arena->foreign && arena->base) poison(arena, arena->base + mark.used, arena->used - mark.used);
    if (arena->staged.base) poison(arena, arena->staged.base + mark.staged, arena->staged.used - mark.staged);
    arena->used = mark.used;
    arena->staged.used = mark.staged;
}
