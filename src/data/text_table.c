/* text_table.c - strings one after the other, with an offset to every 16th. */
#include "data/text_table.h"

#include "base/check.h"
#include "base/memory.h"

#include <string.h>

enum { STRIDE = 16 };

void text_table_append(TextTable *table, const char *text, size_t length)
{
    if (table->count % STRIDE == 0) {
        int64_t block = table->count / STRIDE;
        if (block == table->start_capacity) {
            int64_t capacity = block ? 2 * block : STRIDE;
            table->starts = memory_grow(table->starts, (size_t)block * sizeof *table->starts,
                                        (size_t)capacity * sizeof *table->starts);
            table->start_capacity = capacity;
        }
        table->starts[block] = table->used;
    }
    if (table->capacity - table->used < length + 1) {
        size_t capacity = 2 * table->capacity + length + 64;
        table->bytes = memory_grow(table->bytes, table->used, capacity);
        table->capacity = capacity;
    }
    memcpy(table->bytes + table->used, text, length);
    table->bytes[table->used + length] = '\0';
    table->used += length + 1;
    table->count++;
}

const char *text_table_get(const TextTable *table, int64_t i)
{
    CHECK(i >= 0 && i < table->count);
    const char *text = table->bytes + table->starts[i / STRIDE];
    for (int64_t passed = 0; passed < i % STRIDE; passed++)
        text += strlen(text) + 1;
    return text;
}

void text_table_destroy(TextTable *table)
{
    memory_free(table->bytes);
    memory_free(table->starts);
    *table = (TextTable){0};
}
