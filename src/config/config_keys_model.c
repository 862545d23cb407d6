/* config_keys_model.c - rows of dino, ibot, student and teacher: the networks and their losses.
 *
 * Names and defaults: dinov2/configs/ssl_default_config.yaml of the reference, where a row is not marked
 * `ours`.
 */
#include "config/config_keys.h"

#define PROTOTYPES_MAX 16777216.0
#define WIDTH_MAX      1048576.0

const ConfigKey CONFIG_KEYS_MODEL[] = {
    {CONFIG_KEY(dino.loss_weight, "1.0", "weight of the DINO loss on class tokens; 0 switches it off"),
     .low = 0, .high = 1e6},
    {CONFIG_KEY(dino.head_n_prototypes, "65536", "prototypes (outputs) of the DINO head"), .low = 1,
     .high = PROTOTYPES_MAX},
    {CONFIG_KEY(dino.head_bottleneck_dim, "256", "width of the normalised bottleneck of the DINO head"),
     .low = 1, .high = WIDTH_MAX},
    {CONFIG_KEY(dino.head_nlayers, "3", "linear layers before the prototypes of the DINO head"), .low = 1,
     .high = 8},
    {CONFIG_KEY(dino.head_hidden_dim, "2048", "hidden width of the DINO head"), .low = 1, .high = WIDTH_MAX},
    {CONFIG_KEY(dino.koleo_loss_weight, "0.1", "weight of the KoLeo loss on class tokens; 0 switches it off"),
     .low = 0, .high = 1e6},
    {CONFIG_KEY(
         dino.koleo_scope, "group",
         "among which samples KoLeo looks for the nearest: those of one group, or of the global batch"),
     .choices = "group|global", .ours = true},

    {CONFIG_KEY(ibot.loss_weight, "1.0", "weight of the iBOT loss on masked patches; 0 switches it off"),
     .low = 0, .high = 1e6},
    {CONFIG_KEY(ibot.mask_sample_probability, "0.5", "share of the global crops that get a mask"), .low = 0,
     .high = 1},
    {CONFIG_KEY(ibot.mask_ratio_min_max, "[0.1, 0.5]",
                "share of the patches that a mask hides, least and most"),
     .low = 0, .high = 1},
    {CONFIG_KEY(ibot.separate_head, "false", "an iBOT head of its own instead of the DINO head")},
    {CONFIG_KEY(ibot.head_n_prototypes, "65536", "prototypes (outputs) of a separate iBOT head"), .low = 1,
     .high = PROTOTYPES_MAX},
    {CONFIG_KEY(ibot.head_bottleneck_dim, "256", "width of the bottleneck of a separate iBOT head"), .low = 1,
     .high = WIDTH_MAX},
    {CONFIG_KEY(ibot.head_nlayers, "3", "linear layers before the prototypes of a separate iBOT head"),
     .low = 1, .high = 8},
    {CONFIG_KEY(ibot.head_hidden_dim, "2048", "hidden width of a separate iBOT head"), .low = 1,
     .high = WIDTH_MAX},

    {CONFIG_KEY(student.arch, "vit_large", "architecture of student and teacher"),
     .choices = "vit_small|vit_base|vit_large|vit_giant2|vit_custom"},
    {CONFIG_KEY(student.patch_size, "16", "edge of a patch in pixels"), .low = 1, .high = 256},
    {CONFIG_KEY(student.drop_path_rate, "0.3", "stochastic depth of the student: share of dropped residuals"),
     .low = 0, .high = 0.99},
    {CONFIG_KEY(student.layerscale, "1.0e-05", "initial value of LayerScale; 0 leaves LayerScale out"),
     .low = 0, .high = 1e3},
    {CONFIG_KEY(student.drop_path_uniform, "true",
                "the same drop path rate in every block, not a linear ramp")},
    {CONFIG_KEY(student.pretrained_weights, "",
                "HDF5 checkpoint whose teacher's backbone student and teacher start from; the heads start "
                "from the seed, and a run that resumes does not read it")},
    {CONFIG_KEY(student.ffn_layer, "mlp", "feed-forward layer of a block"),
     .choices = "mlp|swiglufused=swiglu"},
    {CONFIG_KEY(
         student.block_chunks, "0",
         "groups of blocks for sharding; 0 = every block by itself; never changes parameter names on disk"),
     .low = 0, .high = 1024},
    {CONFIG_KEY(student.qkv_bias, "true", "bias in the query, key, value projection")},
    {CONFIG_KEY(student.proj_bias, "true", "bias in the output projection of attention")},
    {CONFIG_KEY(student.ffn_bias, "true", "bias in the feed-forward layer")},
    {CONFIG_KEY(student.num_register_tokens, "0", "register tokens beside the class token"), .low = 0,
     .high = 1024},
    {CONFIG_KEY(student.interpolate_antialias, "false", "antialias when position embeddings are resampled")},
    {CONFIG_KEY(student.interpolate_offset, "0.1",
                "added to the grid size before its ratio is the scale of that resampling; 0 = exact size"),
     .low = 0, .high = 1},
    {CONFIG_KEY(student.embed_dim, "0", "width of vit_custom; 0 with any other arch"), .low = 0,
     .high = 65536, .ours = true},
    {CONFIG_KEY(student.depth, "0", "blocks of vit_custom; 0 with any other arch"), .low = 0, .high = 1024,
     .ours = true},
    {CONFIG_KEY(student.num_heads, "0", "attention heads of vit_custom; 0 with any other arch"), .low = 0,
     .high = 1024, .ours = true},

    {CONFIG_KEY(
         distillation.checkpoint_path, "",
         "of the distill job: checkpoint file or run folder of the frozen teacher, heads included; a run "
         "that resumes checks that its weights are the same, wherever they are"),
     .may_change = true, .ours = true},

    {CONFIG_KEY(teacher.momentum_teacher, "0.992", "momentum of the teacher's moving average at the start"),
     .low = 0, .high = 1},
    {CONFIG_KEY(teacher.final_momentum_teacher, "1", "momentum at the end of the cosine schedule"), .low = 0,
     .high = 1},
    {CONFIG_KEY(teacher.warmup_teacher_temp, "0.04", "temperature of the teacher's targets at the start"),
     .low = 1e-3, .high = 100},
    {CONFIG_KEY(teacher.teacher_temp, "0.07", "temperature of the teacher's targets after the warm-up"),
     .low = 1e-3, .high = 100},
    {CONFIG_KEY(teacher.warmup_teacher_temp_epochs, "30", "epochs over which the temperature rises linearly"),
     .low = 0, .high = 1e6},
};

const int CONFIG_KEYS_MODEL_COUNT = sizeof CONFIG_KEYS_MODEL / sizeof *CONFIG_KEYS_MODEL;
