/* neighbour_list.h - the k nearest rows of a query, ordered by similarity, then by id.
 *
 * The order is total, so which k rows are kept, and where each stands, does not depend on the order in which
 * they come, nor on how they are dealt to ranks.
 */
#ifndef DINOBATCH_INDEX_NEIGHBOUR_LIST_H
#define DINOBATCH_INDEX_NEIGHBOUR_LIST_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    int64_t id;       /* -1: an empty place */
    float similarity; /* -INFINITY of an empty place */
} Neighbour;

/* True if `a` comes after `b`: less similar, or as similar and of a higher id. Empty places come last. */
bool neighbour_list_is_after(Neighbour a, Neighbour b);

/* k empty places: a heap with the worst at list[0]. */
void neighbour_list_clear(Neighbour *list, int64_t k);

/* Keeps `item` if it comes before the worst of the heap, which then goes. */
void neighbour_list_offer(Neighbour *list, int64_t k, Neighbour item);

/* The heap becomes a list, nearest first, empty places at its end. */
void neighbour_list_sort(Neighbour *list, int64_t k);

/* out[k] = the first k of `count` sorted lists together; list i is lists + i * stride, k long. `heads` is
 * work space for `count` numbers. */
void neighbour_list_merge(Neighbour *out, int64_t k, const Neighbour *lists, int64_t stride, int count,
                          int64_t *heads);

#endif
