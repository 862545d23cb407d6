/* test_descriptor_file.c - weights of a copy-detection network come back as they were; wrong files are named.
 */
#include "../support/sscd_weights.h"
#include "../support/temp_folder.h"
#include "base/memory.h"
#include "ckpt/descriptor_file.h"
#include "eval/descriptor_model.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const DescriptorMeta META = {.config = {.arch = RESNET_18, .dims = 16, .gem_p = 3.0, .bn_eps = 1e-5},
                                    .mean = {0.485, 0.456, 0.406},
                                    .std = {0.229, 0.224, 0.225},
                                    .source = "a formula"};

typedef struct {
    TempFolder folder;
    TempPath path;
    Comm *comm;
    Resnet resnet;
    ParamTable table;
    float *flat;
} Setting;

static void begin(Setting *s)
{
    s->folder = temp_folder_create();
    s->path = temp_folder_in(&s->folder, "sscd.h5");
    s->comm = comm_self_create();
    param_table_init(&s->table);
    resnet_build(&s->resnet, &META.config, &s->table);
    s->flat = memory_alloc_array((size_t)s->table.flat_count, sizeof *s->flat);
    sscd_weights_fill(&s->table, 2, s->flat);
}

static void end(Setting *s)
{
    memory_free(s->flat);
    param_table_fini(&s->table);
    comm_destroy(s->comm);
    temp_folder_destroy(&s->folder);
}

static void save(Setting *s, const DescriptorMeta *meta)
{
    Error error = {0};
    Status status = descriptor_file_save(s->path.text, meta, &s->table, s->flat, s->comm, &error);
    cr_assert_eq(status, STATUS_OK, "%s", error.text);
}

static void expect_refused(const Setting *s, const char *part)
{
    DescriptorModel model;
    Error error = {0};
    cr_expect_eq(descriptor_model_load(&model, s->path.text, s->comm, &error), STATUS_INPUT, "%s", part);
    cr_expect_not_null(strstr(error.text, part), "\"%s\" is not in \"%s\"", part, error.text);
    cr_expect_not_null(strstr(error.text, "sscd.h5"), "%s", error.text);
    descriptor_model_fini(&model);
}

Test(descriptor_file, comes_back_as_it_was)
{
    Setting s;
    begin(&s);
    save(&s, &META);
    DescriptorMeta meta;
    cr_assert_eq(descriptor_file_read_meta(s.path.text, &meta, s.comm, NULL), STATUS_OK);
    cr_expect(meta.config.arch == RESNET_18 && meta.config.dims == 16 && meta.config.gem_p == 3.0);
    cr_expect(meta.config.bn_eps == 1e-5 && meta.std[2] == 0.225 && strcmp(meta.source, "a formula") == 0);
    float *again = memory_alloc_array((size_t)s.table.flat_count, sizeof *again);
    cr_assert_eq(descriptor_file_load(s.path.text, &s.table, again, s.comm, NULL), STATUS_OK);
    cr_assert(memcmp(again, s.flat, (size_t)s.table.flat_count * sizeof *again) == 0);
    memory_free(again);
    end(&s);
}

/* The folded network is convolution, then batch norm. */
Test(descriptor_file, batch_norm_is_folded)
{
    Setting s;
    begin(&s);
    save(&s, &META);
    DescriptorModel model;
    cr_assert_eq(descriptor_model_load(&model, s.path.text, s.comm, NULL), STATUS_OK);
    const ResnetConv *c = &model.resnet.convs[0];
    const Param *p = s.table.params;
    int64_t o = 7, channel = 2, row = 3, column = 5; /* of [64, 3, 7, 7] */
    double scale = (double)s.flat[p[c->gamma].offset + o] /
                   sqrt((double)s.flat[p[c->variance].offset + o] + META.config.bn_eps);
    double weight = (double)s.flat[p[c->weight].offset + ((o * 3 + channel) * 7 + row) * 7 + column];
    cr_expect_float_eq(model.folded[c->folded_weight + ((o * 7 + row) * 7 + column) * 3 + channel],
                       weight * scale, 1e-7);
    double bias = (double)s.flat[p[c->beta].offset + o] - (double)s.flat[p[c->mean].offset + o] * scale;
    cr_expect_float_eq(model.folded[c->folded_bias + o], bias, 1e-7);
    descriptor_model_fini(&model);
    end(&s);
}

Test(descriptor_file, wrong_files_are_named)
{
    Setting s;
    begin(&s);
    expect_refused(&s, "sscd.h5");
    temp_folder_write(&s.folder, "sscd.h5", "not HDF5");
    expect_refused(&s, "sscd.h5");

    DescriptorMeta meta = META;
    meta.config.dims = 17; /* of tensors of 16 */
    save(&s, &meta);
    expect_refused(&s, "/backbone/fc/weight is [16, 512] there, [17, 512] here");
    meta = META;
    meta.config.arch = RESNET_50;
    save(&s, &meta);
    expect_refused(&s, "/backbone/layer1/0/");
    meta = META;
    meta.config.gem_p = 0.5;
    save(&s, &meta);
    expect_refused(&s, "gem_p is 0.5");

    int fc = param_table_find(&s.table, PARAM_BACKBONE, "fc.weight");
    snprintf(s.table.params[fc].name, sizeof s.table.params[fc].name, "head.weight");
    save(&s, &META);
    expect_refused(&s, "/backbone/head/weight is there, but not here");
    s.table.count = fc; /* weight and bias are the last two */
    save(&s, &META);
    expect_refused(&s, "/backbone/fc/weight is not there");
    end(&s);
}

Test(descriptor_file, damage_is_named)
{
    Setting s;
    begin(&s);
    int id = param_table_find(&s.table, PARAM_BACKBONE, "layer3.1.bn2.running_var");
    s.flat[s.table.params[id].offset + 3] = -1.0f; /* no root */
    save(&s, &META);
    expect_refused(&s, "not finite");
    s.flat[s.table.params[id].offset + 3] = 1.0f;
    save(&s, &META);
    FILE *file = fopen(s.path.text, "r+b");
    cr_assert_not_null(file);
    fseek(file, -4096, SEEK_END); /* inside some tensor: they are nearly all of the file */
    fputc(77, file);
    fclose(file);
    expect_refused(&s, "damaged: crc32");
    end(&s);
}
