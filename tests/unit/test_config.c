/* test_config.c - defaults, files of the reference, overrides, dump, help, notes, differences.
 *
 * The expected values are written out here once more, from dinov2/configs/ssl_default_config.yaml of the
 * reference, so that a slip in the table shows.
 */
#include "base/memory.h"
#include "config/config.h"
#include "config/config_keys.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static void load_text(Config *config, const char *yaml)
{
    Error error = {0};
    cr_assert(config_load_text(config, "text.yaml", yaml, strlen(yaml), &error) == STATUS_OK, "%s",
              error.text);
}

static void load_file(Config *config, const char *path)
{
    Error error = {0};
    cr_assert(config_load_file(config, path, &error) == STATUS_OK, "%s", error.text);
}

static void override(Config *config, const char *assignment)
{
    Error error = {0};
    cr_assert(config_override(config, assignment, &error) == STATUS_OK, "%s", error.text);
}

static void expect_valid(const Config *config)
{
    Error error = {0};
    cr_assert(config_check(config, &error) == STATUS_OK, "%s", error.text);
}

/* The first key that differs, for messages; NULL when none does. */
static const char *first_difference(const Config *a, const Config *b)
{
    ConfigDiff diff;
    config_diff_init(&diff, a, b);
    const char *key = diff.count ? diff.items[0].key : NULL;
    config_diff_fini(&diff);
    return key;
}

/* --- defaults
 * ------------------------------------------------------------------------------------------------- */

/* The reference's defaults in full, as "key: value" of one flat list. */
static const char *const REFERENCE[][2] = {
    {"MODEL.WEIGHTS", "''"},
    {"compute_precision.grad_scaler", "true"},
    {"dino.loss_weight", "1.0"},
    {"dino.head_n_prototypes", "65536"},
    {"dino.head_bottleneck_dim", "256"},
    {"dino.head_nlayers", "3"},
    {"dino.head_hidden_dim", "2048"},
    {"dino.koleo_loss_weight", "0.1"},
    {"ibot.loss_weight", "1.0"},
    {"ibot.mask_sample_probability", "0.5"},
    {"ibot.mask_ratio_min_max", "[0.1, 0.5]"},
    {"ibot.separate_head", "false"},
    {"ibot.head_n_prototypes", "65536"},
    {"ibot.head_bottleneck_dim", "256"},
    {"ibot.head_nlayers", "3"},
    {"ibot.head_hidden_dim", "2048"},
    {"train.batch_size_per_gpu", "64"},
    {"train.dataset_path", "'ImageNet:split=TRAIN'"},
    {"train.output_dir", "'.'"},
    {"train.saveckp_freq", "20"},
    {"train.seed", "0"},
    {"train.num_workers", "10"},
    {"train.OFFICIAL_EPOCH_LENGTH", "1250"},
    {"train.cache_dataset", "true"},
    {"train.centering", "centering"},
    {"student.arch", "vit_large"},
    {"student.patch_size", "16"},
    {"student.drop_path_rate", "0.3"},
    {"student.layerscale", "1.0e-05"},
    {"student.drop_path_uniform", "true"},
    {"student.pretrained_weights", "''"},
    {"student.ffn_layer", "mlp"},
    {"student.block_chunks", "0"},
    {"student.qkv_bias", "true"},
    {"student.proj_bias", "true"},
    {"student.ffn_bias", "true"},
    {"student.num_register_tokens", "0"},
    {"student.interpolate_antialias", "false"},
    {"student.interpolate_offset", "0.1"},
    {"teacher.momentum_teacher", "0.992"},
    {"teacher.final_momentum_teacher", "1.0"},
    {"teacher.warmup_teacher_temp", "0.04"},
    {"teacher.teacher_temp", "0.07"},
    {"teacher.warmup_teacher_temp_epochs", "30"},
    {"optim.epochs", "100"},
    {"optim.weight_decay", "0.04"},
    {"optim.weight_decay_end", "0.4"},
    {"optim.base_lr", "0.004"},
    {"optim.lr", "0.0"},
    {"optim.warmup_epochs", "10"},
    {"optim.min_lr", "1.0e-06"},
    {"optim.clip_grad", "3.0"},
    {"optim.freeze_last_layer_epochs", "1"},
    {"optim.scaling_rule", "sqrt_wrt_1024"},
    {"optim.patch_embed_lr_mult", "0.2"},
    {"optim.layerwise_decay", "0.9"},
    {"optim.adamw_beta1", "0.9"},
    {"optim.adamw_beta2", "0.999"},
    {"crops.global_crops_scale", "[0.32, 1.0]"},
    {"crops.local_crops_number", "8"},
    {"crops.local_crops_scale", "[0.05, 0.32]"},
    {"crops.global_crops_size", "224"},
    {"crops.local_crops_size", "96"},
    {"evaluation.eval_period_iterations", "12500"},
};

