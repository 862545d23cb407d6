/* composition_table.h - what a data set was put together from, a line for each part, as the DINOv2 paper's
 * Table 15 tells it.
 */
#ifndef DINOBATCH_CURATION_COMPOSITION_TABLE_H
#define DINOBATCH_CURATION_COMPOSITION_TABLE_H

#include <stdint.h>

enum { COMPOSITION_TABLE_NAME = 96 };

typedef struct {
    char name[COMPOSITION_TABLE_NAME]; /* of the query set, or of the set that went in as it is */
    const char *mode;                  /* "as is", "sample", "cluster"; static */
    int64_t images;                    /* of that set */
    int64_t retrieved;                 /* pictures before the cap; of a set as it is, its own */
    int64_t final;                     /* after the cap: what Table 15 counts */
    int64_t repeats;                   /* of these, in the data set already */
    int64_t unreadable;                /* of the others, left out because they do not decode */
} CompositionRow;

/* Pictures of the part that are in the data set. */
int64_t composition_table_stored(const CompositionRow *row);

/* The table with a line of sums, as text; numbers of Markdown with commas between thousands. memory_free. */
char *composition_table_markdown(const CompositionRow *rows, int count);
char *composition_table_csv(const CompositionRow *rows, int count);

#endif
