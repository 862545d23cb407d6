/* config.h - the whole configuration of a job as one struct: what the YAML keys mean, member by member.
 *
 * The members mirror the dotted keys one to one: `optim.warmup_epochs` is `config.optim.warmup_epochs`.
 * Names, types and defaults of the reference's keys are those of dinov2/configs/ssl_default_config.yaml
 * (commit b8931f7); the others are ours and say so in config_help(). One table (config_keys.h) makes
 * defaults, parser, help and dump.
 *
 *     Config config;
 *     config_init(&config);
 *     TRY(config_load_file(&config, "jobs/configs/train/vitl14.yaml", error));
 *     TRY(config_override(&config, "optim.epochs=5", error));
 *     TRY(config_check(&config, error));
 *     ...
 *     config_fini(&config);
 *
 * It is deliberately not a general YAML tree, and it derives nothing (learning rate scaling, sizes of an
 * architecture, batch of all ranks): who uses a value derives it. No function here is collective; every rank
 * parses for itself.
 */
#ifndef DINOBATCH_CONFIG_CONFIG_H
#define DINOBATCH_CONFIG_CONFIG_H

#include "base/dtype.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- enumerated keys: values in the order of the names in the table
 * ------------------------------------------- */

typedef enum {
    CONFIG_SHARDING_NO_SHARD,
    CONFIG_SHARDING_SHARD_GRAD_OP,
    CONFIG_SHARDING_FULL_SHARD,
    CONFIG_SHARDING_HYBRID_SHARD,
} ConfigSharding;

typedef enum { CONFIG_CENTERING_CENTERING, CONFIG_CENTERING_SINKHORN_KNOPP } ConfigCentering;

typedef enum {
    CONFIG_ARCH_VIT_SMALL,
    CONFIG_ARCH_VIT_BASE,
    CONFIG_ARCH_VIT_LARGE,
    CONFIG_ARCH_VIT_GIANT2,
    CONFIG_ARCH_VIT_CUSTOM, /* student.embed_dim, depth, num_heads */
} ConfigArch;

/* "swiglu" and "swiglufused" are one thing in the reference and one value here. */
typedef enum { CONFIG_FFN_MLP, CONFIG_FFN_SWIGLUFUSED } ConfigFfn;

typedef enum { CONFIG_SCALING_SQRT_WRT_1024 } ConfigScaling;

typedef enum { CONFIG_KOLEO_GROUP, CONFIG_KOLEO_GLOBAL } ConfigKoleoScope;

typedef enum { CONFIG_HEADS_LOAD, CONFIG_HEADS_FRESH } ConfigHeads;
typedef enum { CONFIG_ACTIVATIONS_NONE, CONFIG_ACTIVATIONS_BLOCK } ConfigActivations;

typedef enum { CONFIG_DEVICE_AUTO, CONFIG_DEVICE_CPU, CONFIG_DEVICE_CUDA } ConfigDevice;

typedef enum { CONFIG_ATTENTION_AUTO, CONFIG_ATTENTION_SM80, CONFIG_ATTENTION_SM90 } ConfigAttention;

typedef enum { CONFIG_ON_ERROR_STOP, CONFIG_ON_ERROR_CONTINUE } ConfigOnError;

typedef enum { CONFIG_DECODE_EXACT, CONFIG_DECODE_SCALED } ConfigDecode;

typedef enum { CONFIG_GRID_CODE, CONFIG_GRID_PAPER } ConfigLinearGrid;

typedef enum { CONFIG_LINKS_POOL, CONFIG_LINKS_NONE } ConfigLinks;

typedef enum { CONFIG_CLUSTER_ROWS, CONFIG_CLUSTER_PLUS_PLUS } ConfigClusterInit;

typedef enum { CONFIG_RETRIEVE_AUTO, CONFIG_RETRIEVE_SAMPLE, CONFIG_RETRIEVE_CLUSTER } ConfigRetrieve;

typedef enum { CONFIG_COLLISIONS_KEEP, CONFIG_COLLISIONS_REMOVE } ConfigCollisions;

/* --- the keys
 * -------------------------------------------------------------------------------------------------- */

enum { CONFIG_LIST_MAX = 8 };

typedef struct {
    int64_t values[CONFIG_LIST_MAX];
    int count; /* 1..CONFIG_LIST_MAX */
} ConfigList;

typedef struct {
    ConfigSharding sharding_strategy;
    struct {
        Dtype param_dtype;  /* DTYPE_F32, DTYPE_BF16 or DTYPE_F16 */
        Dtype reduce_dtype; /* as above */
        Dtype buffer_dtype; /* inert */
    } mixed_precision;
} ConfigPrecision;

typedef struct {
    ConfigPrecision backbone, dino_head, ibot_head;
} ConfigPrecisions;

/* What set each key last; kept so that messages can name file and line. */
typedef struct {
    char *source; /* owned; file name or "command line"; NULL: the default stands */
    int64_t line; /* 1-based; 0: no lines (command line) */
} ConfigOrigin;

