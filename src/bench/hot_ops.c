/* hot_ops.c - one measurement per operation and size. */
#include "bench/hot_ops.h"

#include "base/memory.h"
#include "bench/bench_operands.h"
#include "bench/ops_timed.h"

#include <stdio.h>
#include <string.h>

static const char SECTION[] = "operations";

/* Sequences of one picture: so many of one length, then of another. */
typedef struct {
    int count, length, count2, length2;
} LengthMix;

enum { MIXES = 7 };

typedef struct {
    int64_t tokens, width, hidden, heads;
    LengthMix mixes[MIXES]; /* those with a count */
    int64_t prototypes, bottleneck, loss_rows, koleo_rows;
    int64_t parameters; /* of the optimiser's flat vectors */
    Dtype act;
} Sizes;

static const Sizes CPU_SIZES = {.tokens = 4096,
                                .width = 384,
                                .hidden = 1536,
                                .heads = 6,
                                .mixes = {{1, 257, 0, 0},
                                          {1, 50, 0, 0},
                                          {1, 197, 0, 0},
                                          {1, 37, 0, 0},
                                          {1, 65, 0, 0},
                                          {1, 17, 0, 0},
                                          {1, 1370, 0, 0}},
                                .prototypes = 65536,
                                .bottleneck = 256,
                                .loss_rows = 168,
                                .koleo_rows = 64,
                                .parameters = 8 << 20,
                                .act = DTYPE_F32};
static const Sizes GPU_SIZES = {.tokens = 29248, /* 32 x (2 x 257 + 8 x 50) */
                                .width = 1024,
                                .hidden = 4096,
                                .heads = 16,
                                .mixes = {{2, 257, 8, 50}, {2, 197, 8, 37}, {2, 65, 8, 17}, {1, 1370, 0, 0}},
                                .prototypes = 131072,
                                .bottleneck = 256,
                                .loss_rows = 4096,
                                .koleo_rows = 32,
                                .parameters = 304 << 20,
                                .act = DTYPE_BF16};
static const Sizes QUICK_SIZES = {.tokens = 96,
                                  .width = 64,
                                  .hidden = 128,
                                  .heads = 2,
                                  .mixes = {{2, 17, 2, 5}, {1, 33, 0, 0}},
                                  .prototypes = 160,
                                  .bottleneck = 32,
                                  .loss_rows = 20,
                                  .koleo_rows = 8,
                                  .parameters = 4096,
                                  .act = DTYPE_BF16};

typedef struct {
    const Sizes *sizes;
    Dtype act;
    const Ops *ops; /* what the operation under way is called through */
    OpsTimed timed;
    BenchRows *rows;
    const HotOpsParams *params;
    Arena arena;
    Tensor a, b, c, d, e, f, g, vector, vector2; /* operands of the operation under way */
    Tensor integers;                             /* starts of sequences, or nearest rows */
    Tensor sums;                                 /* fp64 results */
    PrototypeCrossEntropy loss;
    AdamwUpdate update;
} HotOps;

/* Once to learn what one call does, then again and again without a listener. */
static void add(HotOps *h, int operation, void (*work)(void *context), const char *detail)
{
    ops_timed_reset(&h->timed);
    h->ops = &h->timed.ops;
    work(h);
    ops_timed_collect(&h->timed);
    h->ops = h->timed.inner;
    BenchTask task = {.context = h, .work = work, .device = h->params->device};
    BenchTimes times = bench_timer_run(&task, h->params->seconds, 3);
    const OpsTimedTotal *total = &h->timed.totals[operation];
    bool products = total->flops > 0;
    Dtype type = operation == OPS_TIMED_koleo ? DTYPE_F32 : h->act; /* KoLeo is never in 16 bits */
    bench_rows_add(h->rows, SECTION, products ? bench_rows_flops(type) : BENCH_BYTES,
                   products ? total->flops : total->bytes, times, "%s%s", ops_timed_name(operation), detail);
}

