/* hot_ops.c - one measurement per operation and size. */
#include "bench/hot_ops.h"

#include "base/memory.h"
#include "bench/bench_operands.h"
#include "bench/ops_timed.h"

#include <stdio.h>
#include <string.h>

static const char SECTION[] = "operations";

enum {
    TOKENS = 4096,
    WIDTH = 384,
    HIDDEN = 1536,
    HEADS = 6,
    MAX_SEQLEN = 1370,
    PROTOTYPES = 65536,
    BOTTLENECK = 256,
    LOSS_ROWS = 168,
    KOLEO_ROWS = 64,
    PARAMETERS = 8 << 20, /* of the optimiser's flat vectors */
};

typedef struct {
    OpsTimed timed;
    BenchRows *rows;
    const HotOpsParams *params;
    Arena arena;
    Tensor a, b, c, d, e, vector, vector2; /* operands of the operation under way */
    Tensor cu_seqlens;
    Tensor sums; /* fp64 results */
    PrototypeCrossEntropy loss;
    AdamwUpdate update;
} HotOps;

static void add(HotOps *h, int operation, void (*work)(void *context), const char *detail)
{
    ops_timed_reset(&h->timed);
    BenchTask task = {.context = h, .work = work};
    BenchTimes times = bench_timer_run(&task, h->params->seconds, 3);
    const OpsTimedTotal *total = &h->timed.totals[operation];
    bool products = total->flops > 0;
    bench_rows_add(h->rows, SECTION, products ? BENCH_FLOPS_FP32 : BENCH_BYTES,
                   (products ? total->flops : total->bytes) / (double)total->calls, times, "%s%s",
                   ops_timed_name(operation), detail);
}

static Tensor fp64_zeros(HotOps *h, int64_t n)
{
    Tensor t = tensor_alloc_1d(&h->arena, DTYPE_F64, n);
    memset(t.data, 0, tensor_bytes(t));
    return t;
}

static Tensor matrix(HotOps *h, int64_t rows, int64_t columns)
{
    return bench_operands_2d(&h->arena, DTYPE_F32, rows, columns, 1.0);
}

/* --- attention ---------------------------------------------------------------------------------------- */

static void attention_forward(void *context)
{
    HotOps *h = context;
    h->timed.ops.attention_forward(&h->timed.ops, h->b, h->c, h->a, h->cu_seqlens, HEADS);
}

static void attention_backward(void *context)
{
    HotOps *h = context;
    h->timed.ops.attention_backward(&h->timed.ops, h->d, h->e, h->b, h->c, h->a, h->cu_seqlens, HEADS);
}

static void measure_attention(HotOps *h)
{
    static const int LENGTHS[] = {257, 50, 197, 37, 65, 17, MAX_SEQLEN};
    for (size_t i = 0; i < sizeof LENGTHS / sizeof *LENGTHS; i++) {
        int64_t length = LENGTHS[i], sequences = TOKENS / length, n = sequences * length;
        arena_reset(&h->arena, ARENA_START);
        h->cu_seqlens = tensor_alloc_1d(&h->arena, DTYPE_I32, sequences + 1);
        for (int64_t s = 0; s <= sequences; s++)
            tensor_i32(h->cu_seqlens)[s] = (int32_t)(s * length);
        h->a = matrix(h, n, 3 * WIDTH);
        h->b = matrix(h, n, WIDTH);
        h->c = matrix(h, n, HEADS);
        h->d = matrix(h, n, 3 * WIDTH);
        h->e = matrix(h, n, WIDTH);
        char detail[32];
        snprintf(detail, sizeof detail, " T = %lld", (long long)length);
        add(h, OPS_TIMED_attention_forward, attention_forward, detail);
        add(h, OPS_TIMED_attention_backward, attention_backward, detail);
    }
}

/* --- row-wise operations ------------------------------------------------------------------------------ */

static void layer_norm_forward(void *context)
{
    HotOps *h = context;
    h->timed.ops.layer_norm_forward(&h->timed.ops, h->b, h->c, tensor_none(), h->a, tensor_none(), h->vector,
                                    h->vector, 1e-6f);
}

static void layer_norm_backward(void *context)
{
    HotOps *h = context;
    h->timed.ops.layer_norm_backward(&h->timed.ops, h->d, h->vector, h->vector2, h->b, h->a, tensor_none(),
                                     h->c, h->e);
}

static void residual_forward(void *context)
{
    HotOps *h = context;
    h->timed.ops.residual_forward(&h->timed.ops, h->a, h->b, tensor_none(), tensor_none(), h->e);
}

static void residual_backward(void *context)
{
    HotOps *h = context;
    h->timed.ops.residual_backward(&h->timed.ops, h->d, h->vector, h->a, h->b, tensor_none(), tensor_none(),
                                   h->e);
}