enum { REFERENCE_COUNT = sizeof REFERENCE / sizeof *REFERENCE };

/* "    key: value\n" somewhere in the dump, at the indentation of its depth, inside its section. */
static void expect_dumped(const char *dump, const char *key, const char *value)
{
    char line[256];
    const char *section = dump;
    int depth = 0;
    for (const char *dot; (dot = strchr(key, '.')); key = dot + 1, depth++) {
        snprintf(line, sizeof line, "%*s%.*s:\n", 2 * depth, "", (int)(dot - key), key);
        section = strstr(section, line);
        cr_assert(section, "no section %s", line);
    }
    snprintf(line, sizeof line, "\n%*s%s: %s\n", 2 * depth, "", key, value);
    cr_assert(strstr(section, line), "no line '%s'", line);
}

Test(config, defaults_are_those_of_the_reference)
{
    Config config;
    config_init(&config);
    char *dump = config_dump(&config);
    for (int i = 0; i < REFERENCE_COUNT; i++)
        expect_dumped(dump, REFERENCE[i][0], REFERENCE[i][1]);

    static const char *const sides[] = {"teacher", "student"}, *const parts[] = {"backbone", "dino_head",
                                                                                 "ibot_head"};
    for (int i = 0; i < 6; i++) {
        char key[128];
        bool fp32_reduce = i > 3; /* the heads of the student */
        const char *prefix = "compute_precision";
        snprintf(key, sizeof key, "%s.%s.%s.sharding_strategy", prefix, sides[i / 3], parts[i % 3]);
        expect_dumped(dump, key, "SHARD_GRAD_OP");
        snprintf(key, sizeof key, "%s.%s.%s.mixed_precision.param_dtype", prefix, sides[i / 3], parts[i % 3]);
        expect_dumped(dump, key, "fp16");
        snprintf(key, sizeof key, "%s.%s.%s.mixed_precision.reduce_dtype", prefix, sides[i / 3],
                 parts[i % 3]);
        expect_dumped(dump, key, fp32_reduce ? "fp32" : "fp16");
        snprintf(key, sizeof key, "%s.%s.%s.mixed_precision.buffer_dtype", prefix, sides[i / 3],
                 parts[i % 3]);
        expect_dumped(dump, key, "fp32");
    }
    memory_free(dump);

    int reference_keys = 0;
    for (int i = 0; i < config_keys_count(); i++)
        reference_keys += !config_keys_at(i)->ours;
    cr_assert_eq(reference_keys, REFERENCE_COUNT + 24);
    expect_valid(&config);
    config_fini(&config);
}

