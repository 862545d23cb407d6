/* test_config_errors.c - each way in which a configuration can be wrong, and the one line that says so. */
#include "base/memory.h"
#include "config/config.h"
#include "config/config_keys.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void expect_text(const char *yaml, size_t size, const char *message)
{
    Config config;
    Error error = {0};
    config_init(&config);
    Status status = config_load_text(&config, "a.yaml", yaml, size, &error);
    cr_expect(status == STATUS_INPUT, "accepted: %.60s", yaml);
    cr_expect_str_eq(error.text, message);
    config_fini(&config);
}

#define EXPECT(yaml, message) expect_text(yaml, sizeof(yaml) - 1, message)

Test(config_errors, unknown_keys_have_a_suggestion)
{
    EXPECT("optim:\n  epoch: 5\n", "a.yaml:2: optim.epoch: unknown key; did you mean 'optim.epochs'?");
    EXPECT("trian:\n  seed: 5\n", "a.yaml:1: trian: unknown key; did you mean 'train'?");
    EXPECT("epochs: 5\n", "a.yaml:1: epochs: unknown key; did you mean 'optim.epochs'?");
    EXPECT("\n\ntrain: {epochs: 5}\n", "a.yaml:3: train.epochs: unknown key; did you mean 'optim.epochs'?");
    EXPECT("train.seed: 5\n", "a.yaml:1: train.seed: unknown key; did you mean 'train.seed'?");
    EXPECT(
        "compute_precision:\n  student:\n    backbone:\n      mixed_precision:\n        paramdtype: fp32\n",
        "a.yaml:5: compute_precision.student.backbone.mixed_precision.paramdtype: unknown key; did you mean "
        "'compute_precision.student.backbone.mixed_precision.param_dtype'?");
}

Test(config_errors, wrong_types)
{
    EXPECT("optim:\n  epochs: abc\n",
           "a.yaml:2: optim.epochs: expected an integer from 1 to 1000000, got abc");
    EXPECT("optim:\n  epochs: 0.0\n",
           "a.yaml:2: optim.epochs: expected an integer from 1 to 1000000, got 0.0");
    EXPECT("optim:\n  epochs: '5'\n",
           "a.yaml:2: optim.epochs: expected an integer from 1 to 1000000, got the string '5'");
    EXPECT("optim:\n  epochs:\n",
           "a.yaml:2: optim.epochs: expected an integer from 1 to 1000000, got nothing");
    EXPECT("optim:\n  epochs: [5]\n",
           "a.yaml:2: optim.epochs: expected an integer from 1 to 1000000, got a list of 1: [5]");
    EXPECT("optim:\n  epochs: {a: 5}\n",
           "a.yaml:2: optim.epochs: expected an integer from 1 to 1000000, got a mapping or nested list");
    EXPECT("optim:\n  base_lr: fast\n",
           "a.yaml:2: optim.base_lr: expected a number from 0 to 1000, got fast");
    EXPECT("optim:\n  base_lr: 0x10\n",
           "a.yaml:2: optim.base_lr: expected a number from 0 to 1000, got 0x10");
    EXPECT("optim:\n  base_lr: .nan\n",
           "a.yaml:2: optim.base_lr: expected a number from 0 to 1000, got .nan");
    EXPECT("optim:\n  base_lr: nan\n", "a.yaml:2: optim.base_lr: expected a number from 0 to 1000, got nan");
    EXPECT("optim:\n  base_lr: 1e\n", "a.yaml:2: optim.base_lr: expected a number from 0 to 1000, got 1e");
    EXPECT("student:\n  qkv_bias: 1\n", "a.yaml:2: student.qkv_bias: expected true or false, got 1");
    EXPECT("student:\n  arch: vit_huge\n",
           "a.yaml:2: student.arch: expected one of vit_small, vit_base, vit_large, "
           "vit_giant2, vit_custom, got vit_huge");
    EXPECT("student:\n  ffn_layer: MLP\n",
           "a.yaml:2: student.ffn_layer: expected one of mlp, swiglufused, swiglu, got MLP");
    EXPECT("train:\n  dataset_path: [a]\n",
           "a.yaml:2: train.dataset_path: expected a string, got a list of 1: [a]");
}

