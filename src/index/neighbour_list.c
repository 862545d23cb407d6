/* neighbour_list.c - see neighbour_list.h. */
#include "index/neighbour_list.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool neighbour_list_is_after(Neighbour a, Neighbour b)
{
    if (a.similarity != b.similarity) return a.similarity < b.similarity;
    return (uint64_t)a.id > (uint64_t)b.id; /* -1, an empty place, is the largest */
}

void neighbour_list_clear(Neighbour *list, int64_t k)
{
    for (int64_t i = 0; i < k; i++)
        list[i] = (Neighbour){.id = -1, .similarity = -INFINITY};
}

void neighbour_list_offer(Neighbour *list, int64_t k, Neighbour item)
{
    if (!neighbour_list_is_after(list[0], item)) return;
    int64_t at = 0;
    for (;;) {
        int64_t child = 2 * at + 1;
        if (child >= k) break;
        if (child + 1 < k && neighbour_list_is_after(list[child + 1], list[child])) child++;
        if (!neighbour_list_is_after(list[child], item)) break;
        list[at] = list[child];
        at = child;
    }
    list[at] = item;
}

static int compare(const void *left, const void *right)
{
    const Neighbour *a = left, *b = right;
    return neighbour_list_is_after(*a, *b) ? 1 : neighbour_list_is_after(*b, *a) ? -1 : 0;
}

void neighbour_list_sort(Neighbour *list, int64_t k)
{
    qsort(list, (size_t)k, sizeof *list, compare);
}

void neighbour_list_merge(Neighbour *out, int64_t k, const Neighbour *lists, int64_t stride, int count,
                          int64_t *heads)
{
    memset(heads, 0, (size_t)count * sizeof *heads);
    for (int64_t i = 0; i < k; i++) {
        int best = 0;
        for (int l = 1; l < count; l++) /* no list runs out before all lists together have given k */
            if (neighbour_list_is_after(lists[best * stride + heads[best]], lists[l * stride + heads[l]]))
                best = l;
        out[i] = lists[best * stride + heads[best]++];
    }
}
