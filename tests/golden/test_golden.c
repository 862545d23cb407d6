/* test_golden.c - our results against the reference's, one parameterised test over the *.h5 of GOLDEN_DIR.
 *
 * Prints a line per file: data sets compared of those that must be, and the worst error as a share of its
 * tolerance. A kind without a checker fails.
 */
#include "golden.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *kind;
    GoldenChecker check;
} GoldenKind;

static const GoldenKind KINDS[] = {
    {"adamw", golden_adamw},         {"augment", golden_augment},
    {"dino_head", golden_dino_head}, {"knn", golden_knn},
    {"linear", golden_linear},       {"losses", golden_losses},
    {"masking", golden_masking},     {"param_groups", golden_param_groups},
    {"pos_embed", golden_pos_embed}, {"schedules", golden_schedules},
    {"sscd", golden_sscd},           {"stochastic_depth", golden_stochastic_depth},
    {"train", golden_train},         {"vit", golden_vit},
};

enum { MAX_FILES = 256, MAX_NAME = 512 };

typedef struct {
    char path[MAX_NAME];
} GoldenCase;

static const char *golden_dir(void)
{
    const char *dir = getenv("GOLDEN_DIR");
    return dir && *dir ? dir : "tests/golden/data";
}

static bool is_h5(const char *name)
{
    size_t length = strlen(name);
    return length > 3 && name[0] != '.' && strcmp(name + length - 3, ".h5") == 0;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const GoldenCase *)a)->path, ((const GoldenCase *)b)->path);
}

static GoldenCase *list_cases(size_t *count)
{
    GoldenCase *cases = cr_malloc(MAX_FILES * sizeof *cases);
    *count = 0;
    DIR *dir = opendir(golden_dir());
    for (struct dirent *entry = dir ? readdir(dir) : NULL; entry && *count < MAX_FILES; entry = readdir(dir))
        if (is_h5(entry->d_name))
            snprintf(cases[(*count)++].path, MAX_NAME, "%s/%s", golden_dir(), entry->d_name);
    if (dir) closedir(dir);
    qsort(cases, *count, sizeof *cases, by_path);
    if (*count == 0) /* one case that fails and says why */
        snprintf(cases[(*count)++].path, MAX_NAME, "%s", golden_dir());
    return cases;
}

/* "train_sinkhorn" -> "train", "vit_mlp" -> "vit", other stems as they are. */
static void kind_of(const char *stem, char *kind, size_t size)
{
    snprintf(kind, size, "%s", stem);
    if (strncmp(kind, "train_", 6) == 0) kind[5] = '\0';
    if (strncmp(kind, "vit_", 4) == 0) kind[3] = '\0';
}

static GoldenChecker checker_of(const char *kind)
{
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++)
        if (strcmp(KINDS[i].kind, kind) == 0) return KINDS[i].check;
    return NULL;
}

ParameterizedTestParameters(golden, file)
{
    size_t count;
    GoldenCase *cases = list_cases(&count);
    return cr_make_param_array(GoldenCase, cases, count);
}

ParameterizedTest(GoldenCase *test, golden, file, .timeout = 300)
{
    Golden *golden = golden_open(test->path);
    cr_assert(golden != NULL, "%s: no golden file there (GOLDEN_DIR)", test->path);
    char kind[64];
    kind_of(golden_stem(golden), kind, sizeof kind);
    GoldenChecker check = checker_of(kind);
    cr_assert(check != NULL, "%s: unknown kind \"%s\"", test->path, kind);
    check(golden);
    GoldenSummary summary;
    golden_summary(golden, &summary);
    fprintf(stderr, "golden %-20s %lld/%lld compared, worst %.3f of its tolerance%s%s\n", golden_stem(golden),
            (long long)summary.compared, (long long)summary.total, summary.worst,
            summary.worst > 0.0 || isnan(summary.worst) ? " at " : "", summary.worst_path);
    golden_close(golden);
    cr_assert(summary.failures == 0 && summary.compared == summary.total && summary.total > 0,
              "%s: %lld failures, %lld of %lld compared\n%s", test->path, (long long)summary.failures,
              (long long)summary.compared, (long long)summary.total, summary.text);
}