Test(config_errors, lists_of_wrong_length)
{
    EXPECT(
        "crops:\n  global_crops_scale: [0.1, 0.2, 0.3]\n",
        "a.yaml:2: crops.global_crops_scale: expected a list of 2 numbers from 0.0001 to 1, got a list of 3: "
        "[0.1, 0.2, 0.3]");
    EXPECT("crops:\n  global_crops_scale: 0.5\n",
           "a.yaml:2: crops.global_crops_scale: expected a list of 2 numbers from 0.0001 to 1, got 0.5");
    EXPECT(
        "crops:\n  global_crops_scale: [0.5, 7]\n",
        "a.yaml:2: crops.global_crops_scale: expected a list of 2 numbers from 0.0001 to 1, got a list of 2: "
        "[0.5, 7]");
    EXPECT("evaluation:\n  knn_k: []\n", "a.yaml:2: evaluation.knn_k: expected a list of 1 to 8 integers "
                                         "from 1 to 1000000, got a list of 0: []");
    EXPECT(
        "evaluation:\n  knn_k: [1,2,3,4,5,6,7,8,9]\n",
        "a.yaml:2: evaluation.knn_k: expected a list of 1 to 8 integers from 1 to 1000000, got a list of 9: "
        "[1, 2, 3, 4, 5, 6, 7, 8]");
    EXPECT("evaluation:\n  knn_k: [[1]]\n", "a.yaml:2: evaluation.knn_k: expected a list of 1 to 8 integers "
                                            "from 1 to 1000000, got a mapping or nested "
                                            "list");
}

Test(config_errors, out_of_bounds)
{
    EXPECT("optim:\n  epochs: 0\n", "a.yaml:2: optim.epochs: expected an integer from 1 to 1000000, got 0");
    EXPECT("optim:\n  epochs: 99999999999999999999\n",
           "a.yaml:2: optim.epochs: expected an integer from 1 to 1000000, got 99999999999999999999");
    EXPECT("student:\n  drop_path_rate: 1\n",
           "a.yaml:2: student.drop_path_rate: expected a number from 0 to 0.99, got 1");
    EXPECT("optim:\n  base_lr: -1e-9\n",
           "a.yaml:2: optim.base_lr: expected a number from 0 to 1000, got -1e-9");
    EXPECT("optim:\n  base_lr: 1e999\n",
           "a.yaml:2: optim.base_lr: expected a number from 0 to 1000, got 1e999");
}

Test(config_errors, structure)
{
    EXPECT("optim:\n  epochs: 5\n  epochs: 6\n",
           "a.yaml:3: optim.epochs: expected each key once, got it a second time");
    EXPECT("optim:\n  epochs: 5\ntrain: {}\noptim:\n  base_lr: 1\n",
           "a.yaml:4: optim: expected each key once, got it a second time");
    EXPECT("train: 5\n",
           "a.yaml:1: train: expected a mapping of keys such as train.batch_size_per_gpu, got '5'");
    EXPECT("- a\n", "a.yaml:1: expected a mapping of keys such as MODEL.WEIGHTS, got a list");
    EXPECT("hello\n", "a.yaml:1: expected a mapping of keys such as MODEL.WEIGHTS, got 'hello'");
    EXPECT("[a]: 5\n", "a.yaml:1: expected the name of a key, got a mapping or list");
    EXPECT("optim: {? [a] : 5}\n", "a.yaml:1: optim: expected the name of a key, got a mapping or list");
    EXPECT("optim: {epochs: 5}\n---\noptim: {epochs: 6}\n",
           "a.yaml:2: expected one YAML document, got a second one");
}

Test(config_errors, not_yaml)
{
    EXPECT("optim:\n  epochs: [5\n", "a.yaml:3: expected YAML, got an error: did not find expected ',' or "
                                     "']' while parsing a flow sequence");
    EXPECT("optim:\n\tepochs: 5\n",
           "a.yaml:2: expected YAML, got an error: found character that cannot start any "
           "token while scanning for the next token");
    EXPECT("a\n: b\n: \xff\n", "a.yaml:3: expected YAML, got an error: invalid leading UTF-8 octet");
    EXPECT("optim:\n  epochs: \x01\n",
           "a.yaml:2: expected YAML, got an error: control characters are not allowed");
    EXPECT("train:\n  dataset_path: \"a\\0b\"\n",
           "a.yaml:2: train.dataset_path: expected text, got a NUL byte in it");
}

