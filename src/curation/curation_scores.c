/* curation_scores.c - counts over groups, sources and lists of neighbours. */
#include "curation/curation_scores.h"

#include "base/memory.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

double curation_scores_share(ScoreShare share)
{
    return share.of > 0 ? (double)share.found / (double)share.of : 1;
}

static void count(ScoreShare *share, bool found)
{
    share->found += found;
    share->of++;
}

/* --- groups --- */

typedef struct {
    int64_t group, source, row;
} Member;

static int compare_members(const void *a, const void *b)
{
    const Member *x = a, *y = b;
    if (x->group != y->group) return x->group < y->group ? -1 : 1;
    if (x->source != y->source) return x->source < y->source ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

/* sizes[count] = rows of each one's group and source together; group_sizes[count] of its group. */
static void count_members(const CurationTruth *truth, const int64_t *group, int64_t *group_sizes,
                          int64_t *both_sizes)
{
    int64_t n = truth->count;
    Member *members = memory_alloc_array((size_t)n + 1, sizeof *members);
    for (int64_t i = 0; i < n; i++)
        members[i] = (Member){group[i], truth->source[i], i};
    qsort(members, (size_t)n, sizeof *members, compare_members);
    for (int64_t first = 0, next; first < n; first = next) {
        for (next = first; next < n && members[next].group == members[first].group;)
            next++;
        for (int64_t same = first, end; same < next; same = end) {
            for (end = same; end < next && members[end].source == members[same].source;)
                end++;
            for (int64_t i = same; i < end; i++) {
                group_sizes[members[i].row] = next - first;
                both_sizes[members[i].row] = end - same;
            }
        }
    }
    memory_free(members);
}

static int compare_kinds(const void *a, const void *b)
{
    return strcmp(((const KindScore *)a)->kind, ((const KindScore *)b)->kind);
}

/* Counts a copy for each kind that its transform names: the letters of each step, numbers left out;
 * "chain:X>Y" is a chain. */
static void count_kinds(GroupScores *scores, const char *transform, bool linked)
{
    while (*transform) {
        size_t length = 0, step = strcspn(transform, "+");
        while (length < step && length < CURATION_SCORES_KIND_BYTES - 1 &&
               isalpha((unsigned char)transform[length]))
            length++;
        int k = 0;
        while (k < scores->kinds && (strlen(scores->kind[k].kind) != length ||
                                     memcmp(scores->kind[k].kind, transform, length) != 0))
            k++;
        if (k < CURATION_SCORES_KINDS) {
            if (k == scores->kinds) memcpy(scores->kind[scores->kinds++].kind, transform, length);
            count(&scores->kind[k].linked, linked);
        }
        if (strncmp(transform, "chain:", 6) == 0) return;
        transform += step + (transform[step] != 0);
    }
}

void curation_scores_groups(GroupScores *scores, const CurationTruth *truth, const int64_t *group)
{
    int64_t n = truth->count, grouped = 0, copied = 0;
    int64_t *group_sizes = memory_alloc_array((size_t)n + 1, sizeof *group_sizes);
    int64_t *both = memory_alloc_array((size_t)n + 1, sizeof *both);
    int64_t *source_sizes = memory_alloc_array((size_t)truth->sources + 1, sizeof *source_sizes);
    double precision = 0, recall = 0;
    *scores = (GroupScores){0};
    count_members(truth, group, group_sizes, both);
    for (int64_t i = 0; i < n; i++)
        source_sizes[truth->source[i]]++;
    for (int64_t i = 0; i < n; i++) {
        int64_t p = group_sizes[i] - 1, t = source_sizes[truth->source[i]] - 1, found = both[i] - 1;
        if (p > 0) precision += (double)found / (double)p, grouped++;
        if (t > 0) recall += (double)found / (double)t, copied++;
        int64_t level = truth->level[i];
        if (level < 0) continue;
        if (level < CURATION_SCORES_LEVELS) count(&scores->linked[level], found > 0);
        count_kinds(scores, truth->transform[i], found > 0);
    }
    scores->precision = grouped ? precision / (double)grouped : 1;
    scores->recall = copied ? recall / (double)copied : 1;
    double sum = scores->precision + scores->recall;
    scores->f1 = sum > 0 ? 2 * scores->precision * scores->recall / sum : 0;
    qsort(scores->kind, (size_t)scores->kinds, sizeof *scores->kind, compare_kinds);
    memory_free(source_sizes);
    memory_free(both);
    memory_free(group_sizes);
}

void curation_scores_kept(KeptScores *scores, const CurationTruth *truth, const uint8_t *keep)
{
    int64_t *kept = memory_alloc_array((size_t)truth->sources + 1, sizeof *kept), extra = 0, lost = 0;
    for (int64_t i = 0; i < truth->count; i++)
        kept[truth->source[i]] += keep[i];
    for (int64_t s = 0; s < truth->sources; s++) {
        extra += kept[s] > 1 ? kept[s] - 1 : 0;
        lost += kept[s] == 0;
    }
    memory_free(kept);
    int64_t redundant = truth->count - truth->sources;
    scores->redundancy_removed = redundant > 0 ? 1 - (double)extra / (double)redundant : 1;
    scores->sources_lost = truth->sources > 0 ? (double)lost / (double)truth->sources : 0;
}

void curation_scores_leaks(LeakScores *scores, const CurationTruth *truth, const uint8_t *removed)
{
    *scores = (LeakScores){0};
    for (int64_t i = 0; i < truth->count; i++) {
        int64_t level = truth->leak_level[i];
        bool leak = level != CURATION_TRUTH_NO_LEAK;
        count(leak ? &scores->recall : &scores->wrongly_removed, removed[i]);
        if (removed[i]) count(&scores->precision, leak);
        if (leak && level >= 0 && level < CURATION_SCORES_LEVELS) count(&scores->level[level], removed[i]);
    }
}

/* --- retrieval --- */

static bool is_of_set(const CurationLabels *queries, const char *label)
{
    for (int64_t q = 0; q < queries->count; q++)
        if (strcmp(queries->label[q], label) == 0) return true;
    return false;
}

/* [pool->count], owned by the caller. */
static uint8_t *find_of_set(const CurationLabels *queries, const CurationLabels *pool)
{
    uint8_t *of_set = memory_alloc((size_t)pool->count + 1);
    for (int64_t i = 0; i < pool->count; i++)
        of_set[i] = is_of_set(queries, pool->label[i]);
    return of_set;
}

void curation_scores_retrieval(RetrievalScore *out, const int64_t *k, int scores,
                               const CurationLabels *queries, const CurationLabels *pool,
                               const int64_t *neighbours, int64_t stride)
{
    uint8_t *of_set = find_of_set(queries, pool);
    for (int s = 0; s < scores; s++) {
        int64_t right = 0, in_set = 0;
        for (int64_t q = 0; q < queries->count; q++)
            for (int64_t place = 0, answers = 0; place < stride && answers < k[s]; place++) {
                int64_t row = neighbours[q * stride + place];
                if (row < 0) break;
                if (pool->ambiguous[row]) continue;
                answers++;
                right += strcmp(pool->label[row], queries->label[q]) == 0;
                in_set += of_set[row];
            }
        double wanted = (double)k[s] * (double)queries->count;
        out[s] = (RetrievalScore){k[s], (double)right / wanted, (double)in_set / wanted};
    }
    memory_free(of_set);
}

ScoreShare curation_scores_of_set(const CurationLabels *queries, const CurationLabels *pool,
                                  const int64_t *row, int64_t n)
{
    ScoreShare share = {0};
    uint8_t *of_set = find_of_set(queries, pool);
    for (int64_t i = 0; i < n; i++)
        if (!pool->ambiguous[row[i]]) count(&share, of_set[row[i]]);
    memory_free(of_set);
    return share;
}
