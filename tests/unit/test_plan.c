/* test_plan.c - a plan counts what a training allocates and does, and its clock keeps collectives beside
 * work.
 */
#include "../support/ssl_support.h"
#include "../support/temp_folder.h"

#include "base/memory.h"
#include "comm/described/comm_described.h"
#include "plan/run_plan.h"
#include "train/train_state.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

/* Numbers that are easy to reckon with: a second for 1e12 flops, 1e9 bytes of memory or of a link. */
static Cluster round_cluster(DeviceKind device)
{
    return (Cluster){.name = "round",
                     .device = device,
                     .nodes = 4,
                     .ranks_per_node = 4,
                     .gpu = "processor",
                     .memory_gib = 8,
                     .parallel = 1,
                     .fp32_tflops = 1,
                     .bf16_tflops = device == DEVICE_CUDA ? 2 : 0,
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
                     .cores_per_node = 4,
                     .images_per_core_s = 100};
}

static StepPlan plan_of(const Config *config, const Cluster *cluster, int ranks)
{
    StepPlan plan;
    Error error = {0};
    StepPlanParams params = {.config = config, .cluster = cluster, .ranks = ranks, .batches_held = 1};
    cr_assert_eq(step_plan_make(&plan, &params, &error), STATUS_OK, "%s", error.text);
    return plan;
}

static const char *const VARIANTS[] = {
    "train.centering=sinkhorn_knopp",
    "train.centering=centering ibot.separate_head=false",
    "train.micro_batch_size=3 student.drop_path_rate=0.4",
    "train.checkpoint_activations=block dino.koleo_scope=global",
    "ibot.loss_weight=0 crops.local_crops_number=0",
};
enum { VARIANT_COUNT = sizeof VARIANTS / sizeof *VARIANTS };

/* --- memory --- */

Test(plan, counts_the_bytes_that_a_training_on_one_rank_allocates)
{
    for (int i = 0; i < VARIANT_COUNT; i++) {
        Config config;
        ssl_support_config(&config, VARIANTS[i]);
        Cluster cluster = round_cluster(DEVICE_CPU);
        TrainState state;
        Error error = {0};
        Comm *comm = comm_self_create();
        Device *device = device_open_host();
        cr_assert_eq(train_state_init(&state, &config, comm, device, 1, NULL, &error), STATUS_OK, "%s",
                     error.text);
        StepPlan plan = plan_of(&config, &cluster, 1);

        size_t allocated = plan.memory[PLAN_SMALL];
        for (int m = 0; m < PLAN_SCRATCH; m++)
            allocated += plan.memory[m];
        cr_expect_eq(allocated, device_memory_used(device), "%s: planned %zu, allocated %zu", VARIANTS[i],
                     allocated, device_memory_used(device));
        cr_expect_eq(plan.memory[PLAN_STEP], state.ssl.step.capacity, "%s", VARIANTS[i]);
        cr_expect_eq(plan.memory[PLAN_SCRATCH], state.ops->scratch->capacity, "%s", VARIANTS[i]);
        train_state_fini(&state);
        comm_destroy(comm);
        device_close(device);
        config_fini(&config);
    }
}

Test(plan, shards_fall_as_one_over_the_ranks)
{
    Config config;
    ssl_support_config(&config, "train.global_batch_size=64");
    Cluster cluster = round_cluster(DEVICE_CUDA);
    StepPlan one = plan_of(&config, &cluster, 1);
    for (int ranks = 2; ranks <= 16; ranks *= 2) {
        StepPlan plan = plan_of(&config, &cluster, ranks);
        double share = (double)plan.memory[PLAN_MOMENTS] * ranks / (double)one.memory[PLAN_MOMENTS];
        cr_expect(share >= 1 && share < 1.3, "%d ranks: %g", ranks, share); /* padding of tiny units */
        cr_expect_eq(plan.memory[PLAN_GRADIENTS] * 2, plan.memory[PLAN_MOMENTS]);
    }
    config_fini(&config);
}

