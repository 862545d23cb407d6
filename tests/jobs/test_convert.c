/* test_convert.c - convert by the real program: weights in, used, and out again under every naming; another
 * grid; a copy detector; what it refuses.
 */
#include "../support/process.h"
#include "../support/sscd_weights.h"
#include "../support/ssl_support.h"
#include "../support/temp_folder.h"

#include "base/memory.h"
#include "ckpt/descriptor_file.h"
#include "ckpt/vit_weights.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

enum { LIMIT_SECONDS = 120 };

#define DATA  "synthetic:classes=2,size=40,count=8,seed=2"
#define QUICK "train.num_workers=1", "compute.threads=1", "evaluation.batch_size=4", "compute.device=cpu"

typedef struct {
    TempFolder folder;
    Vit vit;
    ParamTable table;
    float *flat;
} Setting;

/* A network of 2 blocks of 24 and 3 heads on 28 pixels, with random weights. */
static Setting begin(int64_t registers, bool swiglu)
{
    Setting s = {.folder = temp_folder_create()};
    VitConfig config = {.embed_dim = 24,
                        .depth = 2,
                        .num_heads = 3,
                        .patch_size = 7,
                        .img_size = 28,
                        .num_register_tokens = registers,
                        .mlp_ratio = 4,
                        .swiglu = swiglu,
                        .qkv_bias = true,
                        .proj_bias = true,
                        .ffn_bias = true,
                        .layerscale = 1e-5};
    param_table_init(&s.table);
    vit_build(&s.vit, &config, &s.table);
    s.flat = memory_alloc_array((size_t)s.table.flat_count, sizeof *s.flat);
    ssl_support_random_params(&s.table, 5, s.flat);
    return s;
}

static void end(Setting *s)
{
    vit_fini(&s->vit);
    param_table_fini(&s->table);
    memory_free(s->flat);
    temp_folder_destroy(&s->folder);
}

static TempPath write_weights(Setting *s, VitNaming naming, const char *name)
{
    TempPath path = temp_folder_in(&s->folder, "%s", name);
    cr_assert_eq(vit_weights_save(path.text, naming, SAFETENSORS_F32, &s->table, s->flat, NULL), STATUS_OK);
    return path;
}

static char *run_well(int ranks, const char *const *words)
{
    ProcessResult result = process_run_dinobatch(ranks, words, LIMIT_SECONDS);
    cr_assert_eq(result.exit_status, 0, "%s: exit %d\n%s", words[0], result.exit_status, result.err);
    char *out = memory_strdup(result.out);
    process_result_fini(&result);
    return out;
}

static void run_quietly(int ranks, const char *const *words)
{
    memory_free(run_well(ranks, words));
}

static void expect_refused(const char *const *words, const char *part)
{
    ProcessResult result = process_run_dinobatch(0, words, LIMIT_SECONDS);
    cr_expect_eq(result.exit_status, 2, "exit %d\n%s", result.exit_status, result.err);
    cr_expect_not_null(strstr(result.err, part), "\"%s\" is not in:\n%s", part, result.err);
    process_result_fini(&result);
}

static void expect_same_bytes(const char *path, const char *other)
{
    ProcessResult result = process_run(WORDS("cmp", path, other), 10);
    cr_expect_eq(result.exit_status, 0, "%s%s", result.out, result.err);
    process_result_fini(&result);
}