Test(config, members_hold_the_defaults)
{
    Config config;
    config_init(&config);
    cr_assert(config.student.layerscale == 1e-5);
    cr_assert(config.compute_precision.student.dino_head.mixed_precision.reduce_dtype == DTYPE_F32);
    cr_assert(config.compute_precision.teacher.dino_head.mixed_precision.reduce_dtype == DTYPE_F16);
    cr_assert(config.compute_precision.student.backbone.sharding_strategy == CONFIG_SHARDING_SHARD_GRAD_OP);
    cr_assert(config.student.arch == CONFIG_ARCH_VIT_LARGE);
    cr_assert(config.train.centering == CONFIG_CENTERING_CENTERING);
    cr_assert_str_eq(config.train.dataset_path, "ImageNet:split=TRAIN");
    cr_assert_str_eq(config.MODEL.WEIGHTS, "");
    cr_assert(config.crops.global_crops_scale[0] == 0.32 && config.crops.global_crops_scale[1] == 1.0);
    cr_assert(config.crops.aspect_ratio[1] == 4.0 / 3.0);
    cr_assert(config.crops.blur_probability_global1 == 0.0 && config.crops.blur_probability_global2 == 0.9);
    cr_assert(config.crops.solarize_threshold == 128);
    cr_assert_eq(config.evaluation.knn_k.count, 4);
    cr_assert(config.evaluation.knn_k.values[0] == 10 && config.evaluation.knn_k.values[3] == 200);
    cr_assert(config.evaluation.knn_temperature == 0.07);
    cr_assert(config.checkpoint.keep == 3 && !config.checkpoint.async);
    config_fini(&config);
}

/* --- files
 * ---------------------------------------------------------------------------------------------------- */

Test(config, shipped_defaults_change_nothing)
{
    Config plain, loaded;
    config_init(&plain);
    config_init(&loaded);
    load_file(&loaded, "jobs/configs/ssl_default_config.yaml");
    const char *key = first_difference(&plain, &loaded);
    cr_assert(key == NULL, "%s differs", key);
    for (int i = 0; i < config_keys_count(); i++)
        cr_assert((loaded.origins[i].source == NULL) == config_keys_at(i)->ours, "%s",
                  config_keys_at(i)->name);
    config_fini(&plain);
    config_fini(&loaded);
}

static int check_folder(const char *folder)
{
    DIR *stream = opendir(folder);
    cr_assert(stream, "no folder %s below the working directory", folder);
    int count = 0;
    for (struct dirent *entry; (entry = readdir(stream));) {
        if (!strstr(entry->d_name, ".yaml")) continue;
        char path[512];
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        Config config;
        config_init(&config);
        load_file(&config, path);
        expect_valid(&config);
        config_fini(&config);
        count++;
    }
    closedir(stream);
    return count;
}

Test(config, shipped_files_load)
{
    cr_assert(check_folder("jobs/configs") >= 1);
    cr_assert(check_folder("jobs/configs/train") >= 3);
    cr_assert(check_folder("jobs/configs/eval") >= 8);
    cr_assert(check_folder("jobs/configs/distill") >= 3);
}

Test(config, training_files_have_the_values_of_the_reference)
{
    static const struct {
        const char *path;
        ConfigArch arch;
        int64_t batch;
    } files[] = {{"jobs/configs/train/vitg14.yaml", CONFIG_ARCH_VIT_GIANT2, 12},
                 {"jobs/configs/train/vitl14.yaml", CONFIG_ARCH_VIT_LARGE, 32}};
    for (int i = 0; i < 2; i++) {
        Config config;
        config_init(&config);
        load_file(&config, files[i].path);
        cr_assert(config.student.arch == files[i].arch && config.train.batch_size_per_gpu == files[i].batch);
        cr_assert(config.dino.head_n_prototypes == 131072 && config.dino.head_bottleneck_dim == 384);
        cr_assert(config.ibot.head_n_prototypes == 131072 && config.ibot.head_bottleneck_dim == 256);
        cr_assert(config.ibot.separate_head && config.train.centering == CONFIG_CENTERING_SINKHORN_KNOPP);
        cr_assert_str_eq(config.train.dataset_path, "ImageNet22k");
        cr_assert(config.student.patch_size == 14 && config.student.drop_path_rate == 0.4);
        cr_assert(config.student.ffn_layer == CONFIG_FFN_SWIGLUFUSED && config.student.block_chunks == 4);
        cr_assert(config.teacher.momentum_teacher == 0.994 && config.teacher.final_momentum_teacher == 1.0);
        cr_assert(config.optim.epochs == 500 && config.optim.warmup_epochs == 80);
        cr_assert(config.optim.weight_decay_end == 0.2 && config.optim.base_lr == 2e-4);
        cr_assert(config.optim.layerwise_decay == 1.0 && config.crops.local_crops_size == 98);
        config_fini(&config);
    }
}

