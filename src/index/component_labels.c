/* component_labels.c - see component_labels.h.
 *
 * All steps are exchanges in which every rank takes part, with nothing to ask where it has nothing to do; a
 * sum over ranks says when there is nothing left to do anywhere.
 */
#include "index/component_labels.h"

#include "base/check.h"
#include "base/memory.h"
#include "index/id_exchange.h"
#include "index/index_rows.h"

#include <stdlib.h>
#include <string.h>

enum {
    WALK_MOST = 8,          /* steps to a root; after longer walks all trees are flattened */
    FINISH_BLOCK = 1 << 20, /* ids that are flattened at a time */
};

/* Different ids, ascending, and the root of each as far as it is known. */
typedef struct {
    int64_t *ids, *root; /* [count] owned */
    int64_t count;
} Ends;

/* Labels of this rank that were roots before the batch. */
typedef struct {
    int64_t *place; /* [count] owned */
    int64_t count, room;
} Hooked;

void component_labels_init(ComponentLabels *labels, int64_t total, const Comm *comm)
{
    int rank = comm_rank(comm), size = comm_size(comm);
    labels->total = total;
    labels->first = index_range_first(total, rank, size);
    labels->count = index_range_first(total, rank + 1, size) - labels->first;
    labels->label = memory_alloc_array((size_t)labels->count, sizeof *labels->label);
    for (int64_t i = 0; i < labels->count; i++)
        labels->label[i] = labels->first + i;
}

void component_labels_fini(ComponentLabels *labels)
{
    memory_free(labels->label);
    *labels = (ComponentLabels){0};
}

/* --- looking up --- */

static int64_t sum_over_ranks(Comm *comm, int64_t value)
{
    comm_all_reduce(comm, &value, 1, DTYPE_I64, COMM_SUM, NULL);
    return value;
}

typedef struct {
    int64_t id, place;
} Wanted;

static int by_id(const void *left, const void *right)
{
    const Wanted *a = left, *b = right;
    return a->id < b->id ? -1 : a->id > b->id;
}

/* ids[n] = their labels, n may be 0; each different id is asked for once. Collective. */
static void look_up(const ComponentLabels *labels, int64_t *ids, int64_t n, Comm *comm)
{
    Wanted *wanted = memory_alloc_array((size_t)n, sizeof *wanted);
    int64_t *asked = memory_alloc_array((size_t)n, sizeof *asked), count = 0;
    for (int64_t i = 0; i < n; i++)
        wanted[i] = (Wanted){ids[i], i};
    qsort(wanted, (size_t)n, sizeof *wanted, by_id);
    for (int64_t i = 0; i < n; i++)
        if (i == 0 || wanted[i].id != wanted[i - 1].id) asked[count++] = wanted[i].id;

    IdExchange exchange;
    id_exchange_init(&exchange, asked, count, 1, labels->total, comm);
    for (int64_t i = 0; i < exchange.count; i++)
        exchange.taken[i] = labels->label[exchange.taken[i] - labels->first];
    id_exchange_answer(&exchange, asked, exchange.taken);
    id_exchange_fini(&exchange);

    for (int64_t i = 0, at = -1; i < n; i++) {
        if (i == 0 || wanted[i].id != wanted[i - 1].id) at++;
        ids[wanted[i].place] = asked[at];
    }
    memory_free(asked);
    memory_free(wanted);
}

/* root[n] = the root above each; returns the steps that the longest walk took. Collective. */
static int64_t walk(const ComponentLabels *labels, int64_t *root, int64_t n, Comm *comm)
{
    int64_t *next = memory_alloc_array((size_t)n, sizeof *next);
    int64_t *place = memory_alloc_array((size_t)n, sizeof *place), open = n, steps = 0;
    for (int64_t i = 0; i < n; i++)
        place[i] = i;
    for (; sum_over_ranks(comm, open) > 0; steps++) {
        for (int64_t i = 0; i < open; i++)
            next[i] = root[place[i]];
        look_up(labels, next, open, comm);
        int64_t still = 0;
        for (int64_t i = 0; i < open; i++) {
            if (root[place[i]] == next[i]) continue;
            root[place[i]] = next[i];
            place[still++] = place[i];
        }
        open = still;
    }
    memory_free(place);
    memory_free(next);
    return steps;
}

/* --- hooking --- */

typedef struct {
    int64_t id, label;
} Proposal;

static int by_id_and_label(const void *left, const void *right)
{
    const Proposal *a = left, *b = right;
    if (a->id != b->id) return a->id < b->id ? -1 : 1;
    return a->label < b->label ? -1 : a->label > b->label;
}

static void note(Hooked *hooked, int64_t place)
{
    if (hooked->count == hooked->room) {
        int64_t room = hooked->room * 2 + 64;
        hooked->place = memory_grow(hooked->place, (size_t)hooked->room * sizeof(int64_t),
                                    (size_t)room * sizeof(int64_t));
        hooked->room = room;
    }
    hooked->place[hooked->count++] = place;
}

/* Each id's label becomes the least of what it is and what any rank proposes, which is never above the id.
 * Roots that become children are noted. Sorts the proposals. Collective. */
static void lower(ComponentLabels *labels, Proposal *proposals, int64_t n, Hooked *hooked, Comm *comm)
{
    qsort(proposals, (size_t)n, sizeof *proposals, by_id_and_label);
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++)
        if (i == 0 || proposals[i].id != proposals[i - 1].id) proposals[kept++] = proposals[i];
    IdExchange exchange;
    id_exchange_init(&exchange, (const int64_t *)(const void *)proposals, kept, 2, labels->total, comm);
    for (int64_t i = 0; i < exchange.count; i++) {
        int64_t id = exchange.taken[2 * i], label = exchange.taken[2 * i + 1];
        int64_t *mine = &labels->label[id - labels->first];
        if (label >= *mine) continue;
        if (*mine == id) note(hooked, id - labels->first);
        *mine = label;
    }
    id_exchange_fini(&exchange);
}

