/* config_keys_train.c - rows of train, optim, checkpoint and compute: the run itself.
 *
 * Names and defaults: dinov2/configs/ssl_default_config.yaml of the reference, where a row is not marked
 * `ours`.
 */
#include "config/config_keys.h"

/* The largest integer below which every integer is a double, which the bounds are. */
#define INTEGER_MAX 9007199254740991.0
#define BATCH_MAX   16777216.0
#define STEPS_MAX   1e12

const ConfigKey CONFIG_KEYS_TRAIN[] = {
    {CONFIG_KEY(train.batch_size_per_gpu, "64",
                "samples of one group: what the reference computes per GPU is computed per group"),
     .low = 1, .high = BATCH_MAX},
    {CONFIG_KEY(train.dataset_path, "ImageNet:split=TRAIN", "images to train on, as a data set spec")},
    {CONFIG_KEY(train.output_dir, ".", "run folder; --output-dir wins"), .may_change = true},
    {CONFIG_KEY(train.saveckp_freq, "20",
                "epochs between checkpoints that are saved and never deleted, whatever checkpoint.keep says; "
                "0 = none"),
     .low = 0, .high = 1e6, .may_change = true},
    {CONFIG_KEY(train.seed, "0",
                "seed of initialisation, order of samples, augmentation, masks and drop path"),
     .low = 0, .high = INTEGER_MAX},
    {CONFIG_KEY(train.num_workers, "10",
                "loader threads of a rank; 0 = the rank itself loads, between its steps"),
     .low = 0, .high = 1024, .may_change = true},
    {CONFIG_KEY(train.OFFICIAL_EPOCH_LENGTH, "1250", "iterations that are called an epoch"), .low = 1,
     .high = 1e9},
    {CONFIG_KEY(train.cache_dataset, "true", "keep the index of the data set in memory"),
     .inert = "data sets are indexed when they are opened; there is nothing to cache"},
    {CONFIG_KEY(train.centering, "centering", "how the teacher's outputs are kept from collapsing"),
     .choices = "centering|sinkhorn_knopp"},
    {CONFIG_KEY(
         train.global_batch_size, "0",
         "samples of one step over all ranks, a multiple of train.batch_size_per_gpu; 0 = one group a rank"),
     .low = 0, .high = BATCH_MAX, .ours = true},
    {CONFIG_KEY(
         train.micro_batch_size, "0",
         "most samples that a rank has in memory at once; bounds memory, changes nothing else; 0 = all"),
     .low = 0, .high = BATCH_MAX, .may_change = true, .ours = true},
    {CONFIG_KEY(train.init_from, "",
                "checkpoint file or run folder whose student and moving average a new run starts from, at "
                "another size of crops, too; moments, centres and schedules start anew"),
     .may_change = true, .ours = true},
    {CONFIG_KEY(train.init_heads, "load", "whether the heads are those of train.init_from, or new"),
     .choices = "load|fresh", .may_change = true, .ours = true},
    {CONFIG_KEY(
         train.resume_from, "",
         "checkpoint file that the run continues (weights, optimizer, schedules, samples) where its own "
         "folder has none; to go back to an earlier one of its own folder, add --no-resume"),
     .may_change = true, .ours = true},
    {CONFIG_KEY(train.stop_after_iterations, "0",
                "save and exit with status 75 after this many iterations of this start; 0 = never"),
     .low = 0, .high = STEPS_MAX, .may_change = true, .ours = true},
    {CONFIG_KEY(
         train.skip_bad_steps, "0",
         "steps in a row with NaN or inf that are skipped before the run fails; 0 = fail at the first"),
     .low = 0, .high = 1e6, .ours = true},
    {CONFIG_KEY(train.checkpoint_activations, "none",
                "block = keep only the inputs of each block and compute the rest again in the backward pass"),
     .choices = "none|block", .may_change = true, .ours = true},

    {CONFIG_KEY(optim.epochs, "100", "length of the run and of its schedules"), .low = 1, .high = 1e6},
    {CONFIG_KEY(optim.weight_decay, "0.04", "weight decay at the start of its cosine schedule"), .low = 0,
     .high = 1e3},
    {CONFIG_KEY(optim.weight_decay_end, "0.4", "weight decay at the end"), .low = 0, .high = 1e3},
    {CONFIG_KEY(optim.base_lr, "0.004", "peak learning rate for a global batch of 1024"), .low = 0,
     .high = 1e3},
    {CONFIG_KEY(optim.lr, "0.", "peak learning rate of this run"), .low = 0, .high = 1e3,
     .inert = "the learning rate is computed from optim.base_lr by optim.scaling_rule"},
    {CONFIG_KEY(optim.warmup_epochs, "10", "epochs over which the learning rate rises linearly from 0"),
     .low = 0, .high = 1e6},
    {CONFIG_KEY(optim.min_lr, "1.0e-06", "learning rate at the end of the cosine schedule"), .low = 0,
     .high = 1e3},
    {CONFIG_KEY(optim.clip_grad, "3.0",
                "largest gradient norm of a sub-module (backbone, each head); 0 = no limit"),
     .low = 0, .high = 1e9},
    {CONFIG_KEY(optim.freeze_last_layer_epochs, "1", "epochs in which the prototypes do not move"), .low = 0,
     .high = 1e6},
    {CONFIG_KEY(optim.freeze_backbone_epochs, "0",
                "epochs in which the backbone does not move, only heads do: for fresh heads on its features"),
     .low = 0, .high = 1e6, .ours = true},
    {CONFIG_KEY(optim.warmup_backbone_epochs, "0",
                "epochs over which the backbone's learning rate then rises to that of the heads"),
     .low = 0, .high = 1e6, .ours = true},
    {CONFIG_KEY(optim.scaling_rule, "sqrt_wrt_1024", "lr = base_lr * sqrt(global batch / 1024)"),
     .choices = "sqrt_wrt_1024"},
    {CONFIG_KEY(optim.patch_embed_lr_mult, "0.2", "factor on the learning rate of the patch embedding"),
     .low = 0, .high = 1e3},
    {CONFIG_KEY(optim.layerwise_decay, "0.9",
                "factor on the learning rate per block below the last; 1 = none"),
     .low = 0, .high = 10},
    {CONFIG_KEY(optim.adamw_beta1, "0.9", "decay of AdamW's first moment"), .low = 0, .high = 0.999999},
    {CONFIG_KEY(optim.adamw_beta2, "0.999", "decay of AdamW's second moment"), .low = 0, .high = 0.99999999},

    {CONFIG_KEY(checkpoint.period, "0",
                "iterations between checkpoints; 0 = three epochs, the reference's rule; the last step "
                "always saves"),
     .low = 0, .high = STEPS_MAX, .may_change = true, .ours = true},
    {CONFIG_KEY(checkpoint.keep, "3", "newest checkpoints that stay on disk; 0 = all"), .low = 0, .high = 1e6,
     .may_change = true, .ours = true},
    {CONFIG_KEY(checkpoint.async, "false", "write checkpoints while the next steps run"), .may_change = true,
     .ours = true},
    {CONFIG_KEY(checkpoint.on_error, "stop",
                "what follows a checkpoint that could not be written: the run ends with status 1, or it goes "
                "on (without metrics that cannot be written either) and tries again after the next period; "
                "the last checkpoint of a run must succeed"),
     .choices = "stop|continue", .may_change = true, .ours = true},

    {CONFIG_KEY(compute.device, "auto", "where to compute; auto = a GPU where build and machine have one"),
     .choices = "auto|cpu|cuda", .may_change = true, .ours = true},
    {CONFIG_KEY(
         compute.deterministic, "false",
         "bit for bit reproducible on several GPUs, too: keeps NCCL from sums that are not; everything "
         "else always is"),
     .may_change = true, .ours = true},
    {CONFIG_KEY(
         compute.threads, "0",
         "threads of a rank; 0 = its share of the cores, at most OMP_NUM_THREADS or SLURM_CPUS_PER_TASK"),
     .low = 0, .high = 4096, .may_change = true, .ours = true},
    {CONFIG_KEY(compute.attention, "auto",
                "which attention kernels a GPU uses in 16 bits: sm80 = mma.sync, sm90 = wgmma (compute "
                "capability 9.0 only, not yet run on a GPU); auto = sm80"),
     .choices = "auto|sm80|sm90", .may_change = true, .ours = true},
    {CONFIG_KEY(compute.ranks_per_node, "0",
                "ranks of a node as HYBRID_SHARD takes it; 0 = as the launcher placed them"),
     .low = 0, .high = 65536, .may_change = true, .ours = true},
};

const int CONFIG_KEYS_TRAIN_COUNT = sizeof CONFIG_KEYS_TRAIN / sizeof *CONFIG_KEYS_TRAIN;