Test(config_errors, bombs)
{
    EXPECT(
        "train: &a\n  seed: 1\n",
        "a.yaml:1: train: expected a plain value, got an anchor or alias (* or &), which are not accepted");
    EXPECT("optim: {epochs: *a}\n",
           "a.yaml:1: optim.epochs: expected a plain value, got an anchor or alias (* or &), "
           "which are not accepted");
    EXPECT("optim: {<<: {epochs: 5}}\n", "a.yaml:1: optim.<<: unknown key; did you mean 'optim.lr'?");
    EXPECT("train: {seed: !!python/object/apply:os.system [ls]}\n",
           "a.yaml:1: train.seed: expected a plain value, got a tag (!), which are not accepted");

    enum { BIG = 1 << 20 };
    char *big = memory_alloc(BIG + 1);
    memset(big, '[', BIG + 1);
    expect_text(big, BIG + 1, "a.yaml: expected a configuration of at most 1 MiB, got more");
    expect_text(big, BIG, "a.yaml:1: expected a mapping of keys such as MODEL.WEIGHTS, got a list");
    memset(big, '{', BIG);
    memcpy(big, "train: {seed: ", 14);
    expect_text(
        big, BIG,
        "a.yaml:1: train.seed: expected an integer from 0 to 9007199254740991, got a mapping or nested "
        "list");
    memset(big, ' ', BIG);
    memcpy(big, "a:\n", 3);
    expect_text(big, BIG, "a.yaml:1: a: unknown key; did you mean 'curation.cluster.k'?");
    memset(big, 'x', BIG);
    memcpy(big, "train: {dataset_path: [", 23);
    memcpy(big + BIG - 2, "]}", 2);
    Config config;
    Error error = {0};
    config_init(&config);
    cr_assert(config_load_text(&config, "a.yaml", big, BIG, &error) == STATUS_INPUT);
    cr_assert(strlen(error.text) < 200);
    memory_free(big);
    config_fini(&config);
}

/* --- the command line
 * ------------------------------------------------------------------------------------------ */

static void expect_override(const char *assignment, const char *message)
{
    Config config;
    Error error = {0};
    config_init(&config);
    cr_expect(config_override(&config, assignment, &error) == STATUS_INPUT, "accepted: %s", assignment);
    cr_expect_str_eq(error.text, message);
    config_fini(&config);
}

Test(config_errors, overrides)
{
    expect_override("optim.epochs", "command line: expected key=value, got 'optim.epochs'");
    expect_override("=5", "command line: expected key=value, got '=5'");
    expect_override("optim.epoch=5", "command line: optim.epoch: unknown key; did you mean 'optim.epochs'?");
    expect_override("optim.=5", "command line: optim.: unknown key; did you mean 'optim'?");
    expect_override("seeds=5", "command line: seeds: unknown key; did you mean 'train.seed'?");
    expect_override("optim.epochs=",
                    "command line: optim.epochs: expected an integer from 1 to 1000000, got nothing");
    expect_override("optim.epochs=#5", "command line: optim.epochs: expected a value, got nothing");
    expect_override("optim.epochs=5.5",
                    "command line: optim.epochs: expected an integer from 1 to 1000000, got 5.5");
    expect_override("optim=5",
                    "command line: optim: expected a mapping of keys such as optim.epochs, got '5'");
    expect_override("optim={epoch: 5}",
                    "command line: optim.epoch: unknown key; did you mean 'optim.epochs'?");
    expect_override(
        "crops.global_crops_scale=[0.4,1",
        "command line: crops.global_crops_scale: expected YAML, got an error: did not find expected ',' or "
        "']' while parsing a flow sequence");
}

/* --- files
 * ------------------------------------------------------------------------------------------------------ */

Test(config_errors, files)
{
    Config config;
    Error error = {0};
    config_init(&config);
    cr_assert(config_load_file(&config, "/no/such/file.yaml", &error) == STATUS_INPUT);
    cr_assert_str_eq(error.text,
                     "/no/such/file.yaml: expected a configuration file: No such file or directory");
    cr_assert(config_load_file(&config, "/", &error) == STATUS_INPUT);
    cr_assert_str_eq(error.text, "/: expected a configuration file: Is a directory");
    cr_assert(config_load_file(&config, "/dev/zero", &error) == STATUS_INPUT);
    cr_assert_str_eq(error.text, "/dev/zero: expected a configuration of at most 1 MiB, got more");

    char path[] = "/tmp/test_config_XXXXXX", expected[128];
    int descriptor = mkstemp(path);
    cr_assert(descriptor >= 0 && write(descriptor, "optim:\n  epochs: no\n", 19) == 19);
    close(descriptor);
    cr_assert(config_load_file(&config, path, &error) == STATUS_INPUT);
    unlink(path);
    snprintf(expected, sizeof expected, "%s:2: optim.epochs: expected an integer from 1 to 1000000, got no",
             path);
    cr_assert_str_eq(error.text, expected);
    config_fini(&config);
}

/* --- rules between keys
 * ----------------------------------------------------------------------------------------- */

