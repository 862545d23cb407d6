/* item_runs.c - runs by binary search. */
#include "data/item_runs.h"

#include "base/check.h"
#include "base/memory.h"

#include <stdio.h>
#include <string.h>

void item_runs_append(ItemRuns *runs, ItemRun run, const char *folder)
{
    CHECK(runs->count == 0 ? run.first == 0 : run.first > runs->runs[runs->count - 1].first);
    if (runs->count == runs->capacity) {
        int64_t capacity = 2 * runs->capacity + 16;
        runs->runs = memory_grow(runs->runs, (size_t)runs->count * sizeof *runs->runs,
                                 (size_t)capacity * sizeof *runs->runs);
        runs->capacity = capacity;
    }
    runs->runs[runs->count++] = run;
    text_table_append(&runs->folders, folder, strlen(folder));
}

int64_t item_runs_find(const ItemRuns *runs, int64_t item)
{
    CHECK(runs->count > 0 && item >= 0);
    int64_t low = 0, high = runs->count;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (runs->runs[middle].first <= item)
            low = middle;
        else
            high = middle;
    }
    return low;
}

void item_runs_path(const ItemRuns *runs, int64_t run, const char *name, char *text, size_t size)
{
    const char *folder = text_table_get(&runs->folders, run);
    snprintf(text, size, "%s%s%s", folder, *folder ? "/" : "", name);
}

void item_runs_destroy(ItemRuns *runs)
{
    memory_free(runs->runs);
    text_table_destroy(&runs->folders);
    *runs = (ItemRuns){0};
}
