/* prototype_cross_entropy.c - cross-entropy of student rows against teacher rows over many prototypes, with
 * its gradient.
 *
 * Source: DINOLoss.forward and iBOTPatchLoss.forward_masked of dinov2/loss; the fused softmax and
 * cross-entropy in pieces follows Dao et al., "FlashAttention", NeurIPS 2022, section 3.1 (running maximum
 * and sum of each tile, joined afterwards).
 *
 * For a block of student rows and the distinct teacher rows that they are compared with:
 *     1. teacher tiles: e = exp(z - tile maximum), with their sums; joined to the softmax of each row
 *     2. student tiles: <q, z> with q the sum of the row's targets, then e as above; joined to losses
 *     3. d z = weight / temp (targets * softmax - q), and from it both gradients, tile by tile
 * Steps 1 to 3 are one parallel loop each. d_student is summed in column groups, then over groups in order.
 *
 * What it is not: weights of losses, means, or the choice of pairs; callers give rows, targets and weights.
 */
#include "ops/cpu/prototype_blocks.h"

#include "base/check.h"
#include "ops/cpu/sgemm.h"
#include "ops/cpu/vector_math.h"
#include "ops/ops_backend.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* exp(z - maximum) of the rows of one side, and what it takes to make softmax of it: [tiles, block] each. */
typedef struct {
    float *e;       /* [block, K] in tiles */
    float *maximum; /* of z; after joining: the factor that makes softmax of e */
    float *sum;     /* of e */
    float *product; /* teacher: sum e (z - maximum); student: <q, z> */
} TileRows;

typedef struct {
    const PrototypeCrossEntropy *args;
    PrototypeTiles tiles, teacher_tiles; /* which differ in the width of a row alone */
    int64_t block;                       /* room for rows of either side; enough for the targets of one row */
    int64_t most_rows;                   /* student rows of a block */
    int64_t targets;
    int threads;
    bool backward;
    float loss_scale;
    TileRows teacher, student;
    float *teacher_x;              /* [block, teacher's d] distinct teacher rows of the block */
    float *partial;                /* [groups, block, d] d_student of each group of tiles */
    int32_t *distinct;             /* [block] which teacher rows they are */
    int32_t *pairs;                /* [block] student rows of the block that use each */
    int32_t *slots;                /* [block, targets] place in `distinct`, filled from the left */
    int32_t *counts;               /* [block] targets of each student row */
    int64_t first, rows, teachers; /* the block */
} CrossEntropy;

/* --- layout ------------------------------------------------------------------------------------------------
 */

static int64_t stats_floats(int64_t floats)
{
    return floats / 64 + PROTOTYPE_BLOCK;
}

size_t prototype_cross_entropy_scratch(const OpsLimits *limits)
{
    int64_t d = limits->bottleneck;
    int64_t floats = prototype_block_floats(limits->prototypes, PROTOTYPE_SCORES, PROTOTYPE_BLOCK);
    return 2 * ops_cpu_piece(floats, sizeof(float)) + 6 * ops_cpu_piece(stats_floats(floats), sizeof(float)) +
           ops_cpu_piece(PROTOTYPE_BLOCK * d, sizeof(float)) +
           ops_cpu_piece(PROTOTYPE_GROUPS * PROTOTYPE_BLOCK * d, sizeof(float)) +
           3 * ops_cpu_piece(PROTOTYPE_BLOCK, sizeof(int32_t)) +
           ops_cpu_piece(PROTOTYPE_BLOCK * PROTOTYPE_MAX_TARGETS, sizeof(int32_t));
}

static float *floats_of(Arena *scratch, int64_t count)
{
    return arena_alloc(scratch, (size_t)count * sizeof(float));
}

static int32_t *ints_of(Arena *scratch, int64_t count)
{
    return arena_alloc(scratch, (size_t)count * sizeof(int32_t));
}

static TileRows tile_rows_layout(Arena *scratch, const PrototypeTiles *t, int64_t block)
{
    return (TileRows){.e = floats_of(scratch, block * t->K),
                      .maximum = floats_of(scratch, t->tiles * block),
                      .sum = floats_of(scratch, t->tiles * block),
                      .product = floats_of(scratch, t->tiles * block)};
}

