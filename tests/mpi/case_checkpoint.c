/* case_checkpoint.c - saving and loading a small state whose every number is a function of iteration, role
 * and place, so that any rank count can tell whether what it loaded is what was saved. */
#include "base/clock.h"
#include "base/memory.h"
#include "ckpt/checkpoint.h"
#include "mpi_case.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { CENTER = 77 };

typedef struct {
    int64_t depth, dim, chunks; /* chunks > 0: names are blocks.<chunk>.<i>. */
} Shape;

static void add(ParamTable *table, ParamModule module, const char *name, int ndim, const int64_t *shape)
{
    ParamSpec spec = {.module = module, .ndim = ndim};
    memcpy(spec.shape, shape, (size_t)ndim * sizeof *shape);
    param_table_add(table, &spec, name, "");
}

/* Names as a ViT's, in an order of our own. */
static ParamTable make_table(Shape shape)
{
    ParamTable table;
    int64_t d = shape.dim;
    param_table_init(&table);
    param_table_begin_unit(&table, PARAM_BACKBONE);
    add(&table, PARAM_BACKBONE, "cls_token", 3, (int64_t[]){1, 1, d});
    add(&table, PARAM_BACKBONE, "patch_embed.proj.weight", 4, (int64_t[]){d, 3, 7, 7});
    for (int64_t i = 0; i < shape.depth; i++) {
        char name[80];
        param_table_begin_unit(&table, PARAM_BACKBONE);
        if (shape.chunks)
            snprintf(name, sizeof name, "blocks.%d.%d.attn.qkv.weight", (int)(i % shape.chunks), (int)i);
        else
            snprintf(name, sizeof name, "blocks.%d.attn.qkv.weight", (int)i);
        add(&table, PARAM_BACKBONE, name, 2, (int64_t[]){3 * d, d});
    }
    param_table_begin_unit(&table, PARAM_DINO_HEAD);
    add(&table, PARAM_DINO_HEAD, "last_layer.weight_v", 2, (int64_t[]){101, 13});
    param_table_begin_unit(&table, PARAM_IBOT_HEAD);
    add(&table, PARAM_IBOT_HEAD, "last_layer.weight_g", 2, (int64_t[]){101, 1});
    return table;
}

/* A state and what it stands on. */
typedef struct {
    ParamTable table;
    ShardMap map; /* everything on every rank */
    CheckpointState state;
} Owned;

static Owned *make_state(Shape shape, const Comm *comm)
{
    Owned *owned = memory_alloc(sizeof *owned);
    owned->table = make_table(shape);
    size_t count = (size_t)owned->table.flat_count;
    CheckpointState *s = &owned->state;
    shard_map_init_whole(&owned->map, &owned->table, comm);
    s->map = &owned->map;
    s->student = memory_alloc_array(count, sizeof(float));
    s->model_ema = memory_alloc_array(count, sizeof(float));
    s->exp_avg = memory_alloc_array(count, sizeof(float));
    s->exp_avg_sq = memory_alloc_array(count, sizeof(float));
    s->dino_center = memory_alloc_array(CENTER, sizeof(float));
    s->dino_center_count = CENTER;
    return owned;
}

static void destroy_state(Owned *owned)
{
    CheckpointState *s = &owned->state;
    memory_free(s->student);
    memory_free(s->model_ema);
    memory_free(s->exp_avg);
    memory_free(s->exp_avg_sq);
    memory_free(s->dino_center);
    shard_map_fini(&owned->map);
    param_table_fini(&owned->table);
    memory_free(owned);
}

static float value_at(int64_t iteration, int role, uint64_t name, int64_t i)
{
    uint64_t z =
        (uint64_t)iteration * 0x9E3779B97F4A7C15u + (uint64_t)role + name + (uint64_t)i * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 29)) * 0x94D049BB133111EBu;
    return (float)(z >> 40) * 0x1p-24f - 0.5f;
}

/* Fills a flat array, or counts what differs from it. Names without the chunk: they are the same tensors. */
static int64_t visit_flat(const ParamTable *table, float *flat, int64_t iteration, int role, bool fill)
{
    int64_t wrong = 0;
    for (int id = 0; id < table->count; id++) {
        const Param *p = &table->params[id];
        uint64_t name = (uint64_t)id * 1000003u;
        int64_t padded = id + 1 < table->count ? table->params[id + 1].offset : table->flat_count;
        for (int64_t i = 0; i < padded - p->offset; i++) {
            float expected = i < p->count ? value_at(iteration, role, name, i) : 0.f;
            if (fill) flat[p->offset + i] = expected;
            wrong += memcmp(&flat[p->offset + i], &expected, sizeof expected) != 0;
        }
    }
    return wrong;
}

