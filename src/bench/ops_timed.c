/* ops_timed.c - one wrapper per operation, made from the list in ops.h.
 *
 * For each operation two macros say what the list cannot: the arguments of the inner call, and the work.
 */
#include "bench/ops_timed.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/memory.h"

#include <string.h>

typedef struct {
    double flops, bytes;
    Tensor lengths;    /* where the device alone knows how long sequences are: their starts, */
    double per_square; /* and the flops for each square of a length */
} Work;

static Work product(int64_t m, int64_t n, int64_t k)
{
    return (Work){.flops = 2.0 * (double)m * (double)n * (double)k};
}

static Work times(double factor, Work work)
{
    work.flops *= factor;
    work.bytes *= factor;
    work.per_square *= factor;
    return work;
}

static Work moved(const Tensor *tensors, size_t count)
{
    Work work = {0};
    for (size_t i = 0; i < count; i++)
        if (tensor_given(tensors[i])) work.bytes += (double)tensor_bytes(tensors[i]);
    return work;
}

/* A tensor that is read and written is listed twice. */
#define MOVED(...) moved((const Tensor[]){__VA_ARGS__}, sizeof((Tensor[]){__VA_ARGS__}) / sizeof(Tensor))

/* Also so many fp32 tensors of the shape of y: rows that are read, written, or both. */
static Work with_rows(Work work, Tensor y, int count)
{
    work.bytes += count * (double)sizeof(float) * (double)tensor_count(y);
    return work;
}

static double sum_of_squares(const int32_t *starts, int64_t count)
{
    double sum = 0;
    for (int64_t s = 0; s + 1 < count; s++)
        sum += (double)(starts[s + 1] - starts[s]) * (double)(starts[s + 1] - starts[s]);
    return sum;
}

/* Scores and weighted sum of each sequence: two products of its length squared by the width of all heads. */
static Work attention(const Ops *ops, Tensor cu_seqlens, int64_t width)
{
    double per_square = 4.0 * (double)width;
    if (device_kind(ops->device) != DEVICE_CPU)
        return (Work){.lengths = cu_seqlens, .per_square = per_square};
    return (Work){.flops = per_square * sum_of_squares(tensor_i32(cu_seqlens), cu_seqlens.shape[0])};
}

/* Student scores, and with the backward both gradients. Teacher scores are Sinkhorn's, made there. */
static Work cross_entropy(const PrototypeCrossEntropy *args)
{
    Work scores = product(args->student.shape[0], args->student_v.shape[0], args->student_v.shape[1]);
    return times(tensor_given(args->d_student) ? 3 : 1, scores);
}

