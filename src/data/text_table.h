/* text_table.h - many short strings in one block of memory, numbered in the order they came.
 *
 * Data sets have tens of millions of names: each costs its bytes and an end, and every 16th an offset.
 */
#ifndef DINOBATCH_DATA_TEXT_TABLE_H
#define DINOBATCH_DATA_TEXT_TABLE_H

#include <stddef.h>
#include <stdint.h>

/* Zero-initialised it is empty. */
typedef struct {
    char *bytes; /* the strings, each with its end; owned */
    size_t used, capacity;
    uint64_t *starts; /* of strings 0, 16, 32, ...; owned */
    int64_t start_capacity;
    int64_t count;
} TextTable;

/* Adds a copy of text[length], which holds no NUL. */
void text_table_append(TextTable *table, const char *text, size_t length);

/* String i, 0 <= i < count, valid until the next append. */
const char *text_table_get(const TextTable *table, int64_t i);

void text_table_destroy(TextTable *table);

#endif