/* `assignments` are separated by blanks. */
static void expect_check(const char *assignments, const char *message)
{
    Config config;
    Error error = {0};
    char copy[512], *rest = NULL;
    snprintf(copy, sizeof copy, "%s", assignments);
    config_init(&config);
    for (char *word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
        cr_assert(config_override(&config, word, &error) == STATUS_OK, "%s", error.text);
    Status status = config_check(&config, &error);
    cr_expect(status == (message ? STATUS_INPUT : STATUS_OK), "%s: %s", assignments, error.text);
    if (message) cr_expect_str_eq(error.text, message);
    config_fini(&config);
}

Test(config_errors, rules_between_keys)
{
    expect_check("crops.global_crops_scale=[0.9,0.2]",
                 "command line: crops.global_crops_scale: expected the smaller number first, got [0.9, 0.2]");
    expect_check("train.global_batch_size=100", "command line: train.global_batch_size: expected a multiple "
                                                "of train.batch_size_per_gpu (64), got 100");
    expect_check("optim.epochs=5",
                 "command line: optim.warmup_epochs: expected at most optim.epochs (5), got 10");
    expect_check(
        "student.patch_size=14",
        "command line: crops.local_crops_size: expected a multiple of student.patch_size (14), got 96");
    expect_check(
        "crops.global_crops_size=225",
        "command line: crops.global_crops_size: expected a multiple of student.patch_size (16), got 225");
    expect_check("student.patch_size=14 crops.local_crops_number=0", NULL);
    expect_check("evaluation.crop_size=100", NULL);
    expect_check(
        "evaluation.crop_size=100 evaluation.val_dataset_path=folder:x",
        "command line: evaluation.crop_size: expected a multiple of student.patch_size (16), got 100");
    expect_check("evaluation.crop_size=320", NULL);
    expect_check("evaluation.crop_size=320 evaluation.resize_size=256",
                 "command line: evaluation.resize_size: expected 0 or at least the crop (320), got 256");
    expect_check("student.arch=vit_custom student.embed_dim=48 student.num_heads=3",
                 "command line: student.depth: expected at least 1 for student.arch vit_custom, got 0");
    expect_check("student.arch=vit_custom student.embed_dim=48 student.depth=2 student.num_heads=5",
                 "command line: student.embed_dim: expected a multiple of student.num_heads (5), got 48");
    expect_check("student.arch=vit_custom student.embed_dim=48 student.depth=2 student.num_heads=3", NULL);
    expect_check("student.depth=2",
                 "command line: student.depth: expected 0 unless student.arch is vit_custom, got 2");
    expect_check("student.arch=vit_small student.block_chunks=13",
                 "command line: student.block_chunks: expected at most the 12 blocks, got 13");
    expect_check(
        "ibot.mask_sample_probability=0",
        "command line: ibot.mask_sample_probability: expected more than 0 while ibot.loss_weight is, got 0");
    expect_check("ibot.mask_sample_probability=0 ibot.loss_weight=0", NULL);
    expect_check("ibot.mask_ratio_min_max=[0,0]", "command line: ibot.mask_ratio_min_max: expected a ratio "
                                                  "above 0 while ibot.loss_weight is, got [0, 0]");
    expect_check("ibot.loss_weight=0 dino.loss_weight=0 dino.koleo_loss_weight=0",
                 "command line: dino.loss_weight: expected a loss, got weight 0 for DINO, iBOT and KoLeo");
    expect_check(
        "compute_precision.teacher.dino_head.sharding_strategy=HYBRID_SHARD",
        "command line: compute_precision.teacher.dino_head.sharding_strategy: expected HYBRID_SHARD on both "
        "sides or on neither, got it here and not in compute_precision.student.dino_head.sharding_strategy");
    expect_check("compute_precision.teacher.dino_head.sharding_strategy=HYBRID_SHARD "
                 "compute_precision.student.dino_head.sharding_strategy=HYBRID_SHARD",
                 NULL);
}

Test(config_errors, rules_name_the_file)
{
    Config config;
    Error error = {0};
    const char yaml[] = "train:\n  global_batch_size: 100\n";
    config_init(&config);
    cr_assert(config_load_text(&config, "b.yaml", yaml, sizeof yaml - 1, &error) == STATUS_OK);
    cr_assert(config_check(&config, &error) == STATUS_INPUT);
    cr_assert_str_eq(error.text,
                     "b.yaml:2: train.global_batch_size: expected a multiple of train.batch_size_per_gpu "
                     "(64), got 100");
    config_fini(&config);
}