/* clang-format off */
#define CALL_linear_forward          (inner, y, x, w, b)
#define WORK_linear_forward          product(x.shape[0], w.shape[0], w.shape[1])
#define CALL_linear_backward_input   (inner, dx, dy, w)
#define WORK_linear_backward_input   product(dy.shape[0], w.shape[0], w.shape[1])
#define CALL_linear_backward_weight  (inner, dw, db, dy, x)
#define WORK_linear_backward_weight  product(x.shape[0], dw.shape[0], dw.shape[1])
#define CALL_layer_norm_forward      (inner, y, stats, kept, x, rows, w, b, eps)
#define WORK_layer_norm_forward      with_rows(MOVED(y, kept), y, 1)
#define CALL_layer_norm_backward     (inner, dx, dw, db, y, dy, x, rows, stats, w, b)
#define WORK_layer_norm_backward     with_rows(MOVED(y, dy, dy), dy, 2)
#define CALL_l2_normalize_forward    (inner, y, norms, x, eps)
#define WORK_l2_normalize_forward    MOVED(y, x)
#define CALL_l2_normalize_backward   (inner, dx, dy, y, norms, eps)
#define WORK_l2_normalize_backward   MOVED(dx, dy, y)
#define CALL_attention_forward       (inner, out, lse, qkv, cu_seqlens, heads)
#define WORK_attention_forward       attention(ops, cu_seqlens, out.shape[1])
#define CALL_attention_backward      (inner, dqkv, dout, out, lse, qkv, cu_seqlens, heads)
#define WORK_attention_backward      times(2, attention(ops, cu_seqlens, out.shape[1]))
#define CALL_gelu_forward            (inner, y, x)
#define WORK_gelu_forward            MOVED(y, x)
#define CALL_gelu_backward           (inner, dx, y, dy, x)
#define WORK_gelu_backward           MOVED(dx, y, dy, x)
#define CALL_swiglu_forward          (inner, y, x12)
#define WORK_swiglu_forward          MOVED(y, x12)
#define CALL_swiglu_backward         (inner, dx12, y, dy, x12)
#define WORK_swiglu_backward         MOVED(dx12, y, dy, x12)
#define CALL_residual_forward        (inner, x, y, rows, row_scale, gamma)
#define WORK_residual_forward        with_rows(MOVED(y), y, 2)
#define CALL_residual_backward       (inner, dy, dgamma, dx, y, rows, row_scale, gamma)
#define WORK_residual_backward       with_rows(MOVED(dy, y), dy, 1)
#define CALL_gather_rows             (inner, y, x, rows)
#define WORK_gather_rows             MOVED(y, y)
#define CALL_scatter_add_rows        (inner, x, y, rows)
#define WORK_scatter_add_rows        with_rows(MOVED(y), y, 2)
#define CALL_cast                    (inner, out, in)
#define WORK_cast                    MOVED(out, in)
#define CALL_zero                    (inner, x)
#define WORK_zero                    MOVED(x)
#define CALL_patchify_forward        (inner, patches, images, levels, patch_size)
#define WORK_patchify_forward        MOVED(patches, images)
#define CALL_patchify_backward       (inner, dimages, dpatches, patch_size)
#define WORK_patchify_backward       MOVED(dimages, dpatches)
#define CALL_embed_tokens_forward    (inner, x, patches, masks, mask_token, cls, registers, pos)
#define WORK_embed_tokens_forward    MOVED(x, patches)
#define CALL_embed_tokens_backward   (inner, dpatches, dmask_token, dcls, dregisters, dpos, dx, masks)
#define WORK_embed_tokens_backward   MOVED(dpatches, dx)
#define CALL_pos_embed_forward       (inner, out, pos, h, w, offset, antialias)
#define WORK_pos_embed_forward       MOVED(out, pos)
#define CALL_pos_embed_backward      (inner, dpos, dout, h, w, offset, antialias)
#define WORK_pos_embed_backward      MOVED(dpos, dpos, dout)
#define CALL_prototype_scale         (inner, scale, v, g)
#define WORK_prototype_scale         MOVED(v)
#define CALL_prototype_scores        (inner, scores, x, v, scale)
#define WORK_prototype_scores        product(x.shape[0], v.shape[0], v.shape[1])
#define CALL_weight_norm_backward    (inner, dv, dg, v, g)
#define WORK_weight_norm_backward    MOVED(dv, dv, v)
#define CALL_prototype_sinkhorn      (inner, bias, x, v, scale, temp, iterations, comm)
#define WORK_prototype_sinkhorn      product(x.shape[0], v.shape[0], v.shape[1])
#define CALL_prototype_center        (inner, sum, x, v, scale, row_weight)
#define WORK_prototype_center        product(x.shape[0], v.shape[0], v.shape[1])
#define CALL_center_update           (inner, bias, center, sum, temp, momentum)
#define WORK_center_update           MOVED(bias, center, center, sum)
#define CALL_prototype_cross_entropy (inner, args)
#define WORK_prototype_cross_entropy cross_entropy(args)
#define CALL_koleo                   (inner, loss, nearest, dx, x, weight, loss_scale)
#define WORK_koleo                   product(x.shape[0], x.shape[0], x.shape[1])
#define CALL_group_sums              (inner, sums, values, weights, groups, factor)
#define WORK_group_sums              MOVED(values, weights, groups)
#define CALL_direction_sums          (inner, sums, x)
#define WORK_direction_sums          MOVED(x)
#define CALL_count_positive          (inner, count, x)
#define WORK_count_positive          MOVED(x)
#define CALL_segment_squares         (inner, squares, x, segments)
#define WORK_segment_squares         MOVED(x)
#define CALL_step_control            (inner, control, losses, squares, segments, rule)
#define WORK_step_control            MOVED(control, losses, squares)
#define CALL_adamw                   (inner, update)
#define WORK_adamw                   times(7, MOVED(update->params))
#define CALL_ema                     (inner, average, value, momentum, control)
#define WORK_ema                     MOVED(average, average, value)
#define CALL_take_back               (inner, x, before, control)
#define WORK_take_back               MOVED(x, before)
/* clang-format on */

static const OpsTimed *timed_of(const Ops *ops)
{
    return (const OpsTimed *)(const void *)ops;
}

static void note(OpsTimedTotal *total, double seconds, Work work)
{
    total->calls++;
    total->seconds += seconds;
    total->flops += work.flops;
    total->bytes += work.bytes;
}

/* --- calls of a GPU ------------------------------------------------------------------------------------ */

enum { LENGTHS = 1 << 20 };

typedef struct {
    int operation;
    Work work;
    int64_t first_length, length_count; /* among `lengths` */
    double *into;
} TimedCall;

/* Call i lies between events 2 i and 2 i + 1. */
typedef struct OpsTimedCalls {
    Device *device; /* borrowed */
    TimedCall *calls;
    DeviceEvent **events;
    int64_t count, capacity;
    int32_t *lengths; /* [LENGTHS] host copies of sequence starts, on their way; owned */
    int64_t length_count;
    double *into;
} OpsTimedCalls;