static Tensor matrix(HotOps *h, Dtype dtype, int64_t rows, int64_t columns)
{
    return bench_operands_2d(h->timed.inner, &h->arena, dtype, rows, columns, 1.0);
}

static Tensor vector(HotOps *h, int64_t n, double scale)
{
    return bench_operands_1d(h->timed.inner, &h->arena, n, scale);
}

static Tensor zeros(HotOps *h, Dtype dtype, int64_t n)
{
    return bench_operands_zeros(h->timed.inner, &h->arena, dtype, n);
}

static Tensor copy(HotOps *h, Dtype dtype, int64_t n, const void *values)
{
    return bench_operands_copy(h->timed.inner, &h->arena, dtype, n, values);
}

/* --- attention ---------------------------------------------------------------------------------------- */

static void attention_forward(void *context)
{
    HotOps *h = context;
    h->ops->attention_forward(h->ops, h->b, h->c, h->a, h->integers, h->sizes->heads);
}

static void attention_backward(void *context)
{
    HotOps *h = context;
    h->ops->attention_backward(h->ops, h->d, h->e, h->b, h->c, h->a, h->integers, h->sizes->heads);
}

/* Starts of the sequences of as many pictures as the tokens allow: all of the first length, then the rest.
 * Returns the tokens. */
static int64_t lay_out(HotOps *h, const LengthMix *mix)
{
    int64_t each = mix->count * mix->length + mix->count2 * mix->length2, pictures = h->sizes->tokens / each;
    int64_t first = pictures * mix->count, sequences = first + pictures * mix->count2;
    int32_t *starts = memory_alloc_array((size_t)sequences + 1, sizeof *starts);
    for (int64_t s = 0; s < sequences; s++)
        starts[s + 1] = starts[s] + (s < first ? mix->length : mix->length2);
    h->integers = copy(h, DTYPE_I32, sequences + 1, starts);
    memory_free(starts);
    return pictures * each;
}

/* `kernels` goes into the names of the rows. */
static void measure_attention(HotOps *h, const char *kernels)
{
    const Sizes *s = h->sizes;
    for (int i = 0; i < MIXES && s->mixes[i].count > 0; i++) {
        const LengthMix *mix = &s->mixes[i];
        arena_reset(&h->arena, ARENA_START);
        int64_t n = lay_out(h, mix);
        h->a = matrix(h, h->act, n, 3 * s->width);
        h->b = matrix(h, h->act, n, s->width);
        h->c = matrix(h, DTYPE_F32, n, s->heads);
        h->d = matrix(h, h->act, n, 3 * s->width);
        h->e = matrix(h, h->act, n, s->width);
        char detail[64];
        if (mix->count2 > 0)
            snprintf(detail, sizeof detail, " %d x %d + %d x %d%s", mix->count, mix->length, mix->count2,
                     mix->length2, kernels);
        else
            snprintf(detail, sizeof detail, " T = %d%s", mix->length, kernels);
        add(h, OPS_TIMED_attention_forward, attention_forward, detail);
        add(h, OPS_TIMED_attention_backward, attention_backward, detail);
    }
}

/* --- row-wise operations ------------------------------------------------------------------------------ */

static void layer_norm_forward(void *context)
{
    HotOps *h = context;
    h->ops->layer_norm_forward(h->ops, h->b, h->c, h->f, h->a, tensor_none(), h->vector, h->vector, 1e-6f);
}

static void layer_norm_backward(void *context)
{
    HotOps *h = context;
    h->ops->layer_norm_backward(h->ops, h->d, h->vector, h->vector2, h->g, h->b, h->f, tensor_none(), h->c,
                                h->e, h->e);
}

static void residual_forward(void *context)
{
    HotOps *h = context;
    h->ops->residual_forward(h->ops, h->a, h->b, tensor_none(), tensor_none(), h->e);
}

static void residual_backward(void *context)
{
    HotOps *h = context;
    h->ops->residual_backward(h->ops, h->d, h->vector, h->a, h->b, tensor_none(), tensor_none(), h->e);
}

static void gelu_forward(void *context)
{
    HotOps *h = context;
    h->ops->gelu_forward(h->ops, h->b, h->a);
}