static CrossEntropy cross_entropy_layout(const Ops *ops, const PrototypeCrossEntropy *args)
{
    int64_t n = args->student.shape[0], d = args->student.shape[1], K = args->student_v.shape[0];
    int64_t teacher_d = args->teacher.shape[1];
    CrossEntropy c = {.args = args,
                      .tiles = prototype_tiles(K, d),
                      .teacher_tiles = prototype_tiles(K, teacher_d),
                      .targets = args->targets.shape[1]};
    int64_t most = prototype_block_rows(K, PROTOTYPE_SCORES, PROTOTYPE_BLOCK);
    c.most_rows = prototype_even_rows(n, most);
    c.block = c.most_rows * c.targets < most ? c.most_rows * c.targets : most;
    c.backward = tensor_given(args->d_student);
    c.threads = ops->threads;
    c.loss_scale = tensor_given(args->loss_scale) ? (float)tensor_f64(args->loss_scale)[0] : 1.0f;
    c.teacher = tile_rows_layout(ops->scratch, &c.tiles, c.block);
    c.student = tile_rows_layout(ops->scratch, &c.tiles, c.block);
    c.teacher_x = floats_of(ops->scratch, c.block * teacher_d);
    c.partial = c.backward ? floats_of(ops->scratch, c.tiles.groups * c.block * d) : NULL;
    c.distinct = ints_of(ops->scratch, c.block);
    c.pairs = ints_of(ops->scratch, c.block);
    c.counts = ints_of(ops->scratch, c.block);
    c.slots = ints_of(ops->scratch, c.block * c.targets);
    return c;
}

/* --- blocks ------------------------------------------------------------------------------------------------
 */

/* The place of a teacher row among the block's; `teachers` (one past the last) if it is new. */
static int32_t find_slot(const CrossEntropy *c, int64_t teachers, int32_t row)
{
    for (int64_t slot = teachers - 1; slot >= 0; slot--)
        if (c->distinct[slot] == row) return (int32_t)slot;
    return (int32_t)teachers;
}

/* Adds the next student row to the block; false if its teacher rows do not fit any more. */
static bool take_row(CrossEntropy *c)
{
    const int32_t *targets = tensor_i32(c->args->targets) + (c->first + c->rows) * c->targets;
    int32_t *slots = c->slots + c->rows * c->targets, count = 0;
    int64_t teachers = c->teachers;
    for (int64_t t = 0; t < c->targets; t++) {
        if (targets[t] < 0) continue;
        CHECK(targets[t] < c->args->teacher.shape[0]);
        int32_t slot = find_slot(c, teachers, targets[t]);
        if (slot == c->block) return false;
        if (slot == teachers) {
            c->distinct[teachers] = targets[t];
            c->pairs[teachers++] = 0;
        }
        slots[count++] = slot;
    }
    for (int32_t t = 0; t < count; t++)
        c->pairs[slots[t]]++;
    c->counts[c->rows++] = count;
    c->teachers = teachers;
    return true;
}

/* Takes student rows from c->first on until the block or the room for their teacher rows is full. */
static void choose_block(CrossEntropy *c)
{
    int64_t n = c->args->student.shape[0], d = c->teacher_tiles.d;
    c->rows = 0;
    c->teachers = 0;
    while (c->first + c->rows < n && c->rows < c->most_rows && take_row(c))
        continue;
    CHECK(c->rows > 0);
    for (int64_t slot = 0; slot < c->teachers; slot++)
        memcpy(c->teacher_x + slot * d, tensor_f32(c->args->teacher) + c->distinct[slot] * d,
               (size_t)d * sizeof(float));
}

/* Calls a stage on every tile of the block, groups of tiles shared out over threads. */
typedef void (*TileStage)(const CrossEntropy *c, int64_t tile, int64_t group, bool first_of_group);

static void for_each_tile(const CrossEntropy *c, TileStage stage)
{
#pragma omp parallel for schedule(dynamic, 1) num_threads(c->threads)
    for (int64_t group = 0; group < c->tiles.groups; group++) {
        int64_t begin, end;
        prototype_group(&c->tiles, group, &begin, &end);
        for (int64_t tile = begin; tile < end; tile++)
            stage(c, tile, group, tile == begin);
    }
}

/* --- stage 1: teacher --------------------------------------------------------------------------------------
 */

static float largest_of(const float *restrict z, int64_t n)
{
    float maximum = -FLT_MAX;
#pragma omp simd reduction(max : maximum)
    for (int64_t k = 0; k < n; k++)
        maximum = z[k] > maximum ? z[k] : maximum;
    return maximum;
}