static OpsTimedCalls *calls_create(Device *device)
{
    OpsTimedCalls *c = memory_alloc(sizeof *c);
    *c = (OpsTimedCalls){.device = device, .lengths = device_alloc_host(device, LENGTHS * sizeof(int32_t))};
    return c;
}

static void calls_destroy(OpsTimedCalls *c)
{
    if (!c) return;
    for (int64_t i = 0; i < 2 * c->capacity; i++)
        device_event_destroy(c->events[i]);
    memory_free(c->events);
    memory_free(c->calls);
    device_free_host(c->device, c->lengths);
    memory_free(c);
}

static void make_room(OpsTimedCalls *c)
{
    if (c->count < c->capacity) return;
    int64_t capacity = c->capacity ? 2 * c->capacity : 256;
    size_t old = (size_t)c->capacity, now = (size_t)capacity;
    c->calls = memory_grow(c->calls, old * sizeof *c->calls, now * sizeof *c->calls);
    c->events = memory_grow(c->events, 2 * old * sizeof(DeviceEvent *), 2 * now * sizeof(DeviceEvent *));
    for (int64_t i = 2 * c->capacity; i < 2 * capacity; i++)
        c->events[i] = device_event_create(c->device);
    c->capacity = capacity;
}

static double begin(const OpsTimed *timed)
{
    OpsTimedCalls *c = timed->calls;
    if (!c) return clock_seconds();
    make_room(c);
    device_event_record(c->events[2 * c->count]);
    return 0;
}

static void end(const OpsTimed *timed, int operation, Work work, double started)
{
    OpsTimedCalls *c = timed->calls;
    if (!c) {
        note(&timed->totals[operation], clock_seconds() - started, work);
        return;
    }
    device_event_record(c->events[2 * c->count + 1]);
    TimedCall *call = &c->calls[c->count++];
    *call = (TimedCall){.operation = operation, .work = work, .into = c->into};
    if (!tensor_given(work.lengths)) return;
    call->first_length = c->length_count;
    call->length_count = work.lengths.shape[0];
    c->length_count += call->length_count;
    CHECK(c->length_count <= LENGTHS);
    device_download(c->device, c->lengths + call->first_length, work.lengths.data,
                    tensor_bytes(work.lengths));
}

void ops_timed_collect(OpsTimed *timed)
{
    OpsTimedCalls *c = timed->calls;
    if (!c) return;
    device_finish(c->device);
    for (int64_t i = 0; i < c->count; i++) {
        TimedCall *call = &c->calls[i];
        double seconds = device_event_seconds(c->events[2 * i], c->events[2 * i + 1]);
        call->work.flops +=
            call->work.per_square * sum_of_squares(c->lengths + call->first_length, call->length_count);
        note(&timed->totals[call->operation], seconds, call->work);
        if (call->into) *call->into += seconds;
    }
    c->count = c->length_count = 0;
}

void ops_timed_into(OpsTimed *timed, double *seconds)
{
    if (timed->calls) timed->calls->into = seconds;
}

/* --- the table ----------------------------------------------------------------------------------------- */

#define OPS_TIMED_WRAPPER(name, arguments)           \
    static void timed_##name arguments               \
    {                                                \
        const OpsTimed *timed = timed_of(ops);       \
        const Ops *inner = timed->inner;             \
        Work work = WORK_##name;                     \
        double started = begin(timed);               \
        inner->name CALL_##name;                     \
        end(timed, OPS_TIMED_##name, work, started); \
    }
OPS_LIST(OPS_TIMED_WRAPPER)

void ops_timed_init(OpsTimed *timed, const Ops *inner)
{
    *timed = (OpsTimed){.ops = *inner, .inner = inner};
    timed->totals = memory_alloc_array(OPS_TIMED_COUNT, sizeof *timed->totals);
    if (device_kind(inner->device) != DEVICE_CPU) timed->calls = calls_create(inner->device);
#define OPS_TIMED_ENTRY(name_, arguments) timed->ops.name_ = timed_##name_;
    OPS_LIST(OPS_TIMED_ENTRY)
#undef OPS_TIMED_ENTRY
}

void ops_timed_fini(OpsTimed *timed)
{
    memory_free(timed->totals);
    calls_destroy(timed->calls);
    *timed = (OpsTimed){0};
}

void ops_timed_reset(OpsTimed *timed)
{
    ops_timed_collect(timed);
    memset(timed->totals, 0, OPS_TIMED_COUNT * sizeof *timed->totals);
}

const char *ops_timed_name(int operation)
{
    static const char *const names[OPS_TIMED_COUNT] = {
#define OPS_TIMED_NAME(name, arguments) #name,
        OPS_LIST(OPS_TIMED_NAME)
#undef OPS_TIMED_NAME
    };
    return names[operation];
}