static void gelu_backward(void *context)
{
    HotOps *h = context;
    h->ops->gelu_backward(h->ops, h->b, h->c, h->c, h->a);
}

static void measure_rows(HotOps *h)
{
    const Sizes *s = h->sizes;
    char detail[64];
    snprintf(detail, sizeof detail, " %lldx%lld", (long long)s->tokens, (long long)s->width);
    arena_reset(&h->arena, ARENA_START);
    h->a = matrix(h, DTYPE_F32, s->tokens, s->width);
    h->b = matrix(h, h->act, s->tokens, s->width);
    h->c = matrix(h, DTYPE_F32, s->tokens, 2);
    h->d = matrix(h, DTYPE_F32, s->tokens, s->width);
    h->f = matrix(h, h->act, s->tokens, s->width);
    h->g = matrix(h, h->act, s->tokens, s->width);
    h->e = vector(h, s->width, 1e-3);
    h->vector = vector(h, s->width, 1.0);
    h->vector2 = vector(h, s->width, 1.0);
    add(h, OPS_TIMED_layer_norm_forward, layer_norm_forward, detail);
    add(h, OPS_TIMED_layer_norm_backward, layer_norm_backward, detail);
    add(h, OPS_TIMED_residual_forward, residual_forward, detail);
    h->d = matrix(h, h->act, s->tokens, s->width);
    add(h, OPS_TIMED_residual_backward, residual_backward, detail);

    snprintf(detail, sizeof detail, " %lldx%lld", (long long)s->tokens, (long long)s->hidden);
    arena_reset(&h->arena, ARENA_START);
    h->a = matrix(h, h->act, s->tokens, s->hidden);
    h->b = matrix(h, h->act, s->tokens, s->hidden);
    h->c = matrix(h, h->act, s->tokens, s->hidden);
    add(h, OPS_TIMED_gelu_forward, gelu_forward, detail);
    add(h, OPS_TIMED_gelu_backward, gelu_backward, detail);
}

/* --- losses ------------------------------------------------------------------------------------------- */

static const float TEACHER_TEMP = 0.07f, STUDENT_TEMP = 0.1f;

static void sinkhorn(void *context)
{
    HotOps *h = context;
    h->ops->prototype_sinkhorn(h->ops, h->d, h->a, h->b, h->c, TEACHER_TEMP, 3, h->params->comm);
}

static void cross_entropy(void *context)
{
    HotOps *h = context;
    h->ops->prototype_cross_entropy(h->ops, &h->loss);
}

static void koleo(void *context)
{
    HotOps *h = context;
    h->ops->koleo(h->ops, h->sums, h->integers, h->b, h->a, 0.1, tensor_none());
}

/* Unit rows, as a head's bottleneck gives them. */
static Tensor unit_rows(HotOps *h, int64_t rows, int64_t columns)
{
    const Ops *ops = h->timed.inner;
    Tensor x = matrix(h, DTYPE_F32, rows, columns), unit = matrix(h, DTYPE_F32, rows, columns);
    ops->l2_normalize_forward(ops, unit, vector(h, rows, 1.0), x, 1e-12f);
    return unit;
}

/* Every student row against one teacher row, as in the patch loss. */
static void make_loss(HotOps *h)
{
    const Sizes *s = h->sizes;
    int32_t *targets = memory_alloc_array((size_t)s->loss_rows, sizeof *targets);
    for (int32_t i = 0; i < s->loss_rows; i++)
        targets[i] = i;
    h->loss = (PrototypeCrossEntropy){
        .student = unit_rows(h, s->loss_rows, s->bottleneck),
        .student_v = h->b,
        .student_scale = h->c,
        .student_temp = STUDENT_TEMP,
        .teacher = h->a,
        .teacher_v = h->b,
        .teacher_scale = h->c,
        .teacher_temp = TEACHER_TEMP,
        .teacher_bias = h->d,
        .targets = tensor_as_2d(copy(h, DTYPE_I32, s->loss_rows, targets), s->loss_rows, 1),
        .row_weight = vector(h, s->loss_rows, 0.01),
        .loss = vector(h, s->loss_rows, 1.0),
        .d_student = matrix(h, DTYPE_F32, s->loss_rows, s->bottleneck),
        .d_student_w = matrix(h, DTYPE_F32, s->prototypes, s->bottleneck),
        .usage = vector(h, s->prototypes, 1.0),
        .entropy = zeros(h, DTYPE_F64, 2)};
    memory_free(targets);
}