static void teacher_tile(const CrossEntropy *c, int64_t tile, int64_t group, bool first_of_group)
{
    (void)group;
    (void)first_of_group;
    const PrototypeCrossEntropy *a = c->args;
    int64_t width = prototype_width(&c->tiles, tile);
    float *z = c->teacher.e + tile * c->tiles.tile * c->teachers;
    prototype_tile_scores(&c->teacher_tiles, tile, c->teachers, c->teacher_x, tensor_f32(a->teacher_v),
                          tensor_f32(a->teacher_scale), a->teacher_temp, tensor_f32(a->teacher_bias), z);
    for (int64_t i = 0; i < c->teachers; i++) {
        float *restrict row = z + i * width;
        float maximum = largest_of(row, width), sum = 0.0f, product = 0.0f;
#pragma omp simd reduction(+ : sum, product)
        for (int64_t k = 0; k < width; k++) {
            float below = row[k] - maximum, e = vector_exp(below);
            row[k] = e;
            sum += e;
            product += e * below;
        }
        c->teacher.maximum[tile * c->block + i] = maximum;
        c->teacher.sum[tile * c->block + i] = sum;
        c->teacher.product[tile * c->block + i] = product;
    }
}

/* Joins the tiles of a row: returns log sum exp(z) and turns `maximum` into the factor that makes softmax of
 * e. `top` (may be NULL): the first tile that has the row's largest entry. */
static double join_tiles(const CrossEntropy *c, TileRows *side, int64_t i, int64_t *top)
{
    int64_t tiles = c->tiles.tiles, best = 0;
    for (int64_t tile = 1; tile < tiles; tile++)
        if (side->maximum[tile * c->block + i] > side->maximum[best * c->block + i]) best = tile;
    double maximum = (double)side->maximum[best * c->block + i], sum = 0.0;
    for (int64_t tile = 0; tile < tiles; tile++)
        sum += (double)side->sum[tile * c->block + i] *
               exp((double)side->maximum[tile * c->block + i] - maximum);
    double log_sum = maximum + log(sum);
    for (int64_t tile = 0; tile < tiles; tile++) {
        float *factor = &side->maximum[tile * c->block + i];
        *factor = (float)exp((double)*factor - log_sum);
    }
    if (top) *top = best;
    return log_sum;
}

/* Entropy -sum q log q of a teacher row: log q = (z - tile maximum) + log factor. */
static double row_entropy(const CrossEntropy *c, int64_t i)
{
    double entropy = 0.0;
    for (int64_t tile = 0; tile < c->tiles.tiles; tile++) {
        int64_t at = tile * c->block + i;
        double factor = (double)c->teacher.maximum[at];
        if (factor > 0.0)
            entropy -= factor * ((double)c->teacher.product[at] + (double)c->teacher.sum[at] * log(factor));
    }
    return entropy;
}

static void join_teachers(CrossEntropy *c, PrototypeCrossEntropy *args)
{
    for (int64_t i = 0; i < c->teachers; i++) {
        int64_t top, k = 0;
        join_tiles(c, &c->teacher, i, &top);
        tensor_f64(args->entropy)[0] += (double)c->pairs[i] * row_entropy(c, i);
        tensor_f64(args->entropy)[1] += c->pairs[i];
        if (!tensor_given(args->usage)) continue;
        int64_t width = prototype_width(&c->tiles, top);
        const float *row = c->teacher.e + top * c->tiles.tile * c->teachers + i * width;
        while (k < width - 1 && row[k] < 1.0f) /* the largest has exp(0) */
            k++;
        tensor_f32(args->usage)[top * c->tiles.tile + k] += (float)c->pairs[i];
    }
}

/* --- stage 2: student --------------------------------------------------------------------------------------
 */

/* The sum of a student row's targets over one tile: in `buffer`, or the teacher's own memory. */
static const float *target_sum(const CrossEntropy *c, int64_t tile, int64_t i, float *restrict buffer)
{
    int64_t width = prototype_width(&c->tiles, tile);
    const float *q = c->teacher.e + tile * c->tiles.tile * c->teachers;
    const int32_t *slots = c->slots + i * c->targets;
    if (c->counts[i] == 1) return q + slots[0] * width;
    memset(buffer, 0, (size_t)width * sizeof(float));
    for (int32_t t = 0; t < c->counts[i]; t++) {
        const float *restrict target = q + slots[t] * width;
#pragma omp simd
        for (int64_t k = 0; k < width; k++)
            buffer[k] += target[k];
    }
    return buffer;
}