/* The shape of the reference's own files: comments, quotes, block lists, no newline at the end. */
Test(config, reference_style_loads)
{
    Config config;
    config_init(&config);
    load_text(&config, "student:\n  arch: vit_base\n  patch_size: 14\n  num_register_tokens: 4\n"
                       "  interpolate_antialias: true\n  interpolate_offset: 0.0\n  ffn_layer: \"mlp\"\n"
                       "train:\n  centering: \"centering\" # or \"sinkhorn_knopp\"\n"
                       "ibot:\n  mask_ratio_min_max:\n  - 0.2\n  - 0.5\nMODEL:\n  WEIGHTS: ''\n"
                       "crops:\n  global_crops_size: 518  # a comment\n  local_crops_size: 98");
    cr_assert(config.student.arch == CONFIG_ARCH_VIT_BASE && config.student.num_register_tokens == 4);
    cr_assert(config.student.interpolate_antialias && config.student.interpolate_offset == 0.0);
    cr_assert(config.ibot.mask_ratio_min_max[0] == 0.2 && config.crops.local_crops_size == 98);
    expect_valid(&config);
    config_fini(&config);
}

Test(config, files_overlay_in_order)
{
    Config config;
    config_init(&config);
    load_text(&config, "optim: {epochs: 7, base_lr: 1}\n");
    load_text(&config, "optim:\n  epochs: 9\n");
    load_text(&config, "# nothing but a comment\n");
    load_text(&config, "");
    load_text(&config, "optim:\ntrain: ~\n");
    cr_assert(config.optim.epochs == 9 && config.optim.base_lr == 1.0 && config.optim.warmup_epochs == 10);
    config_fini(&config);
}

/* --- overrides
 * ------------------------------------------------------------------------------------------------ */

Test(config, overrides_take_every_type)
{
    Config config;
    config_init(&config);
    override(&config, "optim.epochs=5");
    override(&config, "crops.global_crops_scale=[0.4,1]");
    override(&config, "optim.min_lr= 1e-7");
    override(&config, "optim.clip_grad=1.");
    override(&config, "student.layerscale=.5");
    override(&config, "train.dataset_path=synthetic:classes=10,size=64,count=5000,seed=0");
    override(&config, "student.arch=vit_giant2");
    override(&config, "student.ffn_layer=swiglu");
    override(&config, "compute.deterministic=True");
    override(&config, "student.qkv_bias=off");
    override(&config, "evaluation.knn_k=[20]");
    override(&config,
             "compute_precision.student.backbone.mixed_precision={param_dtype: bf16, reduce_dtype: fp32}");
    override(&config, "train.seed=9007199254740991");
    cr_assert(config.optim.epochs == 5 && config.optim.min_lr == 1e-7 && config.optim.clip_grad == 1.0);
    cr_assert(config.crops.global_crops_scale[0] == 0.4 && config.crops.global_crops_scale[1] == 1.0);
    cr_assert(config.student.layerscale == 0.5 && config.student.arch == CONFIG_ARCH_VIT_GIANT2);
    cr_assert(config.student.ffn_layer == CONFIG_FFN_SWIGLUFUSED && !config.student.qkv_bias);
    cr_assert_str_eq(config.train.dataset_path, "synthetic:classes=10,size=64,count=5000,seed=0");
    cr_assert(config.compute.deterministic && config.train.seed == 9007199254740991);
    cr_assert(config.evaluation.knn_k.count == 1 && config.evaluation.knn_k.values[0] == 20);
    cr_assert(config.compute_precision.student.backbone.mixed_precision.param_dtype == DTYPE_BF16);
    cr_assert(config.compute_precision.student.dino_head.mixed_precision.param_dtype == DTYPE_F16);
    config_fini(&config);
}