Test(plan, nothing_of_a_large_model_is_really_allocated)
{
    Config config;
    config_init(&config);
    Error error = {0};
    cr_assert_eq(config_override(&config, "student.arch=vit_giant2", &error), STATUS_OK);
    cr_assert_eq(config_override(&config, "student.ffn_layer=swiglufused", &error), STATUS_OK);
    cr_assert_eq(config_override(&config, "crops.local_crops_size=96", &error), STATUS_OK);
    Cluster cluster = round_cluster(DEVICE_CUDA);
    size_t before = memory_resident();
    StepPlan plan = plan_of(&config, &cluster, 8);
    cr_expect_gt(plan.total, (size_t)40 << 30);
    cr_expect_lt(memory_resident_peak() - before, (size_t)100 << 20);
    cr_expect(!plan.fits);
    config_fini(&config);
}

/* --- work --- */

Test(plan, operations_need_what_the_formula_says)
{
    static const char *const overrides[] = {
        "train.centering=sinkhorn_knopp",
        "student.drop_path_rate=0.4 student.drop_path_uniform=true",
        "ibot.separate_head=false train.batch_size_per_gpu=6",
        "student.num_register_tokens=2 student.ffn_layer=swiglufused",
    };
    Cluster cluster = round_cluster(DEVICE_CUDA);
    for (size_t i = 0; i < sizeof overrides / sizeof *overrides; i++) {
        Config config;
        ssl_support_config(&config, overrides[i]);
        StepPlan plan = plan_of(&config, &cluster, 2);
        cr_expect_float_eq(plan.operations_flops / plan.needed_flops, 1.0, 1e-9, "%s: %g, formula %g",
                           overrides[i], plan.operations_flops, plan.needed_flops);
        cr_expect_gt(plan.clock.flops, plan.needed_flops); /* scores are made again */
        config_fini(&config);
    }
}

Test(plan, recomputation_costs_time_and_spares_memory)
{
    Config kept, again;
    ssl_support_config(&kept, "student.depth=12");
    ssl_support_config(&again, "student.depth=12 train.checkpoint_activations=block");
    Cluster cluster = round_cluster(DEVICE_CUDA);
    StepPlan a = plan_of(&kept, &cluster, 1), b = plan_of(&again, &cluster, 1);
    cr_expect_lt(b.memory[PLAN_STEP], a.memory[PLAN_STEP] / 2);
    cr_expect_gt(b.seconds, a.seconds * 1.05);
    cr_expect_gt(b.clock.phases[PLAN_BACKWARD], a.clock.phases[PLAN_BACKWARD] * 1.2);
    cr_expect_float_eq(b.clock.phases[PLAN_TEACHER], a.clock.phases[PLAN_TEACHER], 1e-9);
    config_fini(&kept);
    config_fini(&again);
}

Test(plan, gathers_once_or_for_each_pass_as_the_strategy_says)
{
    static const struct {
        const char *strategy;
        double backbone_gathers; /* of the student and the teacher */
    } cases[] = {{"SHARD_GRAD_OP", 2}, {"FULL_SHARD", 3}};
    Cluster cluster = round_cluster(DEVICE_CPU);
    double bytes[2];
    for (int i = 0; i < 2; i++) {
        char overrides[640] =
            "train.global_batch_size=32 student.embed_dim=96 student.num_heads=6 student.depth=6 "
            "compute_precision.student.backbone.mixed_precision.reduce_dtype=fp32";
        for (int m = 0; m < 6; m++) {
            static const char *const modules[] = {"backbone", "dino_head", "ibot_head"};
            size_t used = strlen(overrides);
            snprintf(overrides + used, sizeof overrides - used,
                     " compute_precision.%s.%s.sharding_strategy=%s", m < 3 ? "student" : "teacher",
                     modules[m % 3], cases[i].strategy);
        }
        Config config;
        ssl_support_config(&config, overrides);
        StepPlan plan = plan_of(&config, &cluster, 4);
        bytes[i] = plan.clock.traffic[PLAN_GATHER].bytes;
        double full = (double)(plan.parameters[PARAM_BACKBONE]) * sizeof(float);
        double heads =
            (double)(plan.parameters[PARAM_DINO_HEAD] + plan.parameters[PARAM_IBOT_HEAD]) * sizeof(float);
        double expected = cases[i].backbone_gathers * full + 2 * heads;
        /* two rooms: the backward begins with the units that the forward ended with; padding on top */
        cr_expect(bytes[i] > 0.6 * expected && bytes[i] < 1.3 * expected, "%s: %g of %g", cases[i].strategy,
                  bytes[i], expected);
        cr_expect_float_eq(plan.clock.traffic[PLAN_SCATTER].bytes / (full + heads), 1.0, 0.15);
        cr_expect_eq(plan.clock.traffic[PLAN_GRADIENT_SUM].calls, 0);
        config_fini(&config);
    }
    cr_expect_gt(bytes[1], bytes[0]);
}

