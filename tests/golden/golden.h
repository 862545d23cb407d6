/* golden.h - comparing our results with the reference's, stored in HDF5 files.
 *
 * A kind of file (its stem, or the part before `_` for train_* and vit_*) has one checker, registered in the
 * table of test_golden.c. A checker reads inputs and settings from the file, runs our code and compares every
 * result; test_golden.c opens the file, prints one line "compared/total, worst share of a tolerance" and
 * fails when a comparison failed or a data set that has a `tol_abs` was never compared.
 *
 *     void golden_pos_embed(Golden *golden)
 *     {
 *         GoldenShape shape;
 *         const float *grid = golden_f32(golden, &shape, "case%d/input", i);
 *         ...
 *         golden_compare(golden, mine, count, "case%d/out", i);
 *     }
 *
 * All paths are printf formats relative to the file's root. What is read belongs to the Golden and lives
 * until the file is closed. Reading what is not there stops the test with a message: use golden_has first.
 */
#ifndef DINOBATCH_TESTS_GOLDEN_GOLDEN_H
#define DINOBATCH_TESTS_GOLDEN_GOLDEN_H

#include <stdbool.h>
#include <stdint.h>

#define GOLDEN_PATH(format_at) __attribute__((format(printf, format_at, (format_at) + 1)))

enum { GOLDEN_MAX_DIMS = 8 };

typedef struct {
    int ndim; /* 0: a scalar */
    int64_t dim[GOLDEN_MAX_DIMS];
    int64_t count; /* product of the dimensions, 1 for a scalar */
} GoldenShape;

/* An open file and the tally of what has been compared. */
typedef struct Golden Golden;

typedef void (*GoldenChecker)(Golden *golden);

/* --- reading -----------------------------------------------------------------------------------------------
 */

bool golden_has(Golden *golden, const char *path, ...) GOLDEN_PATH(2); /* data set or group */

/* Data sets, converted to the type asked for; `shape` may be NULL. */
const float *golden_f32(Golden *golden, GoldenShape *shape, const char *path, ...) GOLDEN_PATH(3);
const double *golden_f64(Golden *golden, GoldenShape *shape, const char *path, ...) GOLDEN_PATH(3);
const int64_t *golden_i64(Golden *golden, GoldenShape *shape, const char *path, ...) GOLDEN_PATH(3);
const uint8_t *golden_u8(Golden *golden, GoldenShape *shape, const char *path, ...) GOLDEN_PATH(3);
double golden_scalar(Golden *golden, const char *path, ...) GOLDEN_PATH(2);

/* Attributes of a group or data set ("" or "/" is the root). */
bool golden_has_attr(Golden *golden, const char *name, const char *path, ...) GOLDEN_PATH(3);
double golden_attr(Golden *golden, const char *name, const char *path, ...) GOLDEN_PATH(3);
const double *golden_attr_array(Golden *golden, const char *name, int64_t *count, const char *path, ...)
    GOLDEN_PATH(4);
const char *golden_attr_text(Golden *golden, const char *name, const char *path, ...) GOLDEN_PATH(3);

/* Names of the direct members of a group, in alphabetical order, NULL at the end; their number in `count`
 * (may be NULL). */
const char *const *golden_members(Golden *golden, int64_t *count, const char *path, ...) GOLDEN_PATH(3);

/* Full paths (no leading slash) of all data sets below a group, alphabetical, NULL at the end. */
const char *const *golden_datasets(Golden *golden, int64_t *count, const char *path, ...) GOLDEN_PATH(3);

/* The stem of the file: "train_sinkhorn". */
const char *golden_stem(const Golden *golden);

/* --- comparing ---------------------------------------------------------------------------------------------
 */
/* Each returns whether it agreed, and notes the data set as compared. A wrong count or a NaN fails. */

/* max |mine - stored| <= tol_abs of the data set. */
bool golden_compare(Golden *golden, const float *mine, int64_t count, const char *path, ...) GOLDEN_PATH(4);
bool golden_compare_f64(Golden *golden, const double *mine, int64_t count, const char *path, ...)
    GOLDEN_PATH(4);

/* The same against a limit of the checker's own. */
bool golden_compare_within(Golden *golden, const float *mine, int64_t count, double limit, const char *path,
                           ...) GOLDEN_PATH(5);

/* First and last third of a qkv bias against tol_abs_qv (the key bias has no gradient: only noise). */
bool golden_compare_qkv_bias(Golden *golden, const float *mine, int64_t count, const char *path, ...)
    GOLDEN_PATH(4);

/* Every element equal. */
bool golden_compare_u8(Golden *golden, const uint8_t *mine, int64_t count, const char *path, ...)
    GOLDEN_PATH(4);
bool golden_compare_i64(Golden *golden, const int64_t *mine, int64_t count, const char *path, ...)
    GOLDEN_PATH(4);

/* A verdict that the checker reached in its own way: `share` is the error as a part of what is allowed, so
 * above 1 (or NaN) is a failure. Used for statistics, norms and the like. */
bool golden_judge(Golden *golden, double share, const char *path, ...) GOLDEN_PATH(3);

/* Makes data sets without a tol_abs count as well: every data set for which `required` holds must be
 * compared. `path` has no leading slash. */
void golden_require(Golden *golden, bool (*required)(const char *path));

/* A failure that belongs to no data set. */
void golden_fail(Golden *golden, const char *format, ...) GOLDEN_PATH(2);

/* --- the runner's side
 * --------------------------------------------------------------------------------------- */

Golden *golden_open(const char *file); /* NULL when it cannot be opened */

typedef struct {
    int64_t compared, total; /* data sets that must be compared */
    int64_t failures;
    double worst; /* largest error as a share of its tolerance */
    char worst_path[256];
    char text[4096]; /* the first few failures and what was not compared, one a line */
} GoldenSummary;

/* The tally so far. */
void golden_summary(Golden *golden, GoldenSummary *summary);
void golden_close(Golden *golden);

/* --- the kinds
 * ------------------------------------------------------------------------------------------------ */

void golden_adamw(Golden *golden);
void golden_augment(Golden *golden);
void golden_dino_head(Golden *golden);
void golden_knn(Golden *golden);
void golden_linear(Golden *golden);
void golden_losses(Golden *golden);
void golden_masking(Golden *golden);
void golden_param_groups(Golden *golden);
void golden_pos_embed(Golden *golden);
void golden_schedules(Golden *golden);
void golden_sscd(Golden *golden);
void golden_stochastic_depth(Golden *golden);
void golden_train(Golden *golden);
void golden_vit(Golden *golden);

#endif