/* Strings are owned and never NULL (an empty one means "not given"). Move it, do not copy it. */
typedef struct {
    struct {
        char *WEIGHTS; /* inert */
    } MODEL;
    struct {
        bool grad_scaler;
        ConfigPrecisions teacher, student;
    } compute_precision;
    struct {
        double loss_weight;
        int64_t head_n_prototypes, head_bottleneck_dim, head_nlayers, head_hidden_dim;
        double koleo_loss_weight;
        ConfigKoleoScope koleo_scope;
    } dino;
    struct {
        double loss_weight;
        double mask_sample_probability;
        double mask_ratio_min_max[2];
        bool separate_head;
        int64_t head_n_prototypes, head_bottleneck_dim, head_nlayers, head_hidden_dim;
    } ibot;
    struct {
        int64_t batch_size_per_gpu; /* samples of one group, see design "Groups" */
        char *dataset_path;
        char *output_dir; /* --output-dir wins */
        int64_t saveckp_freq;
        int64_t seed;
        int64_t num_workers;
        int64_t OFFICIAL_EPOCH_LENGTH;
        bool cache_dataset; /* inert */
        ConfigCentering centering;
        int64_t global_batch_size; /* 0: batch_size_per_gpu times the ranks */
        int64_t micro_batch_size;  /* 0: all at once */
        char *init_from;
        ConfigHeads init_heads;
        char *resume_from;
        int64_t stop_after_iterations; /* 0: never */
        int64_t skip_bad_steps; /* consecutive non-finite steps that are skipped; 0: fail at the first */
        ConfigActivations checkpoint_activations;
    } train;
    struct {
        ConfigArch arch;
        int64_t patch_size;
        double drop_path_rate;
        double layerscale; /* 0: no LayerScale */
        bool drop_path_uniform;
        char *pretrained_weights;
        ConfigFfn ffn_layer;
        int64_t block_chunks;
        bool qkv_bias, proj_bias, ffn_bias;
        int64_t num_register_tokens;
        bool interpolate_antialias;
        double interpolate_offset;
        int64_t embed_dim, depth, num_heads; /* of vit_custom; 0: those of the arch */
    } student;
    struct {
        char *checkpoint_path;
    } distillation;
    struct {
        double momentum_teacher, final_momentum_teacher;
        double warmup_teacher_temp, teacher_temp;
        int64_t warmup_teacher_temp_epochs;
    } teacher;
    struct {
        int64_t epochs;
        double weight_decay, weight_decay_end;
        double base_lr;
        double lr; /* inert: computed from base_lr */
        int64_t warmup_epochs;
        double min_lr;
        double clip_grad; /* 0: no clipping */
        int64_t freeze_last_layer_epochs, freeze_backbone_epochs, warmup_backbone_epochs;
        ConfigScaling scaling_rule;
        double patch_embed_lr_mult;
        double layerwise_decay;
        double adamw_beta1, adamw_beta2;
    } optim;
    struct {
        double global_crops_scale[2];
        int64_t local_crops_number;
        double local_crops_scale[2];
        int64_t global_crops_size, local_crops_size;
        double aspect_ratio[2]; /* of the crop rectangle, width / height, drawn log-uniformly */
        double flip_probability;
        double jitter_probability;
        double jitter_brightness, jitter_contrast, jitter_saturation, jitter_hue;
        double grayscale_probability;
        /* Effective probabilities, that is how often a crop *is* blurred (the reference's argument is
         * inverted). */
        double blur_probability_global1, blur_probability_global2, blur_probability_local;
        double blur_sigma[2];
        double solarize_probability_global2;
        int64_t solarize_threshold;
    } crops;
    struct {
        ConfigDecode decode;
        int64_t prefetch; /* batches ahead of the step, per rank */
    } data;
    struct {
        int64_t eval_period_iterations; /* 0: never */
        char *train_dataset_path, *val_dataset_path;
        ConfigList knn_k;
        double knn_temperature;
        ConfigList n_per_class_list; /* -1: all */
        int64_t n_tries;
        int64_t batch_size;
        int64_t resize_size; /* 0: crop size * 256 / 224, rounded */
        int64_t crop_size;   /* 0: crops.global_crops_size */
        int64_t limit;       /* images of each data set; 0: all */
        double logreg_c_log10[2];
        int64_t logreg_c_count, logreg_max_iterations;
        ConfigLinearGrid linear_grid;
        double linear_learning_rate; /* 0: those of the grid */
        ConfigList linear_last_blocks;
        int64_t linear_batch_size; /* of all ranks */
        int64_t linear_iterations, linear_save_iterations;
        int64_t dense_size, dense_crop; /* 0: as they are; whole */
        double dense_scale[2], dense_flip;
        int64_t dense_batch_size; /* of all ranks */
        int64_t dense_iterations;
        ConfigList dense_test_scales; /* percent */
        bool dense_test_flip;
        int64_t segmentation_classes; /* 0: the training set's and one more */
        int64_t segmentation_ignore;
        double depth_range[2], depth_scale; /* metres; units of a mask in a metre */
        int64_t depth_bins;
    } evaluation;
    struct {
        int64_t period; /* iterations; 0: three epochs, the reference's rule */
        int64_t keep;   /* newest that stay; 0: all */
        bool async;
        ConfigOnError on_error;
    } checkpoint;
    struct {
        ConfigDevice device;
        bool deterministic;
        int64_t threads; /* 0: the cores this rank may use */
        ConfigAttention attention;
        int64_t ranks_per_node; /* 0: as the launcher placed them */
    } compute;
    struct {
        int64_t neighbours;
        char *index; /* over the pool: Faiss's factory string */
        int64_t nprobe, refine, train_rows, block_queries;
        bool gpu;
        int64_t seed;
        double save_minutes;
        bool score_normalization;
        struct {
            double false_links, false_references;
        } calibrate;
        struct {
            double threshold, background_most;
        } dedup;
        struct {
            double threshold, background_most;
            ConfigLinks links;
            char *index; /* over the references */
        } exclude;
        struct {
            int64_t k, iterations;
            int64_t batch_rows; /* 0: all */
            bool spherical;
            ConfigClusterInit init;
            ConfigList levels; /* clusters of the levels above; 0: none */
            int64_t sample;    /* rows; 0: no sample */
        } cluster;
        struct {
            ConfigRetrieve mode;
            int64_t neighbours, switch_size;
            int64_t min_queries, per_cluster, cap;
            ConfigCollisions collisions;
        } retrieve;
    } curation;

    ConfigOrigin *origins; /* [number of keys], in table order; owned; not a key */
} Config;