Test(plan, hybrid_sharding_sends_only_sums_out_of_a_node)
{
    char overrides[640] = "train.global_batch_size=64";
    for (int m = 0; m < 6; m++) {
        static const char *const modules[] = {"backbone", "dino_head", "ibot_head"};
        size_t used = strlen(overrides);
        snprintf(overrides + used, sizeof overrides - used,
                 " compute_precision.%s.%s.sharding_strategy=HYBRID_SHARD", m < 3 ? "student" : "teacher",
                 modules[m % 3]);
    }
    Config hybrid, full;
    ssl_support_config(&hybrid, overrides);
    ssl_support_config(&full, "train.global_batch_size=64");
    Cluster cluster = round_cluster(DEVICE_CUDA);
    StepPlan a = plan_of(&hybrid, &cluster, 16), b = plan_of(&full, &cluster, 16),
             node = plan_of(&full, &cluster, 4);
    cr_expect_gt(a.clock.traffic[PLAN_GATHER].calls, 0);
    cr_expect_eq(a.clock.traffic[PLAN_GATHER].across, 0);
    cr_expect_eq(a.clock.traffic[PLAN_SCATTER].across, 0);
    cr_expect_gt(a.clock.traffic[PLAN_GRADIENT_SUM].across, 0);
    cr_expect_gt(b.clock.traffic[PLAN_GATHER].across, 0);
    cr_expect_eq(a.memory[PLAN_MOMENTS], node.memory[PLAN_MOMENTS]);
    config_fini(&hybrid);
    config_fini(&full);
}

/* --- the clock --- */

typedef struct {
    Cluster cluster;
    PlanClock clock;
    PlanLink link;
    Device *device;
    Comm *comm;
    float buffer[16];
} ClockFixture;

/* 4 ranks on one node; 4 GB, which take 3 s. */
static const int64_t COUNT = 250000000;

static ClockFixture *clock_fixture(DeviceKind kind)
{
    ClockFixture *f = memory_alloc(sizeof *f);
    f->cluster = round_cluster(kind);
    plan_clock_init(&f->clock, &f->cluster);
    f->device = device_described_open(kind, "described", plan_clock_device(&f->clock));
    f->comm = comm_described_create(0, 4, f->device, plan_clock_link(&f->link, &f->clock, 4, 1, 1));
    return f;
}

static void clock_fixture_destroy(ClockFixture *f)
{
    comm_destroy(f->comm);
    device_close(f->device);
    memory_free(f);
}

Test(plan_clock, work_hides_what_was_started_before_it)
{
    for (int kind = DEVICE_CPU; kind <= DEVICE_CUDA; kind++) {
        ClockFixture *f = clock_fixture((DeviceKind)kind);
        CommRequest first = comm_all_gather_start(f->comm, f->buffer, f->buffer, COUNT, DTYPE_F32, f->device);
        plan_clock_spend(&f->clock, PLAN_PRODUCTS, 2);
        CommRequest second =
            comm_reduce_scatter_start(f->comm, f->buffer, f->buffer, COUNT, DTYPE_F32, f->device);
        cr_expect_eq(f->clock.rooms, (size_t)4000000000);
        comm_wait(f->comm, &first); /* done at 3 */
        cr_expect_float_eq(f->clock.now, 3, 1e-9);
        plan_clock_spend(&f->clock, PLAN_ROWS, 5);
        comm_wait(f->comm, &second); /* from 3 to 6: all hidden */
        cr_expect_float_eq(f->clock.now, 8, 1e-9);
        cr_expect_float_eq(f->clock.traffic[PLAN_GATHER].seconds, 3, 1e-9);
        cr_expect_float_eq(f->clock.traffic[PLAN_GATHER].exposed, 1, 1e-9);
        cr_expect_float_eq(f->clock.traffic[PLAN_SCATTER].exposed, 0, 1e-9);
        cr_expect_eq(f->clock.rooms, 0);
        clock_fixture_destroy(f);
    }
}