static void check_network(int64_t registers, bool swiglu)
{
    static const char *const words[] = {"reference", "huggingface", "timm"};
    Setting s = begin(registers, swiglu);
    TempPath checkpoint = temp_folder_in(&s.folder, "in.h5"), back = temp_folder_in(&s.folder, "back.h5");
    for (int naming = VIT_NAMES_REFERENCE; naming <= VIT_NAMES_TIMM; naming++) {
        TempPath in = write_weights(&s, (VitNaming)naming, "in.safetensors");
        TempPath out = temp_folder_in(&s.folder, "out.safetensors");
        char *told =
            run_well(naming == VIT_NAMES_TIMM ? 2 : 0, WORDS("convert", in.text, checkpoint.text, "--heads",
                                                             "3", "--json", "compute.threads=1"));
        cr_expect_not_null(strstr(told, words[naming]), "%s", told);
        cr_expect_not_null(strstr(told, swiglu ? "swiglufused" : "mlp"), "%s", told);
        memory_free(told);
        run_quietly(0, WORDS("validate", checkpoint.text));
        run_quietly(0, WORDS("convert", checkpoint.text, out.text, "--names", words[naming]));
        expect_same_bytes(in.text, out.text);
        if (naming == VIT_NAMES_TIMM) continue;
        TempPath other = temp_folder_in(&s.folder, "other.safetensors");
        run_quietly(0, WORDS("convert", checkpoint.text, other.text, "--names", words[1 - naming]));
        run_quietly(0, WORDS("convert", other.text, back.text, "--heads", "3"));
        run_quietly(0, WORDS("convert", back.text, out.text, "--names", words[naming]));
        expect_same_bytes(in.text, out.text);
    }
    end(&s);
}

Test(convert, there_and_back_through_the_program, .timeout = 300)
{
    check_network(0, false);
    check_network(4, true);
}

Test(convert, what_came_in_is_used_like_any_checkpoint, .timeout = 300)
{
    Setting s = begin(2, false);
    TempPath in = write_weights(&s, VIT_NAMES_HUGGINGFACE, "in.safetensors");
    TempPath model = temp_folder_in(&s.folder, "model.h5"), rows = temp_folder_in(&s.folder, "rows.h5");
    TempPath folder = temp_folder_in(&s.folder, "run");
    run_quietly(0, WORDS("convert", in.text, model.text, "--heads", "3"));
    run_quietly(0, WORDS("extract", "--model", model.text, "--data", DATA, "--output-dir", rows.text, QUICK));
    run_quietly(0, WORDS("evaluate", "knn", "--model", model.text, "--train-data", DATA, "--val-data", DATA,
                         QUICK, "evaluation.knn_k=[2]"));
    char weights[400];
    snprintf(weights, sizeof weights, "student.pretrained_weights=%s", model.text);
    run_quietly(0, WORDS("pretrain", "--output-dir", folder.text, weights, "train.dataset_path=" DATA,
                         "student.arch=vit_custom", "student.embed_dim=24", "student.depth=2",
                         "student.num_heads=3", "student.patch_size=7", "student.num_register_tokens=2",
                         "crops.global_crops_size=28", "crops.local_crops_size=14",
                         "crops.local_crops_number=2", "dino.head_n_prototypes=16", "dino.head_hidden_dim=16",
                         "dino.head_bottleneck_dim=8", "train.batch_size_per_gpu=4",
                         "train.OFFICIAL_EPOCH_LENGTH=2", "optim.epochs=1", "optim.warmup_epochs=0",
                         "optim.freeze_last_layer_epochs=0", "teacher.warmup_teacher_temp_epochs=1",
                         "train.num_workers=1", "compute.threads=1", "compute.device=cpu"));
    TempPath out = temp_folder_in(&s.folder, "trained.safetensors");
    run_quietly(0, WORDS("convert", folder.text, out.text, "--which", "student"));
    SafetensorsFile file;
    cr_assert_eq(safetensors_open(&file, out.text, NULL), STATUS_OK);
    cr_expect_not_null(safetensors_find(&file, "blocks.1.ls2.gamma"));
    cr_expect_eq(file.count, s.table.count, "the backbone alone");
    safetensors_close(&file);
    end(&s);
}