static int64_t visit_state(CheckpointState *s, int64_t iteration, bool fill)
{
    float *const flats[] = {s->student, s->model_ema, s->exp_avg, s->exp_avg_sq};
    int64_t wrong = 0;
    for (int role = 0; role < 4; role++)
        wrong += visit_flat(s->map->table, flats[role], iteration, role, fill);
    for (int64_t i = 0; i < CENTER; i++) {
        if (fill) s->dino_center[i] = value_at(iteration, 9, 0, i);
        wrong += s->dino_center[i] != value_at(iteration, 9, 0, i);
    }
    return wrong;
}

static void set_meta(CheckpointState *s, int64_t iteration)
{
    static char config[] = "train:\n  seed: 3\n";
    s->meta = (CheckpointMeta){.iteration = iteration,
                               .optimizer_step = iteration + 1,
                               .loss_scale = 65536.0,
                               .loss_scale_good_steps = iteration % 2000,
                               .global_batch_size = 48,
                               .samples_seen = 48 * (iteration + 1),
                               .seed = 3,
                               .config = config,
                               .arch = "vit_custom",
                               .embed_dim = 32,
                               .patch_size = 7,
                               .global_crops_size = 28,
                               .local_crops_size = 14,
                               .mean = {0.485, 0.456, 0.406},
                               .std = {0.229, 0.224, 0.225},
                               .version = "test"};
}

static Status save(MpiCase *c, const char *folder, CheckpointState *s, int64_t iteration, int keep)
{
    set_meta(s, iteration);
    visit_state(s, iteration, true);
    return checkpoint_save(folder, s, keep, 0, c->comm, &c->error);
}

/* Loads and compares with what the file's own iteration says. */
static Status load(MpiCase *c, const char *path, CheckpointState *s)
{
    Status status = checkpoint_load(path, s, c->comm, &c->error);
    if (status != STATUS_OK) return status;
    const CheckpointMeta *m = &s->meta;
    EXPECT(c, visit_state(s, m->iteration, false) == 0);
    EXPECT(c, m->optimizer_step == m->iteration + 1 && m->samples_seen == 48 * (m->iteration + 1));
    EXPECT(c, m->loss_scale == 65536.0 && m->seed == 3 && m->patch_size == 7 && m->std[2] == 0.225);
    EXPECT(c, strcmp(m->config, "train:\n  seed: 3\n") == 0 && strcmp(m->arch, "vit_custom") == 0);
    if (c->rank == 0) fprintf(stderr, "loaded iteration %lld\n", (long long)m->iteration);
    checkpoint_meta_fini(&s->meta);
    return STATUS_OK;
}

static Shape shape_of(const MpiCase *c, int index)
{
    return (Shape){mpi_case_number(c, index, 3), mpi_case_number(c, index + 1, 32),
                   mpi_case_number(c, index + 2, 0)};
}

/* FOLDER ITERATION KEEP [DEPTH DIM CHUNKS] */
Status case_checkpoint_save(MpiCase *c)
{
    Owned *owned = make_state(shape_of(c, 3), c->comm);
    Status status = checkpoint_clean(c->argv[0], c->comm, &c->error);
    if (status == STATUS_OK)
        status = save(c, c->argv[0], &owned->state, mpi_case_number(c, 1, 0), (int)mpi_case_number(c, 2, 0));
    if (status == STATUS_OK && c->argc > 6)
        status = checkpoint_save_model_ema(c->argv[6], &owned->state, c->comm, &c->error);
    destroy_state(owned);
    return status;
}

/* FILE [DEPTH DIM CHUNKS] */
Status case_checkpoint_load(MpiCase *c)
{
    Owned *owned = make_state(shape_of(c, 1), c->comm);
    Status status = load(c, c->argv[0], &owned->state);
    destroy_state(owned);
    return status;
}

/* FOLDER [DEPTH DIM]: what find_latest finds. */
Status case_checkpoint_latest(MpiCase *c)
{
    char path[CHECKPOINT_PATH_MAX];
    bool found;
    Owned *owned = make_state(shape_of(c, 1), c->comm);
    Status status = checkpoint_find_latest(c->argv[0], c->comm, &c->run->log, path, &found, &c->error);
    if (status == STATUS_OK && found) status = load(c, path, &owned->state);
    if (status == STATUS_OK && !found && c->rank == 0) fprintf(stderr, "found none\n");
    destroy_state(owned);
    return status;
}

/* FILE: the teacher's backbone alone, and the attributes alone. */
Status case_checkpoint_backbone(MpiCase *c)
{
    ParamTable table = make_table((Shape){3, 32, 0});
    float *flat = memory_alloc_array((size_t)table.flat_count, sizeof *flat);
    float *expected = memory_alloc_array((size_t)table.flat_count, sizeof *expected);
    CheckpointMeta meta;
    Status status = checkpoint_read_meta(c->argv[0], &meta, c->comm, &c->error);
    if (status == STATUS_OK) {
        visit_flat(&table, expected, meta.iteration, 1, true);
        for (int id = 0; id < table.count; id++) /* the heads stay as they were */
            if (table.params[id].module != PARAM_BACKBONE)
                memset(expected + table.params[id].offset, 0,
                       (size_t)table.params[id].count * sizeof *expected);
        EXPECT(c, meta.global_crops_size == 28 && meta.config[0] == 't');
        checkpoint_meta_fini(&meta);
        ShardMap map;
        shard_map_init_whole(&map, &table, c->comm);
        status = checkpoint_load_backbone(c->argv[0], CHECKPOINT_TEACHER, &map, flat, c->comm, &c->error);
        shard_map_fini(&map);
        EXPECT(c,
               status != STATUS_OK || memcmp(flat, expected, (size_t)table.flat_count * sizeof *flat) == 0);
    }
    memory_free(flat);
    memory_free(expected);
    param_table_fini(&table);
    return status;
}