Test(plan_clock, a_collective_may_outlast_many_others)
{
    ClockFixture *f = clock_fixture(DEVICE_CUDA);
    CommRequest first = comm_reduce_scatter_start(f->comm, f->buffer, f->buffer, COUNT, DTYPE_F32, f->device);
    plan_clock_spend(&f->clock, PLAN_ROWS, 10);
    for (int i = 0; i < 2 * COMM_UNDER_WAY_MAX; i++) {
        CommRequest other = comm_all_gather_start(f->comm, f->buffer, f->buffer, COUNT, DTYPE_F32, f->device);
        comm_wait(f->comm, &other);
    }
    double before = f->clock.now;
    comm_wait(f->comm, &first);
    cr_expect_eq(f->clock.now, before);
    cr_expect_eq(f->clock.rooms, 0);
    cr_expect_float_eq(f->clock.traffic[PLAN_SCATTER].exposed, 0, 1e-9);
    clock_fixture_destroy(f);
}

Test(plan_clock, an_all_reduce_goes_round_twice_and_the_slowest_link_decides)
{
    ClockFixture *f = clock_fixture(DEVICE_CUDA);
    PlanLink link;
    plan_clock_link(&link, &f->clock, 16, 4, 1);
    cr_expect_float_eq(plan_clock_collective(&link, COMM_MOVE_ALL_REDUCE, 1e9), 2 * 15 / 16.0, 1e-9);
    f->cluster.between_gb_s = 0.5;
    cr_expect_float_eq(plan_clock_collective(&link, COMM_MOVE_ALL_GATHER, 1e9), 2 * 15 / 16.0, 1e-9);
    /* one rank of each node: a quarter of its adapters */
    plan_clock_link(&link, &f->clock, 4, 4, 0.25);
    cr_expect_float_eq(plan_clock_collective(&link, COMM_MOVE_ALL_GATHER, 1e9), 8 * 3 / 4.0, 1e-9);
    f->cluster.within_us = 1e6;
    plan_clock_link(&link, &f->clock, 4, 1, 1);
    cr_expect_float_eq(plan_clock_collective(&link, COMM_MOVE_ALL_GATHER, 0), 3, 1e-9);
    cr_expect_float_eq(plan_clock_collective(&link, COMM_MOVE_ALL_REDUCE, 0), 6, 1e-9);
    plan_clock_link(&link, &f->clock, 1, 1, 1);
    cr_expect_eq(plan_clock_collective(&link, COMM_MOVE_ALL_REDUCE, 1e9), 0);
    clock_fixture_destroy(f);
}

Test(plan_clock, a_described_device_counts_and_forgets)
{
    Device *device = device_described_open(DEVICE_CUDA, "described", (DeviceListener){0});
    void *a = device_alloc(device, (size_t)1 << 40), *b = device_alloc_host(device, (size_t)1 << 36);
    cr_expect_eq(device_memory_used(device), (size_t)1 << 40);
    ((char *)b)[12345] = 1; /* host memory is there when it is written */
    device_free(device, a);
    device_free_host(device, b);
    cr_expect_eq(device_memory_used(device), 0);
    device_close(device);
}

/* --- a whole run --- */

