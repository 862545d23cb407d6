/* ops_cuda.cu - the CUDA backend: its table of operations and its scratch memory. */
#include "ops/cuda/ops_cuda.h"

extern "C" {
#include "base/memory.h"
#include "ops/cuda/cuda_gemm.h"
#include "ops/ops_backend.h"
}

#include <omp.h>

typedef size_t (*ScratchPlan)(const OpsLimits *limits, int multiprocessors);

/* Operations run one after the other and give back what they take: the largest need is the whole need. */
static size_t plan_scratch(const OpsLimits *limits, int multiprocessors)
{
    static const ScratchPlan PLANS[] = {
        cuda_linear_scratch,       cuda_layer_norm_scratch, cuda_attention_scratch, cuda_residual_scratch,
        cuda_embed_tokens_scratch, cuda_prototypes_scratch, cuda_koleo_scratch,     cuda_pos_embed_scratch,
        cuda_optimizer_scratch,    cuda_rows_scratch,       cuda_sums_scratch,      cuda_pictures_scratch,
    };
    size_t largest = 0;
    for (size_t i = 0; i < sizeof PLANS / sizeof *PLANS; i++) {
        size_t bytes = PLANS[i](limits, multiprocessors);
        if (bytes > largest) largest = bytes;
    }
    return largest;
}

extern "C" size_t ops_cuda_memory(const OpsLimits *limits, int multiprocessors)
{
    return plan_scratch(limits, multiprocessors) + cuda_gemm_memory(limits->width);
}

static void cuda_destroy(Ops *ops)
{
    OpsCuda *self = (OpsCuda *)(void *)ops;
    device_finish(ops->device);
    cuda_gemm_destroy(self->gemm);
    device_arena_destroy(ops->device, &self->scratch);
    memory_free(self);
}

extern "C" Ops *ops_cuda_create(Device *device, const OpsLimits *limits, const OpsOptions *options)
{
    CHECK(device_kind(device) == DEVICE_CUDA && limits->rows >= 0 && limits->width >= 0 &&
          options->threads >= 0);
    OpsCuda *self = (OpsCuda *)memory_alloc(sizeof *self);
    self->limits = *limits;
    self->stream = device_cuda_stream(device);
    self->multiprocessors = device_cuda_multiprocessors(device);
    self->attention = options->attention;
    self->shared_bytes = device_cuda_shared_bytes(device);
    Arena plan = arena_measuring();
    arena_alloc(&plan, plan_scratch(limits, self->multiprocessors));
    self->scratch = device_arena_create(device, &plan);
    self->gemm = cuda_gemm_create(device, limits->width);

    Ops *ops = &self->ops;
#define OPS_CUDA_ENTRY(name, arguments) ops->name = cuda_##name;
    OPS_LIST(OPS_CUDA_ENTRY)
#undef OPS_CUDA_ENTRY
    ops->destroy = cuda_destroy;
    ops->name = "cuda";
    ops->device = device;
    ops->threads = options->threads > 0 ? options->threads : omp_get_max_threads();
    ops->has_bf16 = ops->has_fp16 = ops->reduced_prototypes = true;
    ops->scratch = &self->scratch;
    return ops;
}