/* Fills every member with its default. Own storage: config_fini releases it. */
void config_init(Config *config);

/* Releases the strings; the struct may be initialised again. */
void config_fini(Config *config);

/* --- reading
 * --------------------------------------------------------------------------------------------------- All of
 * these change only the keys that the input names. Whatever is wrong with the input (unreadable, over 1 MiB,
 * not YAML, unknown or repeated key, wrong type, out of bounds, wrong list length, anchors, aliases, tags,
 * deep nesting) gives STATUS_INPUT and one line `FILE:LINE: key: expected ..., got ...`; the keys before it
 * stay set. */

/* Overlays a YAML file. */
Status config_load_file(Config *config, const char *path, Error *error);

/* Overlays `size` bytes of YAML; `name` stands for the file in messages. */
Status config_load_text(Config *config, const char *name, const char *yaml, size_t size, Error *error);

/* Overlays "dotted.key=value", the value as YAML writes it; messages say "command line" for the file. */
Status config_override(Config *config, const char *assignment, Error *error);

/* Sets a string key to `text` as it stands (no YAML): for --output-dir and other paths. `source` stands for
 * the file in messages. The key must exist and be a string (our bug otherwise); text that is not UTF-8 is
 * STATUS_INPUT. */
Status config_override_text(Config *config, const char *key, const char *text, const char *source,
                            Error *error);

/* The rules that tie keys together (order of ranges, divisibility, sizes of vit_custom, HYBRID_SHARD on both
 * sides,
 * ...). Call after the last overlay. STATUS_INPUT with one line that names the keys. */
Status config_check(const Config *config, Error *error);

/* --- telling
 * --------------------------------------------------------------------------------------------------- */

/* Lines that the user should see once: keys he set that have no effect, and why. */
typedef struct {
    char **lines; /* [count] owned */
    int count;
} ConfigNotes;

/* Fills `notes` (own storage, released by config_notes_fini): one line per reason, not per key. */
void config_notes_init(ConfigNotes *notes, const Config *config);
void config_notes_fini(ConfigNotes *notes);

/* The resolved configuration: YAML with every key, that config_load_text reads back to the same values bit by
 * bit. Owned by the caller: memory_free. */
char *config_dump(const Config *config);

/* Every key with type, default, bounds and meaning, for --help and the documentation. memory_free. */
char *config_help(void);

/* One key in which two configurations differ. */
typedef struct {
    const char *key;      /* dotted; static */
    char *before, *after; /* values as YAML; owned */
    bool may_change;      /* allowed on resume, or the key has no effect */
} ConfigDifference;

typedef struct {
    ConfigDifference *items; /* [count] owned */
    int count;
} ConfigDiff;

/* Fills `diff` (own storage, released by config_diff_fini) with every key whose value differs, in table
 * order. */
void config_diff_init(ConfigDiff *diff, const Config *before, const Config *after);
void config_diff_fini(ConfigDiff *diff);

/* STATUS_INPUT naming the keys that differ although a resumed run must keep them; see design "Resume". */
Status config_diff_check_resume(const Config *saved, const Config *now, Error *error);

#endif
