/* test_cuda_plan.c - a plan for a GPU counts the bytes that a training on a GPU allocates, by the byte.
 *
 * The workspace of products is left out of both sides: the emulator's products take none.
 */
#include "../support/ssl_support.h"
#include "../support/twin_support.h"

#include "plan/step_plan.h"
#include "train/train_state.h"

#include <criterion/criterion.h>

#define PRECISION(who, type)                                                    \
    "compute_precision." who ".backbone.mixed_precision.param_dtype=" type " "  \
    "compute_precision." who ".dino_head.mixed_precision.param_dtype=" type " " \
    "compute_precision." who ".ibot_head.mixed_precision.param_dtype=" type " "

static const char *const VARIANTS[] = {
    "train.centering=sinkhorn_knopp",
    PRECISION("student", "fp16") PRECISION("teacher", "bf16") "train.centering=centering",
    PRECISION("student", "bf16") "train.checkpoint_activations=block train.micro_batch_size=3",
};

Test(cuda_plan, counts_the_bytes_that_a_training_allocates)
{
    TWIN_REQUIRE();
    for (size_t i = 0; i < sizeof VARIANTS / sizeof *VARIANTS; i++) {
        Config config;
        Error error = {0};
        Device *device;
        TrainState state;
        StepPlan plan;
        ssl_support_config(&config, VARIANTS[i]);
        Comm *comm = comm_self_create();
        cr_assert_eq(device_open(&device, DEVICE_CUDA, 0, &error), STATUS_OK, "%s", error.text);
        size_t before = device_memory_used(device);
        OpsLimits limits;
        cr_assert_eq(train_state_init(&state, &config, comm, device, 1, NULL, &error), STATUS_OK, "%s",
                     error.text);
        limits = ssl_ops_limits(&config, NULL, &state.groups);
        Ops *alone = ops_create(device, &limits, &(OpsOptions){.threads = 1});
        size_t both = device_memory_used(device);
        ops_destroy(alone);
        size_t operations = both - device_memory_used(device); /* scratch, and workspace where there is one */
        size_t allocated = device_memory_used(device) - before - operations;

        Cluster cluster = {.name = "a GPU",
                           .device = DEVICE_CUDA,
                           .nodes = 1,
                           .ranks_per_node = 1,
                           .gpu = "GPU",
                           .memory_gib = 80,
                           .parallel = 1,
                           .fp32_tflops = 1,
                           .bf16_tflops = 1,
                           .fp16_tflops = 1,
                           .product_share = 1,
                           .attention_share = 1,
                           .memory_gb_s = 1,
                           .memory_share = 1,
                           .step_share = 1,
                           .host_gb_s = 1,
                           .within_gb_s = 1,
                           .between_gb_s = 1,
                           .network_share = 1,
                           .write_gb_s = 1,
                           .cores_per_node = 1,
                           .images_per_core_s = 1};
        StepPlanParams params = {
            .config = &config, .cluster = &cluster, .ranks = 1, .batches_held = TRAIN_SUBMISSIONS};
        cr_assert_eq(step_plan_make(&plan, &params, &error), STATUS_OK, "%s", error.text);
        size_t planned = plan.total - plan.memory[PLAN_SCRATCH] - plan.memory[PLAN_RESERVED];
        cr_expect_eq(planned, allocated, "%s: planned %zu, allocated %zu", VARIANTS[i], planned, allocated);
        train_state_fini(&state);
        comm_destroy(comm);
        device_close(device);
        config_fini(&config);
    }
}
