/* balanced_sample.c - see balanced_sample.h. */
#include "index/balanced_sample.h"

#include "base/check.h"
#include "base/memory.h"
#include "base/rng.h"
#include "index/id_exchange.h"

#include <stdlib.h>
#include <string.h>

/* --- quotas --- */

static int by_number(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return a < b ? -1 : a > b;
}

void balanced_sample_deal(int64_t *quota, const int64_t *room, int64_t n, int64_t share)
{
    int64_t *sorted = memory_alloc_array((size_t)n, sizeof *sorted), level = 0, left = share;
    memcpy(sorted, room, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, by_number);
    for (int64_t i = 0; i < n; i++) { /* raise the level to what all those that are left can give */
        int64_t rise = left / (n - i), possible = sorted[i] - level;
        if (rise < possible) {
            level += rise;
            left -= rise * (n - i);
            break;
        }
        level = sorted[i];
        left -= possible * (n - i);
    }
    for (int64_t i = 0; i < n; i++) {
        quota[i] = room[i] < level ? room[i] : level;
        if (left == 0 || room[i] <= level) continue;
        quota[i]++;
        left--;
    }
    memory_free(sorted);
}

/* Children of each of `parents` clusters side by side: of cluster p those at order[start[p] .. start[p+1]].
 */
static void group_children(int64_t *order, int64_t *start, const int32_t *parent, int64_t children,
                           int64_t parents)
{
    memset(start, 0, (size_t)(parents + 1) * sizeof *start);
    for (int64_t c = 0; c < children; c++)
        start[parent[c] + 1]++;
    for (int64_t p = 0; p < parents; p++)
        start[p + 1] += start[p];
    for (int64_t c = 0; c < children; c++)
        order[start[parent[c]]++] = c;
    memmove(start + 1, start, (size_t)parents * sizeof *start);
    start[0] = 0;
}

/* quota[children] of the clusters below, from share[parents]. */
static void deal_level(int64_t *quota, const int64_t *room, int64_t children, const int32_t *parent,
                       const int64_t *share, int64_t parents)
{
    size_t n = (size_t)children;
    int64_t *order = memory_alloc_array(n, sizeof *order);
    int64_t *start = memory_alloc_array((size_t)parents + 1, sizeof *start);
    int64_t *rooms = memory_alloc_array(n, sizeof *rooms), *quotas = memory_alloc_array(n, sizeof *quotas);
    group_children(order, start, parent, children, parents);
    for (int64_t i = 0; i < children; i++)
        rooms[i] = room[order[i]];
    for (int64_t p = 0; p < parents; p++)
        balanced_sample_deal(quotas + start[p], rooms + start[p], start[p + 1] - start[p], share[p]);
    for (int64_t i = 0; i < children; i++)
        quota[order[i]] = quotas[i];
    memory_free(order);
    memory_free(start);
    memory_free(rooms);
    memory_free(quotas);
}

void balanced_sample_quota(const HierarchicalKmeans *tree, int64_t target, int64_t *quota)
{
    int64_t *room[HIERARCHICAL_KMEANS_LEVELS], *share[HIERARCHICAL_KMEANS_LEVELS];
    int top = tree->levels - 1;
    CHECK(top >= 0 && top < HIERARCHICAL_KMEANS_LEVELS);
    for (int l = 0; l <= top; l++) {
        size_t k = (size_t)tree->level[l].k;
        room[l] = memory_alloc_array(k, sizeof *room[l]);
        share[l] = memory_alloc_array(k, sizeof *share[l]);
        if (l == 0) memcpy(room[0], tree->population, k * sizeof *room[0]);
        for (int64_t c = 0; l > 0 && c < tree->level[l - 1].k; c++)
            room[l][tree->parent[l - 1][c]] += room[l - 1][c];
    }
    balanced_sample_deal(share[top], room[top], tree->level[top].k, target);
    for (int l = top; l > 0; l--)
        deal_level(share[l - 1], room[l - 1], tree->level[l - 1].k, tree->parent[l - 1], share[l],
                   tree->level[l].k);
    memcpy(quota, share[0], (size_t)tree->level[0].k * sizeof *quota);
    for (int l = 0; l <= top; l++) {
        memory_free(room[l]);
        memory_free(share[l]);
    }
}

/* --- rows --- */

/* A row that may be taken, as numbers that are sent. */
typedef struct {
    int64_t cluster, key, id;
} Ticket;

static int first_drawn(const void *left, const void *right)
{
    const Ticket *a = left, *b = right;
    if (a->cluster != b->cluster) return a->cluster < b->cluster ? -1 : 1;
    if (a->key != b->key) return a->key < b->key ? -1 : 1;
    return a->id < b->id ? -1 : a->id > b->id;
}

/* Keeps the first quota[cluster] of each cluster of the sorted tickets; returns how many that are. */
static int64_t cut(Ticket *tickets, int64_t n, const int64_t *quota)
{
    int64_t kept = 0, taken = 0;
    for (int64_t i = 0; i < n; i++) {
        taken = i > 0 && tickets[i].cluster == tickets[i - 1].cluster ? taken + 1 : 0;
        if (taken < quota[tickets[i].cluster]) tickets[kept++] = tickets[i];
    }
    return kept;
}

static int by_id(const void *left, const void *right)
{
    const Ticket *a = left, *b = right;
    return a->id < b->id ? -1 : a->id > b->id;
}

/* answers[n] = 1 for those of the tickets that came which the owner of their clusters takes. */
static void decide(int64_t *answers, const Ticket *came, int64_t n, const int64_t *quota)
{
    Ticket *sorted = memory_alloc_array((size_t)n, sizeof *sorted);
    memcpy(sorted, came, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, first_drawn);
    int64_t kept = cut(sorted, n, quota);
    qsort(sorted, (size_t)kept, sizeof *sorted, by_id);
    for (int64_t i = 0; i < n; i++)
        answers[i] = bsearch(&came[i], sorted, (size_t)kept, sizeof *sorted, by_id) != NULL;
    memory_free(sorted);
}

void balanced_sample_draw(uint8_t *keep, const IndexRows *rows, const int32_t *assignment,
                          const int64_t *quota, int64_t clusters, uint64_t seed, Comm *comm)
{
    Ticket *tickets = memory_alloc_array((size_t)rows->count, sizeof *tickets);
    for (int64_t i = 0; i < rows->count; i++) {
        int64_t id = rows->first + i;
        Rng rng = rng_at(seed, RNG_INDEX, INDEX_DRAW_BALANCE, (uint64_t)id);
        tickets[i] = (Ticket){assignment[i], (int64_t)(rng_u64(&rng) >> 1), id};
    }
    qsort(tickets, (size_t)rows->count, sizeof *tickets, first_drawn);
    int64_t n = cut(tickets, rows->count, quota);

    IdExchange exchange;
    id_exchange_init(&exchange, (const int64_t *)(const void *)tickets, n, 3, clusters, comm);
    int64_t *answers = memory_alloc_array((size_t)exchange.count, sizeof *answers);
    int64_t *mine = memory_alloc_array((size_t)n, sizeof *mine);
    decide(answers, (const Ticket *)(const void *)exchange.taken, exchange.count, quota);
    id_exchange_answer(&exchange, mine, answers);
    memset(keep, 0, (size_t)rows->count);
    for (int64_t i = 0; i < n; i++)
        keep[tickets[i].id - rows->first] = (uint8_t)mine[i];
    id_exchange_fini(&exchange);
    memory_free(mine);
    memory_free(answers);
    memory_free(tickets);
}