Test(convert, position_embeddings_change_only_when_asked)
{
    Setting s = begin(0, false);
    TempPath in = write_weights(&s, VIT_NAMES_REFERENCE, "in.safetensors");
    TempPath model = temp_folder_in(&s.folder, "model.h5"),
             out = temp_folder_in(&s.folder, "out.safetensors");
    TempPath large = temp_folder_in(&s.folder, "large.h5"),
             same = temp_folder_in(&s.folder, "same.safetensors");
    run_quietly(0, WORDS("convert", in.text, model.text, "--heads", "3"));
    run_quietly(0, WORDS("convert", in.text, large.text, "--heads", "3", "--image-size", "42"));
    run_quietly(0, WORDS("convert", large.text, same.text));
    run_quietly(0, WORDS("convert", model.text, out.text, "--image-size", "42"));
    expect_same_bytes(out.text, same.text);
    SafetensorsFile file;
    cr_assert_eq(safetensors_open(&file, out.text, NULL), STATUS_OK);
    const SafetensorsTensor *position = safetensors_find(&file, "pos_embed");
    cr_expect(position && position->shape[1] == 1 + 36);
    safetensors_close(&file);
    expect_refused(WORDS("convert", in.text, large.text, "--heads", "3", "--image-size", "40"),
                   "--image-size 40: expected a multiple of the patch size 7");
    end(&s);
}

/* --- what Hugging Face's library writes and reads --- */

/* The tensors of a file behind a prefix and with a head, in a folder of two files with an index, as
 * save_pretrained writes a classification model. */
static void write_classifier(Setting *s, const char *from, const char *prefix)
{
    enum { MOST = 64 };
    SafetensorsFile file;
    SafetensorsSource sources[MOST];
    char names[MOST][160], index[MOST * 200] = "{\"weight_map\":{";
    static const int64_t shape[] = {10, 48};
    float *values = memory_alloc_array((size_t)(s->table.flat_count + 480), sizeof *values), *at = values;
    cr_assert_eq(safetensors_open(&file, from, NULL), STATUS_OK);
    int64_t half = file.count / 2, count = file.count;
    cr_assert(count + 1 <= MOST);
    for (int64_t t = 0; t <= count; t++) {
        const SafetensorsTensor *tensor = &file.tensors[t];
        snprintf(names[t], sizeof names[t], t < count ? "%s%s" : "classifier.weight", prefix, tensor->name);
        sources[t] = (SafetensorsSource){names[t], t < count ? tensor->ndim : 2,
                                         t < count ? tensor->shape : shape, at, SAFETENSORS_F32};
        if (t < count) cr_assert_eq(safetensors_read(&file, tensor, 0, tensor->count, at, NULL), STATUS_OK);
        at += t < count ? tensor->count : 480;
        size_t used = strlen(index);
        snprintf(index + used, sizeof index - used, "%s\"%s\":\"model-0000%d-of-00002.safetensors\"",
                 t ? "," : "", names[t], t < half ? 1 : 2);
    }
    snprintf(index + strlen(index), sizeof index - strlen(index), "}}");
    TempPath a = temp_folder_in(&s->folder, "hub/model-00001-of-00002.safetensors");
    TempPath b = temp_folder_in(&s->folder, "hub/model-00002-of-00002.safetensors");
    cr_assert_eq(safetensors_write(a.text, sources, half, NULL), STATUS_OK);
    cr_assert_eq(safetensors_write(b.text, sources + half, count + 1 - half, NULL), STATUS_OK);
    temp_folder_write(&s->folder, "hub/model.safetensors.index.json", index);
    safetensors_close(&file);
    memory_free(values);
}

