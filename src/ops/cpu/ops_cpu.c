/* ops_cpu.c - the host backend: its table of operations and its scratch memory. */
#include "ops/cpu/ops_cpu.h"
#include "ops/ops_backend.h"

#include "base/check.h"
#include "base/memory.h"
#include "ops/cpu/convolution.h"
#include "ops/cpu/gemm.h"

#include <omp.h>

typedef size_t (*ScratchPlan)(const OpsLimits *limits, int threads);

/* Operations run one after the other and give back what they take: the largest need is the whole need. */
size_t ops_cpu_memory(const OpsLimits *limits, int threads)
{
    static const ScratchPlan PLANS[] = {
        cpu_linear_scratch,     cpu_layer_norm_scratch, cpu_attention_scratch, cpu_residual_scratch,
        cpu_prototypes_scratch, cpu_koleo_scratch,      cpu_pos_embed_scratch,
    };
    size_t largest = 0;
    for (size_t i = 0; i < sizeof PLANS / sizeof *PLANS; i++) {
        size_t bytes = PLANS[i](limits, threads);
        if (bytes > largest) largest = bytes;
    }
    return largest;
}

static void cpu_destroy(Ops *ops)
{
    OpsCpu *self = (OpsCpu *)(void *)ops;
    gemm_destroy(self->gemm);
    convolution_destroy(self->convolutions);
    arena_destroy(&self->scratch);
    memory_free(self);
}

Ops *ops_cpu_create(Device *device, const OpsLimits *limits, const OpsOptions *options)
{
    int threads = options->threads;
    CHECK(limits->rows >= 0 && limits->width >= 0 && threads >= 0);
    if (threads == 0) threads = omp_get_max_threads();
    if (threads > OPS_CPU_MAX_THREADS) threads = OPS_CPU_MAX_THREADS;
    omp_set_num_threads(threads);

    OpsCpu *self = memory_alloc(sizeof *self);
    self->scratch = arena_create(ops_cpu_memory(limits, threads));
    self->gemm = gemm_create(threads);
    self->convolutions = convolution_create(threads);
#define OPS_CPU_ENTRY(name, arguments) .name = cpu_##name,
    self->ops = (Ops){OPS_LIST(OPS_CPU_ENTRY).destroy = cpu_destroy,
                      .name = "cpu",
                      .device = device,
                      .threads = threads,
                      .has_bf16 = gemm_has_bf16(self->gemm),
                      .scratch = &self->scratch};
#undef OPS_CPU_ENTRY
    return &self->ops;
}