/* FOLDER: resumes from what is there, then saves and saves until somebody is killed. */
Status case_checkpoint_storm(MpiCase *c)
{
    char path[CHECKPOINT_PATH_MAX];
    bool found;
    Owned *owned = make_state((Shape){6, 128, 0}, c->comm);
    Status status = checkpoint_clean(c->argv[0], c->comm, &c->error);
    if (status == STATUS_OK)
        status = checkpoint_find_latest(c->argv[0], c->comm, &c->run->log, path, &found, &c->error);
    if (status == STATUS_OK && found) status = load(c, path, &owned->state);
    int64_t iteration = status == STATUS_OK && found ? owned->state.meta.iteration + 1 : 0;
    comm_barrier(c->comm);
    if (c->rank == 0) fprintf(stderr, "storm begins\n");
    for (int64_t last = iteration + 500; status == STATUS_OK && iteration < last && !c->failures; iteration++)
        status = save(c, c->argv[0], &owned->state, iteration, 3);
    destroy_state(owned);
    return status;
}

/* FOLDER RANK: that rank cannot write files of more than 64 KiB. The save must fail everywhere and leave all
 * as it was; with the limit lifted the next one succeeds. */
Status case_checkpoint_full(MpiCase *c)
{
    Owned *owned = make_state((Shape){3, 32, 0}, c->comm);
    struct rlimit old, small;
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 64 << 10;
    signal(SIGXFSZ, SIG_IGN);
    EXPECT(c, save(c, c->argv[0], &owned->state, 1, 0) == STATUS_OK);
    if (c->rank == mpi_case_number(c, 1, 0)) setrlimit(RLIMIT_FSIZE, &small);
    Status status = save(c, c->argv[0], &owned->state, 2, 1);
    setrlimit(RLIMIT_FSIZE, &old);
    EXPECT(c, status == STATUS_FAILED && strstr(c->error.text, "model_0000002.h5.tmp: cannot write"));
    if (c->rank == 0) fprintf(stderr, "said: %s\n", c->error.text);
    char path[CHECKPOINT_PATH_MAX];
    bool found;
    Status latest = checkpoint_find_latest(c->argv[0], c->comm, &c->run->log, path, &found, &c->error);
    EXPECT(c, latest == STATUS_OK && found && strstr(path, "model_0000001.h5"));
    EXPECT(c, load(c, path, &owned->state) == STATUS_OK);
    EXPECT(c, save(c, c->argv[0], &owned->state, 3, 1) == STATUS_OK);
    destroy_state(owned);
    return STATUS_OK;
}

/* FOLDER MIB ROUNDS: seconds of saving and loading about that much, best of the rounds. Run by hand. */
Status case_checkpoint_bandwidth(MpiCase *c)
{
    int64_t dim = 512, depth = mpi_case_number(c, 1, 300) * (1 << 20) / (16 * 3 * dim * dim);
    Owned *owned = make_state((Shape){depth ? depth : 1, dim, 0}, c->comm);
    CheckpointState *s = &owned->state;
    double mib = 16.0 * (double)owned->table.flat_count / (1 << 20), best_save = 1e9, best_load = 1e9;
    Status status = save(c, c->argv[0], s, 0, 1);
    for (int64_t i = 1; i <= mpi_case_number(c, 2, 3) && status == STATUS_OK; i++) {
        char path[CHECKPOINT_PATH_MAX];
        snprintf(path, sizeof path, "%s/model_%07d.h5", c->argv[0], (int)i);
        set_meta(s, i);
        comm_barrier(c->comm);
        double start = clock_seconds();
        status = checkpoint_save(c->argv[0], s, 1, 0, c->comm, &c->error);
        double saved = clock_seconds();
        if (status == STATUS_OK) status = checkpoint_load(path, s, c->comm, &c->error);
        double loaded = clock_seconds();
        checkpoint_meta_fini(&s->meta);
        if (saved - start < best_save) best_save = saved - start;
        if (loaded - saved < best_load) best_load = loaded - saved;
    }
    if (c->rank == 0)
        fprintf(stderr, "%.0f MiB on %d ranks: save %.0f MiB/s, load %.0f MiB/s\n", mib, c->size,
                mib / best_save, mib / best_load);
    destroy_state(owned);
    return status;
}