Test(convert, a_classification_model_in_parts, .timeout = 120)
{
    Setting s = begin(2, false);
    TempPath in = write_weights(&s, VIT_NAMES_HUGGINGFACE, "in.safetensors");
    TempPath hub = temp_folder_in(&s.folder, "hub"), model = temp_folder_in(&s.folder, "model.h5");
    TempPath index = temp_folder_in(&s.folder, "hub/model.safetensors.index.json");
    TempPath back = temp_folder_in(&s.folder, "out/model.safetensors");
    write_classifier(&s, in.text, "dinov2_with_registers.");
    ProcessResult result =
        process_run_dinobatch(0, WORDS("convert", hub.text, model.text, "--heads", "3"), LIMIT_SECONDS);
    cr_expect_eq(result.exit_status, 0, "%s", result.err);
    cr_expect_not_null(strstr(result.err, "1 tensors of heads are left out: classifier.weight"), "%s",
                       result.err);
    process_result_fini(&result);
    run_quietly(0, WORDS("convert", model.text, back.text, "--names", "huggingface"));
    expect_same_bytes(in.text, back.text);
    char *config = temp_folder_read(&s.folder, "out/config.json");
    static const char *const parts[] = {"\"Dinov2WithRegistersModel\"", "\"dinov2_with_registers\"",
                                        "\"num_register_tokens\":\t2",  "\"num_attention_heads\":\t3",
                                        "\"image_size\":\t28",          "\"torch_dtype\":\t\"float32\""};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        cr_expect_not_null(strstr(config, parts[i]), "%s: %s", parts[i], config);
    temp_folder_free_text(config);
    /* an index by its name; and a folder without one */
    run_quietly(0, WORDS("convert", index.text, model.text, "--heads", "3"));
    expect_refused(WORDS("convert", s.folder.path, model.text), "there is neither model.safetensors nor");
    end(&s);
}

Test(convert, sixteen_bits_out_and_back, .timeout = 120)
{
    static const char *const types[] = {"float16", "bfloat16"};
    Setting s = begin(0, false);
    TempPath in = write_weights(&s, VIT_NAMES_TIMM, "in.safetensors");
    TempPath model = temp_folder_in(&s.folder, "model.h5"),
             out = temp_folder_in(&s.folder, "out.safetensors");
    TempPath again = temp_folder_in(&s.folder, "again.safetensors");
    for (int i = 0; i < 2; i++) {
        run_quietly(0, WORDS("convert", in.text, model.text, "--heads", "3"));
        run_quietly(0, WORDS("convert", model.text, out.text, "--names", "timm", "--dtype", types[i]));
        run_quietly(0, WORDS("convert", out.text, model.text, "--heads", "3"));
        run_quietly(0, WORDS("convert", model.text, again.text, "--names", "timm", "--dtype", types[i]));
        expect_same_bytes(out.text, again.text);
        SafetensorsFile file;
        cr_assert_eq(safetensors_open(&file, out.text, NULL), STATUS_OK);
        for (int64_t t = 0; t < file.count; t++)
            cr_expect_eq(file.tensors[t].type, i ? SAFETENSORS_BF16 : SAFETENSORS_F16);
        safetensors_close(&file);
    }
    expect_refused(WORDS("convert", model.text, out.text, "--dtype", "int8"),
                   "--dtype int8: expected float32");
    expect_refused(WORDS("convert", in.text, model.text, "--dtype", "float16"),
                   "--dtype is for writing FILE.s");
    end(&s);
}

/* SSCD's state dict: the table's tensors behind "backbone.", and counters. */
static void write_descriptor(const char *path, const ParamTable *table, const float *flat, int without)
{
    static const int64_t one[] = {1};
    static const float counter = 3.0f;
    enum { MOST = 200 };
    SafetensorsSource sources[MOST];
    char names[MOST][96];
    int64_t count = 0;
    for (int i = 0; i < table->count; i++) {
        const Param *param = &table->params[i];
        if (i == without) continue;
        snprintf(names[count], sizeof names[count], "backbone.%s", param->name);
        sources[count] = (SafetensorsSource){names[count], param->ndim, param->shape, flat + param->offset,
                                             SAFETENSORS_F32};
        count++;
    }
    sources[count++] =
        (SafetensorsSource){"backbone.bn1.num_batches_tracked", 1, one, &counter, SAFETENSORS_F32};
    cr_assert_eq(safetensors_write(path, sources, count, NULL), STATUS_OK);
}