static void gelu_forward(void *context)
{
    HotOps *h = context;
    h->timed.ops.gelu_forward(&h->timed.ops, h->b, h->a);
}

static void gelu_backward(void *context)
{
    HotOps *h = context;
    h->timed.ops.gelu_backward(&h->timed.ops, h->b, h->c, h->a);
}

static void measure_rows(HotOps *h)
{
    arena_reset(&h->arena, ARENA_START);
    h->a = matrix(h, TOKENS, WIDTH);
    h->b = matrix(h, TOKENS, WIDTH);
    h->c = matrix(h, TOKENS, 2);
    h->d = matrix(h, TOKENS, WIDTH);
    h->e = bench_operands_1d(&h->arena, WIDTH, 1e-3);
    h->vector = bench_operands_1d(&h->arena, WIDTH, 1.0);
    h->vector2 = bench_operands_1d(&h->arena, WIDTH, 1.0);
    add(h, OPS_TIMED_layer_norm_forward, layer_norm_forward, " 4096x384");
    add(h, OPS_TIMED_layer_norm_backward, layer_norm_backward, " 4096x384");
    add(h, OPS_TIMED_residual_forward, residual_forward, " 4096x384");
    add(h, OPS_TIMED_residual_backward, residual_backward, " 4096x384");

    arena_reset(&h->arena, ARENA_START);
    h->a = matrix(h, TOKENS, HIDDEN);
    h->b = matrix(h, TOKENS, HIDDEN);
    h->c = matrix(h, TOKENS, HIDDEN);
    add(h, OPS_TIMED_gelu_forward, gelu_forward, " 4096x1536");
    add(h, OPS_TIMED_gelu_backward, gelu_backward, " 4096x1536");
}

/* --- losses ------------------------------------------------------------------------------------------- */

static const float TEACHER_TEMP = 0.07f, STUDENT_TEMP = 0.1f;

static void sinkhorn(void *context)
{
    HotOps *h = context;
    h->timed.ops.prototype_sinkhorn(&h->timed.ops, h->d, h->a, h->b, h->c, TEACHER_TEMP, 3, h->params->comm);
}

static void cross_entropy(void *context)
{
    HotOps *h = context;
    h->timed.ops.prototype_cross_entropy(&h->timed.ops, &h->loss);
}

static void koleo(void *context)
{
    HotOps *h = context;
    h->timed.ops.koleo(&h->timed.ops, h->sums, h->cu_seqlens, h->b, h->a, 0.1, tensor_none());
}

/* Every student row against one teacher row, as in the patch loss. */
static void make_loss(HotOps *h)
{
    h->loss = (PrototypeCrossEntropy){.student = matrix(h, LOSS_ROWS, BOTTLENECK),
                                      .student_v = h->b,
                                      .student_scale = h->c,
                                      .student_temp = STUDENT_TEMP,
                                      .teacher = h->a,
                                      .teacher_v = h->b,
                                      .teacher_scale = h->c,
                                      .teacher_temp = TEACHER_TEMP,
                                      .teacher_bias = h->d,
                                      .targets = tensor_alloc_2d(&h->arena, DTYPE_I32, LOSS_ROWS, 1),
                                      .row_weight = bench_operands_1d(&h->arena, LOSS_ROWS, 0.01),
                                      .loss = bench_operands_1d(&h->arena, LOSS_ROWS, 1.0),
                                      .d_student = matrix(h, LOSS_ROWS, BOTTLENECK),
                                      .d_student_w = matrix(h, PROTOTYPES, BOTTLENECK),
                                      .usage = bench_operands_1d(&h->arena, PROTOTYPES, 1.0),
                                      .entropy = fp64_zeros(h, 2)};
    for (int32_t i = 0; i < LOSS_ROWS; i++)
        tensor_i32(h->loss.targets)[i] = i;
    h->timed.inner->l2_normalize_forward(h->timed.inner, h->loss.student, h->loss.loss,
                                         matrix(h, LOSS_ROWS, BOTTLENECK), 1e-12f);
}