/* Pointer jumping: the labels that were hooked point to roots afterwards. Depths halve with every step, since
 * all of them jump at once. Collective. */
static void flatten(ComponentLabels *labels, const Hooked *hooked, Comm *comm)
{
    int64_t *above = memory_alloc_array((size_t)hooked->count, sizeof *above), changed = 1;
    while (sum_over_ranks(comm, changed) > 0) {
        for (int64_t i = 0; i < hooked->count; i++)
            above[i] = labels->label[hooked->place[i]];
        look_up(labels, above, hooked->count, comm);
        changed = 0;
        for (int64_t i = 0; i < hooked->count; i++) {
            int64_t *label = &labels->label[hooked->place[i]];
            changed += above[i] != *label;
            *label = above[i];
        }
    }
    memory_free(above);
}

/* --- a batch --- */

static int by_number(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return a < b ? -1 : a > b;
}

static void ends_init(Ends *ends, const IndexEdge *edges, int64_t n)
{
    ends->ids = memory_alloc_array(2 * (size_t)n, sizeof *ends->ids);
    ends->count = 0;
    for (int64_t i = 0; i < n; i++) {
        ends->ids[2 * i] = edges[i].a;
        ends->ids[2 * i + 1] = edges[i].b;
    }
    qsort(ends->ids, 2 * (size_t)n, sizeof *ends->ids, by_number);
    for (int64_t i = 0; i < 2 * n; i++)
        if (i == 0 || ends->ids[i] != ends->ids[ends->count - 1]) ends->ids[ends->count++] = ends->ids[i];
    ends->root = memory_alloc_array((size_t)ends->count, sizeof *ends->root);
    memcpy(ends->root, ends->ids, (size_t)ends->count * sizeof *ends->root);
}

static int64_t root_of(const Ends *ends, int64_t id)
{
    const int64_t *at = bsearch(&id, ends->ids, (size_t)ends->count, sizeof *ends->ids, by_number);
    return ends->root[at - ends->ids];
}

/* Edges between different trees, as proposals to the larger root; returns their number. */
static int64_t propose(Proposal *proposals, const IndexEdge *edges, int64_t n, const Ends *ends)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t a = root_of(ends, edges[i].a), b = root_of(ends, edges[i].b);
        if (a != b) proposals[count++] = a > b ? (Proposal){a, b} : (Proposal){b, a};
    }
    return count;
}

/* The batch's own ends point to their roots, which keeps later walks short. Collective. */
static void shorten(ComponentLabels *labels, const Ends *ends, Hooked *hooked, Comm *comm)
{
    Proposal *proposals = memory_alloc_array((size_t)ends->count, sizeof *proposals);
    int64_t count = 0;
    for (int64_t i = 0; i < ends->count; i++)
        if (ends->ids[i] != ends->root[i]) proposals[count++] = (Proposal){ends->ids[i], ends->root[i]};
    lower(labels, proposals, count, hooked, comm);
    memory_free(proposals);
}

static Status check(const ComponentLabels *labels, const IndexEdge *edges, int64_t n, Error *error)
{
    for (int64_t i = 0; i < n; i++)
        if (edges[i].a < 0 || edges[i].b < 0 || edges[i].a >= labels->total || edges[i].b >= labels->total)
            return status_fail(error, STATUS_INPUT, "an edge from %lld to %lld among %lld rows",
                               (long long)edges[i].a, (long long)edges[i].b, (long long)labels->total);
    return STATUS_OK;
}

Status component_labels_unite(ComponentLabels *labels, const IndexEdge *edges, int64_t n, Comm *comm,
                              Error *error)
{
    TRY(comm_agree(comm, check(labels, edges, n, error), error));
    Ends ends;
    Hooked hooked = {0};
    ends_init(&ends, edges, n);
    Proposal *proposals = memory_alloc_array((size_t)n, sizeof *proposals);
    int64_t longest = 0;
    for (;;) {
        int64_t steps = walk(labels, ends.root, ends.count, comm);
        longest = steps > longest ? steps : longest;
        int64_t count = propose(proposals, edges, n, &ends);
        if (sum_over_ranks(comm, count) == 0) break;
        lower(labels, proposals, count, &hooked, comm);
        flatten(labels, &hooked, comm);
    }
    shorten(labels, &ends, &hooked, comm);
    memory_free(proposals);
    memory_free(hooked.place);
    memory_free(ends.ids);
    memory_free(ends.root);
    if (longest > WALK_MOST) component_labels_finish(labels, comm);
    return STATUS_OK;
}

void component_labels_finish(ComponentLabels *labels, Comm *comm)
{
    int64_t most = index_range_first(labels->total, 1, comm_size(comm)); /* rank 0's are as many as any's */
    for (int64_t first = 0; first < most; first += FINISH_BLOCK) {
        int64_t n = labels->count - first;
        n = n < 0 ? 0 : n < FINISH_BLOCK ? n : FINISH_BLOCK;
        int64_t *block = labels->label + (n ? first : 0);
        int64_t *root = memory_alloc_array((size_t)n, sizeof *root);
        memcpy(root, block, (size_t)n * sizeof *root);
        walk(labels, root, n, comm);
        memcpy(block, root, (size_t)n * sizeof *root);
        memory_free(root);
    }
}