Test(config, strings_may_be_empty_and_quoted)
{
    Config config;
    config_init(&config);
    override(&config, "train.init_from=a");
    override(&config, "train.init_from=");
    cr_assert_str_eq(config.train.init_from, "");
    override(&config, "train.dataset_path='null'");
    cr_assert_str_eq(config.train.dataset_path, "null");
    override(&config, "train.dataset_path=null");
    cr_assert_str_eq(config.train.dataset_path, "");
    override(&config, "train.dataset_path=\"a\\tb: #\"");
    cr_assert_str_eq(config.train.dataset_path, "a\tb: #");
    Error error = {0};
    cr_assert(config_override_text(&config, "train.output_dir", "/x: [y] #z", "--output-dir", &error) ==
              STATUS_OK);
    cr_assert_str_eq(config.train.output_dir, "/x: [y] #z");
    cr_assert(config_override_text(&config, "train.output_dir", "/\xff", "--output-dir", &error) ==
              STATUS_INPUT);
    cr_assert_str_eq(error.text, "--output-dir: train.output_dir: expected UTF-8 text, got other bytes");
    config_fini(&config);
}

/* --- dump
 * ----------------------------------------------------------------------------------------------------- */

static void expect_round_trip(const Config *config)
{
    Config again;
    config_init(&again);
    char *dump = config_dump(config), *second;
    load_text(&again, dump);
    const char *key = first_difference(config, &again);
    cr_assert(key == NULL, "%s changed", key);
    second = config_dump(&again);
    cr_assert_str_eq(dump, second);
    memory_free(dump);
    memory_free(second);
    config_fini(&again);
}

Test(config, dump_reads_back_exactly)
{
    Config config;
    config_init(&config);
    expect_round_trip(&config);
    config.optim.base_lr = 0.1 + 0.2;
    config.optim.min_lr = nextafter(1e-6, 0);
    config.teacher.momentum_teacher = nextafter(1.0, 0);
    config.crops.aspect_ratio[0] = 1.0 / 3.0;
    config.train.seed = 123456789012345;
    config.evaluation.knn_k = (ConfigList){.values = {1, 2, 3, 4, 5, 6, 7, 1000000}, .count = 8};
    Error error = {0};
    static const char *const texts[] = {"it's: {a} #b",
                                        "\"\\",
                                        "tab\tnew\nline\r",
                                        "\xc2\x85\xe2\x80\xa8\xef\xbb\xbf",
                                        "\xc3\xa9\xf0\x9f\x90\x88 \x7f",
                                        "  spaces  ",
                                        "null",
                                        "1e5",
                                        "~"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        cr_assert(config_override_text(&config, "train.dataset_path", texts[i], "test", &error) == STATUS_OK);
        expect_round_trip(&config);
        Config again;
        config_init(&again);
        char *dump = config_dump(&config);
        load_text(&again, dump);
        cr_assert_str_eq(again.train.dataset_path, texts[i]);
        cr_assert(again.optim.base_lr == 0.1 + 0.2 && again.optim.min_lr == nextafter(1e-6, 0));
        cr_assert(again.crops.aspect_ratio[0] == 1.0 / 3.0);
        memory_free(dump);
        config_fini(&again);
    }
    config_fini(&config);
}

/* Each choice of each key, so that no name or index is off. */
Test(config, every_choice_reads_back)
{
    for (int i = 0; i < config_keys_count(); i++) {
        const ConfigKey *key = config_keys_at(i);
        if (key->type != CONFIG_TYPE_CHOICE) continue;
        char choices[256], assignment[320], *rest = NULL;
        snprintf(choices, sizeof choices, "%s", key->choices);
        for (char *word = strtok_r(choices, "|", &rest); word; word = strtok_r(NULL, "|", &rest)) {
            Config config;
            config_init(&config);
            word[strcspn(word, "=")] = '\0';
            snprintf(assignment, sizeof assignment, "%s=%s", key->name, word);
            override(&config, assignment);
            char *dump = config_dump(&config);
            expect_dumped(dump, key->name, word);
            memory_free(dump);
            expect_round_trip(&config);
            config_fini(&config);
        }
    }
}