/* weight_v with the scale of unit weight_g, in the type that the operations take. */
static void make_prototypes(HotOps *h)
{
    const Ops *ops = h->timed.inner;
    const Sizes *s = h->sizes;
    float *ones = memory_alloc_array((size_t)s->prototypes, sizeof *ones);
    for (int64_t k = 0; k < s->prototypes; k++)
        ones[k] = 1.0f;
    Tensor v = bench_operands_2d(ops, &h->arena, DTYPE_F32, s->prototypes, s->bottleneck, 0.06);
    h->c = vector(h, s->prototypes, 1.0);
    h->d = vector(h, s->prototypes, 1.0);
    ops->prototype_scale(ops, h->c, v, copy(h, DTYPE_F32, s->prototypes, ones));
    h->b = v;
    if (ops->reduced_prototypes) {
        h->b = tensor_alloc_2d(&h->arena, h->act, s->prototypes, s->bottleneck);
        ops->cast(ops, h->b, v);
    }
    memory_free(ones);
}

static void measure_losses(HotOps *h)
{
    const Sizes *s = h->sizes;
    char detail[64];
    snprintf(detail, sizeof detail, " %lldx%lldx%lld", (long long)s->loss_rows, (long long)s->prototypes,
             (long long)s->bottleneck);
    arena_reset(&h->arena, ARENA_START);
    h->a = unit_rows(h, s->loss_rows, s->bottleneck);
    make_prototypes(h);
    add(h, OPS_TIMED_prototype_sinkhorn, sinkhorn, detail);
    make_loss(h);
    add(h, OPS_TIMED_prototype_cross_entropy, cross_entropy, detail);

    snprintf(detail, sizeof detail, " %lldx%lld", (long long)s->koleo_rows, (long long)s->width);
    arena_reset(&h->arena, ARENA_START);
    h->a = matrix(h, DTYPE_F32, s->koleo_rows, s->width);
    h->b = matrix(h, DTYPE_F32, s->koleo_rows, s->width);
    h->integers = zeros(h, DTYPE_I32, s->koleo_rows);
    h->sums = zeros(h, DTYPE_F64, 1);
    add(h, OPS_TIMED_koleo, koleo, detail);
}

/* --- optimiser ---------------------------------------------------------------------------------------- */

static void adamw(void *context)
{
    HotOps *h = context;
    h->ops->adamw(h->ops, &h->update);
}

static void ema(void *context)
{
    HotOps *h = context;
    h->ops->ema(h->ops, h->a, h->b, 0.994, tensor_none());
}

static void segment_squares(void *context)
{
    HotOps *h = context;
    h->ops->segment_squares(h->ops, h->sums, h->a, &h->update.segments);
}

/* One segment that is the whole vector, in a step that is finite. */
static void make_update(HotOps *h)
{
    const int64_t bounds[2] = {0, h->sizes->parameters};
    const int32_t module = 0;
    const double multiplier = 1.0;
    double control[CONTROL_COUNT];
    for (int i = 0; i < CONTROL_COUNT; i++)
        control[i] = 0.5;
    OpsSegments segments = {.count = 1,
                            .bounds = tensor_as_2d(copy(h, DTYPE_I64, 2, bounds), 1, 2),
                            .module = copy(h, DTYPE_I32, 1, &module),
                            .lr_multiplier = copy(h, DTYPE_F64, 1, &multiplier)};
    segments.rate = segments.module;
    segments.wd_multiplier = segments.lr_multiplier;
    h->update = (AdamwUpdate){.params = h->a,
                              .exp_avg = h->b,
                              .exp_avg_sq = h->c,
                              .grads = h->d,
                              .segments = segments,
                              .control = copy(h, DTYPE_F64, CONTROL_COUNT, control),
                              .lr = {1e-4, 1e-4, 1e-4},
                              .weight_decay = 0.04,
                              .beta1 = 0.9,
                              .beta2 = 0.999,
                              .eps = 1e-8};
}