static void student_tile(const CrossEntropy *c, int64_t tile, int64_t group, bool first_of_group)
{
    (void)group;
    (void)first_of_group;
    const PrototypeCrossEntropy *a = c->args;
    int64_t width = prototype_width(&c->tiles, tile);
    float *z = c->student.e + tile * c->tiles.tile * c->rows, buffer[PROTOTYPE_TILE];
    float *q = c->teacher.e + tile * c->tiles.tile * c->teachers;
    for (int64_t i = 0; i < c->teachers; i++) {
        float factor = c->teacher.maximum[tile * c->block + i];
#pragma omp simd
        for (int64_t k = i * width; k < (i + 1) * width; k++)
            q[k] *= factor;
    }
    prototype_tile_scores(&c->tiles, tile, c->rows, tensor_f32(a->student) + c->first * c->tiles.d,
                          tensor_f32(a->student_v), tensor_f32(a->student_scale), a->student_temp, NULL, z);
    for (int64_t i = 0; i < c->rows; i++) {
        float *restrict row = z + i * width;
        const float *restrict targets = target_sum(c, tile, i, buffer);
        float maximum = largest_of(row, width), sum = 0.0f, product = 0.0f;
#pragma omp simd reduction(+ : sum, product)
        for (int64_t k = 0; k < width; k++) {
            product += targets[k] * row[k];
            row[k] = vector_exp(row[k] - maximum);
            sum += row[k];
        }
        c->student.maximum[tile * c->block + i] = maximum;
        c->student.sum[tile * c->block + i] = sum;
        c->student.product[tile * c->block + i] = product;
    }
}

static void join_students(CrossEntropy *c)
{
    float *loss = tensor_f32(c->args->loss) + c->first;
#pragma omp parallel for schedule(static) num_threads(c->threads)
    for (int64_t i = 0; i < c->rows; i++) {
        double value = (double)c->counts[i] * join_tiles(c, &c->student, i, NULL);
        for (int64_t tile = 0; tile < c->tiles.tiles; tile++)
            value -= (double)c->student.product[tile * c->block + i];
        loss[i] = c->counts[i] > 0 ? (float)value : 0.0f;
    }
}

/* --- stage 3: gradients ------------------------------------------------------------------------------------
 */

static void gradient_tile(const CrossEntropy *c, int64_t tile, int64_t group, bool first_of_group)
{
    const PrototypeCrossEntropy *a = c->args;
    int64_t at = tile * c->tiles.tile, width = prototype_width(&c->tiles, tile), d = c->tiles.d;
    float *slope = c->student.e + at * c->rows, buffer[PROTOTYPE_TILE];
    const float *scale = tensor_f32(a->student_scale) + at;
    for (int64_t i = 0; i < c->rows; i++) {
        float *restrict row = slope + i * width;
        const float *restrict targets = target_sum(c, tile, i, buffer);
        float weight = c->loss_scale * tensor_f32(a->row_weight)[c->first + i] / a->student_temp;
        float factor = (float)c->counts[i] * c->student.maximum[tile * c->block + i];
        if (c->counts[i] == 0) {
            memset(row, 0, (size_t)width * sizeof(float));
            continue;
        }
#pragma omp simd
        for (int64_t k = 0; k < width; k++)
            row[k] = weight * (factor * row[k] - targets[k]);
    }
    SgemmOperand across = {.data = slope, .stride = width, .transposed = true};
    SgemmOperand x = {.data = tensor_f32(a->student) + c->first * d, .stride = d};
    sgemm_run(width, d, c->rows, across, x, true, tensor_f32(a->d_student_w) + at * d, d);

    /* d score / d x = scale v */
    for (int64_t i = 0; i < c->rows; i++)
        for (int64_t k = 0; k < width; k++)
            slope[i * width + k] *= scale[k];
    SgemmOperand along = {.data = slope, .stride = width};
    SgemmOperand v = {.data = tensor_f32(a->student_v) + at * d, .stride = d};
    sgemm_run(c->rows, d, width, along, v, !first_of_group, c->partial + group * c->block * d, d);
}

static void join_gradients(const CrossEntropy *c)
{
    int64_t count = c->rows * c->tiles.d;
    float *out = tensor_f32(c->args->d_student) + c->first * c->tiles.d;
#pragma omp parallel for simd schedule(static) num_threads(c->threads)
    for (int64_t j = 0; j < count; j++) {
        float sum = 0.0f;
        for (int64_t group = 0; group < c->tiles.groups; group++)
            sum += c->partial[group * c->block * c->tiles.d + j];
        out[j] = sum;
    }
}

void cpu_prototype_cross_entropy(const Ops *ops, PrototypeCrossEntropy *args)
{
    int64_t n = args->student.shape[0];
    if (n == 0) return;
    ops_check_prototype_cross_entropy(args);
    ArenaMark mark = arena_mark(ops->scratch);
    CrossEntropy c = cross_entropy_layout(ops, args);
    for (c.first = 0; c.first < n; c.first += c.rows) {
        choose_block(&c);
        if (c.teachers > 0) {
            for_each_tile(&c, teacher_tile);
            join_teachers(&c, args);
        }
        for_each_tile(&c, student_tile);
        join_students(&c);
        if (!c.backward) continue;
        for_each_tile(&c, gradient_tile);
        join_gradients(&c);
    }
    arena_reset(ops->scratch, mark);
}