Test(config, table_is_sound)
{
    Config config;
    config_init(&config);
    char *help = config_help();
    for (int i = 0; i < config_keys_count(); i++) {
        const ConfigKey *key = config_keys_at(i);
        char line[256];
        cr_assert_eq(config_keys_find(key->name), i, "%s twice", key->name);
        cr_assert(config_keys_section(key->name) < 0, "%s is key and section", key->name);
        bool bounded = key->type == CONFIG_TYPE_INTEGER || key->type == CONFIG_TYPE_NUMBER ||
                       key->type == CONFIG_TYPE_PAIR || key->type == CONFIG_TYPE_LIST;
        cr_assert(bounded == (key->low < key->high), "bounds of %s", key->name);
        cr_assert((key->type == CONFIG_TYPE_CHOICE) == (key->choices != NULL), "choices of %s", key->name);
        snprintf(line, sizeof line, "%s = %s\n    %s", key->name, *key->initial ? key->initial : "''",
                 key->help);
        cr_assert(strstr(help, line), "no help of %s", key->name);
    }
    cr_assert(strstr(help, "from 1 to 1000000\n"));
    memory_free(help);
    config_fini(&config);
}

/* --- notes and differences
 * ------------------------------------------------------------------------------------ */

Test(config, notes_name_what_has_no_effect)
{
    Config config;
    ConfigNotes notes;
    config_init(&config);
    override(&config, "optim.epochs=50");
    override(&config, "compute_precision.student.backbone.sharding_strategy=NO_SHARD");
    override(&config, "compute.device=cpu");
    override(&config, "checkpoint.async=false");
    config_notes_init(&notes, &config);
    cr_assert_eq(notes.count, 0);
    config_notes_fini(&notes);

    load_text(&config, "train:\n  cache_dataset: true\n");
    load_text(&config,
              "compute_precision:\n  student:\n    backbone: {mixed_precision: {buffer_dtype: fp32}}\n"
              "    dino_head: {mixed_precision: {buffer_dtype: fp16}}\n");
    config_notes_init(&notes, &config);
    cr_assert_eq(notes.count, 2);
    cr_assert_str_eq(
        notes.lines[0],
        "text.yaml:3: compute_precision.student.backbone.mixed_precision.buffer_dtype and 1 more like it: no "
        "effect: the models have no buffers that a dtype could apply to");
    cr_assert_str_eq(
        notes.lines[1],
        "text.yaml:2: train.cache_dataset: no effect: data sets are indexed when they are opened; there is "
        "nothing to cache");
    config_notes_fini(&notes);
    config_fini(&config);
}

Test(config, differences_on_resume)
{
    Config saved, now;
    Error error = {0};
    config_init(&saved);
    config_init(&now);
    static const char *const allowed[] = {"train.micro_batch_size=4",
                                          "train.num_workers=2",
                                          "train.stop_after_iterations=3",
                                          "train.output_dir=/elsewhere",
                                          "train.checkpoint_activations=block",
                                          "compute.threads=7",
                                          "compute.device=cpu",
                                          "checkpoint.keep=9",
                                          "evaluation.knn_k=[5]",
                                          "optim.lr=0.5",
                                          "compute_precision.teacher.ibot_head.sharding_strategy=FULL_SHARD"};
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
        override(&now, allowed[i]);
    cr_assert(config_diff_check_resume(&saved, &now, &error) == STATUS_OK, "%s", error.text);
    ConfigDiff diff;
    config_diff_init(&diff, &saved, &now);
    cr_assert_eq(diff.count, (int)(sizeof allowed / sizeof *allowed));
    config_diff_fini(&diff);

    override(&now, "optim.epochs=5");
    override(&now, "train.seed=1");
    override(&now, "train.dataset_path=folder:x");
    cr_assert(config_diff_check_resume(&saved, &now, &error) == STATUS_INPUT);
    cr_assert_str_eq(
        error.text,
        "expected the configuration of the checkpoint, got other values of train.dataset_path "
        "('ImageNet:split=TRAIN', now 'folder:x'), train.seed (0, now 1), optim.epochs (100, now 5)");
    config_fini(&saved);
    config_fini(&now);
}
