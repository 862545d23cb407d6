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

void *arena_alloc(Arena *arena, size_t bytes)
{
    CHECK(bytes < SIZE_MAX / 2);
    size_t start = arena->used;
    size_t end = start + (bytes + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT;
    CHECK(arena_is_measuring(arena) || end <= arena->capacity);
    arena->used = end;
    if (end > arena->peak) arena->peak = end;
    if (arena_is_measuring(arena)) return (void *)(uintptr_t)(ARENA_ALIGNMENT + start);
#ifdef DINOBATCH_POISON
    memset(arena->base + start, 0xff, end - start);
#endif
    return arena->base + start;
}

void arena_reset(Arena *arena, size_t mark)
{
    CHECK(mark <= arena->used);
#ifdef DINOBATCH_POISON
    if (!arena_is_measuring(arena)) memset(arena->base + mark, 0xff, arena->used - mark);
#endif
    arena->used = mark;
}
