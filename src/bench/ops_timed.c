/* ops_timed.c - one wrapper per operation, made from the list in ops.h.
 *
 * For each operation a macro says what the list cannot: the arguments of the inner call.
 */
#include "bench/ops_timed.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/memory.h"
#include "ops/ops_work.h"

#include <string.h>

/* clang-format off */
#define CALL_linear_forward           (inner, y, x, w, b)
#define CALL_linear_backward_input    (inner, dx, dy, w)
#define CALL_linear_backward_weight   (inner, dw, db, dy, x)
#define CALL_layer_norm_forward       (inner, y, stats, kept, x, rows, w, b, eps)
#define CALL_layer_norm_backward      (inner, dx, dw, db, y, dy, x, rows, stats, w, b)
#define CALL_l2_normalize_forward     (inner, y, norms, x, eps)
#define CALL_l2_normalize_backward    (inner, dx, dy, y, norms, eps)
#define CALL_attention_forward        (inner, out, lse, qkv, cu_seqlens, heads)
#define CALL_attention_backward       (inner, dqkv, dout, out, lse, qkv, cu_seqlens, heads)
#define CALL_gelu_forward             (inner, y, x)
#define CALL_gelu_backward            (inner, dx, y, dy, x)
#define CALL_swiglu_forward           (inner, y, x12)
#define CALL_swiglu_backward          (inner, dx12, y, dy, x12)
#define CALL_residual_forward         (inner, x, y, rows, row_scale, gamma)
#define CALL_residual_backward        (inner, dy, dgamma, dx, y, rows, row_scale, gamma)
#define CALL_gather_rows              (inner, y, x, rows)
#define CALL_scatter_add_rows         (inner, x, y, rows)
#define CALL_cast                     (inner, out, in)
#define CALL_zero                     (inner, x)
#define CALL_patchify_forward         (inner, patches, images, levels, patch_size)
#define CALL_patchify_backward        (inner, dimages, dpatches, patch_size)
#define CALL_embed_tokens_forward     (inner, x, patches, masks, mask_token, cls, registers, pos)
#define CALL_embed_tokens_backward    (inner, dpatches, dmask_token, dcls, dregisters, dpos, dx, masks)
#define CALL_pos_embed_forward        (inner, out, pos, h, w, offset, antialias)
#define CALL_pos_embed_backward       (inner, dpos, dout, h, w, offset, antialias)
#define CALL_conv2d_forward           (inner, conv)
#define CALL_max_pool_forward         (inner, y, x, kernel, stride, padding)
#define CALL_gem_pool_forward         (inner, y, x, p, least)
#define CALL_prototype_scale          (inner, scale, v, g)
#define CALL_prototype_scores         (inner, scores, x, v, scale)
#define CALL_weight_norm_backward     (inner, dv, dg, v, g)
#define CALL_prototype_sinkhorn       (inner, bias, x, v, scale, temp, iterations, comm)
#define CALL_prototype_center         (inner, sum, x, v, scale, row_weight)
#define CALL_center_update            (inner, bias, center, sum, temp, momentum)
#define CALL_prototype_cross_entropy  (inner, args)
#define CALL_koleo                    (inner, loss, nearest, dx, x, weight, loss_scale)
#define CALL_group_sums               (inner, sums, values, weights, groups, factor)
#define CALL_direction_sums           (inner, sums, x)
#define CALL_count_positive           (inner, count, x)
#define CALL_segment_squares          (inner, squares, x, segments)
#define CALL_step_control             (inner, control, losses, squares, segments, rule)
#define CALL_adamw                    (inner, update)
#define CALL_ema                      (inner, average, value, momentum, control)
#define CALL_take_back                (inner, x, before, control)
/* clang-format on */

static const OpsTimed *timed_of(const Ops *ops)
{
    return (const OpsTimed *)(const void *)ops;
}

static void note(OpsTimedTotal *total, double seconds, OpsWork work)
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
    OpsWork work;
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

static void end(const OpsTimed *timed, int operation, OpsWork work, double started)
{
    OpsTimedCalls *c = timed->calls;
    if (!c) {
        double seconds = clock_seconds() - started;
        if (tensor_given(work.starts))
            work.flops = ops_work_of_lengths(&work, tensor_i32(work.starts), work.starts.shape[0]);
        note(&timed->totals[operation], seconds, work);
        return;
    }
    device_event_record(c->events[2 * c->count + 1]);
    TimedCall *call = &c->calls[c->count++];
    *call = (TimedCall){.operation = operation, .work = work, .into = c->into};
    if (!tensor_given(work.starts)) return;
    call->first_length = c->length_count;
    call->length_count = work.starts.shape[0];
    c->length_count += call->length_count;
    CHECK(c->length_count <= LENGTHS);
    device_download(c->device, c->lengths + call->first_length, work.starts.data, tensor_bytes(work.starts));
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
            ops_work_of_lengths(&call->work, c->lengths + call->first_length, call->length_count);
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
        OpsWork work = OPS_WORK_##name;              \
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