static void measure_optimizer(HotOps *h)
{
    int64_t n = h->sizes->parameters;
    char detail[64];
    snprintf(detail, sizeof detail, " %.6g Mi parameters", (double)n / 1048576.0);
    arena_reset(&h->arena, ARENA_START);
    h->a = vector(h, n, 0.02);
    h->b = vector(h, n, 1e-3);
    h->c = zeros(h, DTYPE_F32, n);
    h->d = vector(h, n, 1e-3);
    h->sums = zeros(h, DTYPE_F64, 1);
    make_update(h);
    add(h, OPS_TIMED_adamw, adamw, detail);
    add(h, OPS_TIMED_ema, ema, detail);
    add(h, OPS_TIMED_segment_squares, segment_squares, detail);
}

/* --- all of them -------------------------------------------------------------------------------------- */

/* Bytes for the largest of the measurements above. */
static size_t arena_bytes(const Sizes *s, Dtype act)
{
    int64_t each = (int64_t)dtype_size(act);
    int64_t attention = s->tokens * (8 * s->width * each + 4 * s->heads + 4);
    int64_t rows = s->tokens * (s->width * (8 + 4 * each) + 3 * s->hidden * each);
    int64_t losses =
        s->prototypes * (s->bottleneck * (8 + each) + 32) + 5 * s->loss_rows * (s->bottleneck + 8) * 4;
    int64_t optimizer = 16 * s->parameters, most = attention;
    if (rows > most) most = rows;
    if (losses > most) most = losses;
    if (optimizer > most) most = optimizer;
    return (size_t)most + ((size_t)1 << 20);
}

void hot_ops_measure(BenchRows *rows, const HotOpsParams *params)
{
    bool gpu = device_kind(params->device) != DEVICE_CPU;
    const Sizes *s = params->quick ? &QUICK_SIZES : gpu ? &GPU_SIZES : &CPU_SIZES;
    Dtype act = gpu ? s->act : DTYPE_F32;
    OpsLimits limits = {.rows = s->tokens > s->loss_rows ? s->tokens : s->loss_rows,
                        .width = s->hidden > 3 * s->width ? s->hidden : 3 * s->width,
                        .max_seqlen = 1370,
                        .head_dim = s->width / s->heads,
                        .heads = s->heads,
                        .prototypes = s->prototypes,
                        .bottleneck = s->bottleneck,
                        .group_rows = s->koleo_rows,
                        .segments = 1,
                        .reduced = act != DTYPE_F32};
    Ops *ops = ops_create(params->device, &limits, &(OpsOptions){.threads = params->threads});
    HotOps *h = memory_alloc(sizeof *h);
    Arena plan = arena_measuring();
    arena_alloc(&plan, arena_bytes(s, act));
    *h = (HotOps){.sizes = s,
                  .act = act,
                  .rows = rows,
                  .params = params,
                  .arena = device_arena_create(params->device, &plan)};
    if (gpu && ops_attention_works(params->device, OPS_ATTENTION_SM90)) {
        Ops *sm90 = ops_create(params->device, &limits,
                               &(OpsOptions){.threads = params->threads, .attention = OPS_ATTENTION_SM90});
        ops_timed_init(&h->timed, sm90);
        measure_attention(h, ", sm90");
        ops_timed_fini(&h->timed);
        ops_destroy(sm90);
    }
    ops_timed_init(&h->timed, ops);
    measure_attention(h, "");
    measure_rows(h);
    measure_losses(h);
    measure_optimizer(h);
    ops_timed_fini(&h->timed);
    device_arena_destroy(params->device, &h->arena);
    memory_free(h);
    ops_destroy(ops);
}