Test(convert, a_copy_detector)
{
    TempFolder folder = temp_folder_create();
    TempPath in = temp_folder_in(&folder, "sscd.safetensors"), out = temp_folder_in(&folder, "sscd.h5");
    ResnetConfig config = {.arch = RESNET_18, .dims = 8, .gem_p = 3.0, .bn_eps = 1e-5};
    Resnet resnet;
    ParamTable table;
    param_table_init(&table);
    resnet_build(&resnet, &config, &table);
    float *flat = memory_alloc_array((size_t)table.flat_count, sizeof *flat);
    float *back = memory_alloc_array((size_t)table.flat_count, sizeof *back);
    sscd_weights_fill(&table, 1, flat);
    write_descriptor(in.text, &table, flat, -1);
    run_quietly(0, WORDS("convert", in.text, out.text));
    run_quietly(0, WORDS("validate", out.text));
    Comm *comm = comm_self_create();
    DescriptorMeta meta;
    cr_assert_eq(descriptor_file_read_meta(out.text, &meta, comm, NULL), STATUS_OK);
    cr_expect(meta.config.arch == RESNET_18 && meta.config.dims == 8 && meta.config.gem_p == 3.0);
    cr_expect_str_eq(meta.source, "sscd.safetensors");
    cr_assert_eq(descriptor_file_load(out.text, &table, back, comm, NULL), STATUS_OK);
    cr_expect(memcmp(back, flat, (size_t)table.flat_count * sizeof *flat) == 0);
    comm_destroy(comm);
    write_descriptor(in.text, &table, flat, 3);
    expect_refused(WORDS("convert", in.text, out.text), "1 missing (backbone.bn1.running_mean)");
    memory_free(flat);
    memory_free(back);
    param_table_fini(&table);
    temp_folder_destroy(&folder);
}

Test(convert, what_it_refuses, .timeout = 300)
{
    Setting s = begin(0, false);
    TempPath in = write_weights(&s, VIT_NAMES_HUGGINGFACE, "in.safetensors");
    TempPath model = temp_folder_in(&s.folder, "model.h5"),
             out = temp_folder_in(&s.folder, "out.safetensors");
    const char *from = in.text, *to = model.text;
    expect_refused(WORDS("convert", from), "IN OUT");
    expect_refused(WORDS("convert", from, "model.pth"), "expected FILE.safetensors or FILE.h5");
    expect_refused(WORDS("convert", from, to, "--names", "timm"), "--names is for writing FILE.s");
    expect_refused(WORDS("convert", from, to), "its width of 24 has is not known: give --heads N");
    expect_refused(WORDS("convert", from, to, "--heads", "5"), "does not divide");
    expect_refused(
        WORDS("convert", from, to, "--heads", "3", "student.patch_size=8", "crops.global_crops_size=32",
              "crops.local_crops_size=16"),
        "1 of another shape (embeddings.patch_embeddings.projection.weight [24, 3, 7, 7] not [24, 3, 8, 8])");
    expect_refused(WORDS("convert", "/nonexistent.safetensors", to), "/nonexistent.safetensors");
    temp_folder_write(&s.folder, "text.safetensors", "this is no such file at all");
    TempPath text = temp_folder_in(&s.folder, "text.safetensors");
    expect_refused(WORDS("convert", text.text, to), "not safetensors: a header of");
    expect_refused(WORDS("convert", from, out.text), "in.safetensors");
    run_quietly(0, WORDS("convert", from, to, "--heads", "3"));
    expect_refused(WORDS("convert", to, out.text, "--which", "student"), "/student");
    expect_refused(WORDS("convert", to, out.text, "--names", "onnx"), "--names onnx: expected");
    float *gamma =
        s.flat + s.table.params[param_table_find(&s.table, PARAM_BACKBONE, "blocks.1.ls1.gamma")].offset;
    gamma[5] = 0.0f / 0.0f;
    in = write_weights(&s, VIT_NAMES_HUGGINGFACE, "in.safetensors");
    expect_refused(WORDS("convert", from, to, "--heads", "3"),
                   "encoder.layer.1.layer_scale1.lambda1: element 5 is NaN");
    end(&s);
}
