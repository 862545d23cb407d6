/* composition_table.c - see composition_table.h. */
#include "curation/composition_table.h"

#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { LINE_BYTES = 512, NUMBER_BYTES = 32 };

int64_t composition_table_stored(const CompositionRow *row)
{
    return row->final - row->repeats - row->unreadable;
}

static CompositionRow sum_of(const CompositionRow *rows, int count)
{
    CompositionRow sum = {.name = "total", .mode = ""};
    for (int i = 0; i < count; i++) {
        sum.images += rows[i].images;
        sum.retrieved += rows[i].retrieved;
        sum.final += rows[i].final;
        sum.repeats += rows[i].repeats;
        sum.unreadable += rows[i].unreadable;
    }
    return sum;
}

static double share_of(const CompositionRow *row, const CompositionRow *sum)
{
    int64_t all = composition_table_stored(sum);
    return all > 0 ? 100.0 * (double)composition_table_stored(row) / (double)all : 0.0;
}

/* 1234567 as "1,234,567". */
static const char *with_commas(int64_t value, char text[NUMBER_BYTES])
{
    char digits[NUMBER_BYTES];
    int length = snprintf(digits, sizeof digits, "%" PRId64, value), at = 0;
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0) text[at++] = ',';
        text[at++] = digits[i];
    }
    text[at] = '\0';
    return text;
}

static void add_markdown(char *text, size_t size, const CompositionRow *row, const CompositionRow *sum)
{
    char n[6][NUMBER_BYTES];
    size_t used = strlen(text);
    snprintf(text + used, size - used, "| %s | %s | %s | %s | %s | %s | %s | %s | %.2f %% |\n", row->name,
             row->mode, with_commas(row->images, n[0]), with_commas(row->retrieved, n[1]),
             with_commas(row->final, n[2]), with_commas(row->repeats, n[3]),
             with_commas(row->unreadable, n[4]), with_commas(composition_table_stored(row), n[5]),
             share_of(row, sum));
}

char *composition_table_markdown(const CompositionRow *rows, int count)
{
    size_t size = ((size_t)count + 4) * LINE_BYTES;
    char *text = memory_alloc(size);
    CompositionRow sum = sum_of(rows, count);
    snprintf(text, size,
             "| set | mode | images | retrieved | after the cap | repeats | unreadable | stored | share |\n"
             "|---|---|--:|--:|--:|--:|--:|--:|--:|\n");
    for (int i = 0; i < count; i++)
        add_markdown(text, size, &rows[i], &sum);
    add_markdown(text, size, &sum, &sum);
    return text;
}

static void add_csv(char *text, size_t size, const CompositionRow *row, const CompositionRow *sum)
{
    size_t used = strlen(text);
    snprintf(text + used, size - used,
             "%s,%s,%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 ",%.6f\n",
             row->name, row->mode, row->images, row->retrieved, row->final, row->repeats, row->unreadable,
             composition_table_stored(row), share_of(row, sum) / 100.0);
}

char *composition_table_csv(const CompositionRow *rows, int count)
{
    size_t size = ((size_t)count + 3) * LINE_BYTES;
    char *text = memory_alloc(size);
    CompositionRow sum = sum_of(rows, count);
    snprintf(text, size, "set,mode,images,retrieved,after_the_cap,repeats,unreadable,stored,share\n");
    for (int i = 0; i < count; i++)
        add_csv(text, size, &rows[i], &sum);
    add_csv(text, size, &sum, &sum);
    return text;
}