Test(plan, says_what_would_make_it_fit)
{
    Config config;
    ssl_support_config(&config, "student.depth=12 train.batch_size_per_gpu=64 train.global_batch_size=256");
    Cluster cluster = round_cluster(DEVICE_CUDA);
    StepPlanParams params = {.config = &config, .cluster = &cluster, .ranks = 4, .batches_held = 2};
    RunPlan plan;
    RunPlanFit fit;
    Error error = {0};
    cr_assert_eq(run_plan_make(&plan, &params, &error), STATUS_OK);
    cr_expect(plan.step.fits);
    cluster.memory_gib = (double)plan.step.total / 1073741824.0 * 0.6;
    cr_assert_eq(run_plan_fit(&fit, &params, &config, &error), STATUS_OK);
    cr_assert(fit.found);
    cr_expect_not_null(strstr(fit.keys, "train.checkpoint_activations=block"), "%s", fit.keys);
    cr_expect_leq(fit.plan.step.total, fit.plan.step.capacity);
    cr_expect_eq(config.train.checkpoint_activations, CONFIG_ACTIVATIONS_NONE);
    cluster.memory_gib = 1e-5;
    cr_assert_eq(run_plan_fit(&fit, &params, &config, &error), STATUS_OK);
    cr_expect(!fit.found);
    config_fini(&config);
}

Test(plan, hours_and_checkpoints_follow_from_the_step)
{
    Config config;
    ssl_support_config(&config, "optim.epochs=4 optim.warmup_epochs=1 train.OFFICIAL_EPOCH_LENGTH=5 "
                                "checkpoint.period=7 train.saveckp_freq=2");
    Cluster cluster = round_cluster(DEVICE_CUDA);
    StepPlanParams params = {.config = &config, .cluster = &cluster, .ranks = 2, .batches_held = 2};
    RunPlan plan;
    Error error = {0};
    cr_assert_eq(run_plan_make(&plan, &params, &error), STATUS_OK);
    cr_expect_eq(plan.iterations, 20);
    cr_expect_eq(plan.saves, 4); /* after 7, 10, 14, 20 */
    int64_t parameters = plan.step.parameters[0] + plan.step.parameters[1] + plan.step.parameters[2];
    cr_expect_eq(plan.checkpoint_bytes, 16 * (size_t)parameters);
    cr_expect_float_eq(plan.rank_hours, 2 * (20 * plan.step.seconds + 4 * plan.save_seconds) / 3600, 1e-12);
    const PublishedRun *runs[PUBLISHED_RUNS];
    cr_expect_eq(run_plan_published(runs, &config, &plan), 0);
    config_fini(&config);
}

/* --- cluster files --- */

Test(plan, a_wrong_cluster_file_is_refused_with_line_and_key)
{
    static const struct {
        const char *text, *said;
    } cases[] = {
        {"nodes: 0\n", "c.yaml:1: nodes: expected a whole number from 1"},
        {"nodes: 2.5\n", "c.yaml:1: nodes: expected a whole number"},
        {"nodes: 2\nnodes: 3\n", "c.yaml:2: nodes is given twice"},
        {"device: tpu\n", "c.yaml:1: device: expected cpu or cuda"},
        {"rank:\n  memory_gb: 80\n", "c.yaml:2: unknown key memory_gb; did you mean memory_gib"},
        {"rank:\n  product_share: 1.5\n", "c.yaml:2: product_share: expected a number from"},
        {"rank: [1, 2]\n", "c.yaml:1: expected keys and values"},
        {"name: x\n", "c.yaml:1: device is not given"},
        {"- 1\n", "expected keys and values"},
        {"name: [\n", "not YAML"},
        {"", "expected keys and values"},
    };
    TempFolder folder = temp_folder_create();
    TempPath path = temp_folder_in(&folder, "c.yaml");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Cluster cluster;
        Error error = {0};
        temp_folder_write(&folder, "c.yaml", cases[i].text);
        cr_expect_eq(cluster_load(&cluster, path.text, &error), STATUS_INPUT, "%s", cases[i].text);
        cr_expect_not_null(strstr(error.text, cases[i].said), "no \"%s\" in: %s", cases[i].said, error.text);
    }
    temp_folder_destroy(&folder);
}