static void measure_losses(HotOps *h)
{
    const Ops *ops = h->timed.inner;
    arena_reset(&h->arena, ARENA_START);
    h->a = matrix(h, LOSS_ROWS, BOTTLENECK);
    h->b = bench_operands_2d(&h->arena, DTYPE_F32, PROTOTYPES, BOTTLENECK, 0.06);
    h->c = bench_operands_1d(&h->arena, PROTOTYPES, 1.0);
    h->d = bench_operands_1d(&h->arena, PROTOTYPES, 1.0);
    Tensor ones = tensor_alloc_1d(&h->arena, DTYPE_F32, PROTOTYPES);
    for (int64_t k = 0; k < PROTOTYPES; k++)
        tensor_f32(ones)[k] = 1.0f;
    ops->prototype_scale(ops, h->c, h->b, ones);
    ops->l2_normalize_forward(ops, h->a, bench_operands_1d(&h->arena, LOSS_ROWS, 1.0),
                              matrix(h, LOSS_ROWS, BOTTLENECK), 1e-12f);
    add(h, OPS_TIMED_prototype_sinkhorn, sinkhorn, " 168x65536x256");
    make_loss(h);
    add(h, OPS_TIMED_prototype_cross_entropy, cross_entropy, " 168x65536x256");

    arena_reset(&h->arena, ARENA_START);
    h->a = matrix(h, KOLEO_ROWS, WIDTH);
    h->b = matrix(h, KOLEO_ROWS, WIDTH);
    h->cu_seqlens = tensor_alloc_1d(&h->arena, DTYPE_I32, KOLEO_ROWS);
    h->sums = fp64_zeros(h, 1);
    add(h, OPS_TIMED_koleo, koleo, " 64x384");
}

/* --- optimiser ---------------------------------------------------------------------------------------- */

static void adamw(void *context)
{
    HotOps *h = context;
    h->timed.ops.adamw(&h->timed.ops, &h->update);
}

static void ema(void *context)
{
    HotOps *h = context;
    h->timed.ops.ema(&h->timed.ops, h->a, h->b, 0.994, tensor_none());
}

static void segment_squares(void *context)
{
    HotOps *h = context;
    h->timed.ops.segment_squares(&h->timed.ops, h->sums, h->a, &h->update.segments);
}

/* One segment that is the whole vector, in a step that is finite. */
static void make_update(HotOps *h)
{
    static const int64_t BOUNDS[2] = {0, PARAMETERS};
    OpsSegments segments = {.count = 1, .bounds = tensor_alloc_1d(&h->arena, DTYPE_I64, 2)};
    memcpy(segments.bounds.data, BOUNDS, sizeof BOUNDS);
    segments.module = tensor_alloc_1d(&h->arena, DTYPE_I32, 1);
    tensor_i32(segments.module)[0] = 0;
    segments.last_layer = segments.module;
    segments.lr_multiplier = segments.wd_multiplier = fp64_zeros(h, 1);
    tensor_f64(segments.lr_multiplier)[0] = 1.0;
    Tensor control = fp64_zeros(h, CONTROL_COUNT);
    for (int i = 0; i < CONTROL_COUNT; i++)
        tensor_f64(control)[i] = 0.5;
    h->update = (AdamwUpdate){.params = h->a,
                              .exp_avg = h->b,
                              .exp_avg_sq = h->c,
                              .grads = h->d,
                              .segments = segments,
                              .control = control,
                              .lr = 1e-4,
                              .weight_decay = 0.04,
                              .beta1 = 0.9,
                              .beta2 = 0.999,
                              .eps = 1e-8};
}

static void measure_optimizer(HotOps *h)
{
    arena_reset(&h->arena, ARENA_START);
    h->a = bench_operands_1d(&h->arena, PARAMETERS, 0.02);
    h->b = bench_operands_1d(&h->arena, PARAMETERS, 1e-3);
    h->c = tensor_alloc_1d(&h->arena, DTYPE_F32, PARAMETERS);
    memset(h->c.data, 0, tensor_bytes(h->c));
    h->d = bench_operands_1d(&h->arena, PARAMETERS, 1e-3);
    h->sums = fp64_zeros(h, 1);
    make_update(h);
    add(h, OPS_TIMED_adamw, adamw, " 8 Mi parameters");
    add(h, OPS_TIMED_ema, ema, " 8 Mi parameters");
    add(h, OPS_TIMED_segment_squares, segment_squares, " 8 Mi parameters");
}

void hot_ops_measure(BenchRows *rows, const HotOpsParams *params)
{
    OpsLimits limits = {.rows = TOKENS,
                        .width = HIDDEN,
                        .max_seqlen = MAX_SEQLEN,
                        .head_dim = WIDTH / HEADS,
                        .prototypes = PROTOTYPES,
                        .bottleneck = BOTTLENECK,
                        .group_rows = KOLEO_ROWS};
    Device *device = device_open_host();
    Ops *ops = ops_create(device, &limits, &(OpsOptions){.threads = params->threads});
    HotOps *h = memory_alloc(sizeof *h);
    *h = (HotOps){.rows = rows, .params = params, .arena = arena_create((size_t)192 << 20)};
    ops_timed_init(&h->timed, ops);
    measure_attention(h);
    measure_rows(h);
    measure_losses(h);
    measure_optimizer(h);
    ops_timed_fini(&h->timed);
    arena_destroy(&h->arena);
    memory_free(h);
    ops_destroy(ops);
    device_close(device);
}
