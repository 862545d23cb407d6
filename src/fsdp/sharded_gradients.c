/* sharded_gradients.c - rooms for full gradients, and sums over ranks. */
#include "fsdp/sharded_gradients.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/memory.h"

enum { CHUNK = 16 << 20 }; /* elements that a 16-bit sum of uncut weights takes at once */

static ParamModule module_of(const ShardedGradients *g, int unit)
{
    return g->map->table->units[unit].module;
}

static bool is_cut(const ShardedGradients *g, int unit)
{
    return g->map->modules[module_of(g, unit)].parts != NULL;
}

static int64_t unit_count(const ShardedGradients *g, int unit)
{
    const ParamUnit *u = &g->map->table->units[unit];
    return u->end - u->first;
}

/* --- building --- */

static GradientRoom make_room(ShardedGradients *g, ParamModule module, int64_t count)
{
    Device *device = g->ops->device;
    GradientRoom room = {.unit = -1};
    if (count == 0) return room;
    room.full = device_alloc(device, (size_t)count * sizeof(float));
    g->bytes += (size_t)count * sizeof(float);
    if (g->reduce[module] == DTYPE_F32) return room;
    room.reduced = device_alloc(device, (size_t)count * sizeof(uint16_t));
    g->bytes += (size_t)count * sizeof(uint16_t);
    return room;
}

static void make_rooms(ShardedGradients *g)
{
    const ParamTable *t = g->map->table;
    int64_t most = 0;
    for (int u = 0; u < t->unit_count; u++)
        if (is_cut(g, u) && module_of(g, u) == PARAM_BACKBONE && unit_count(g, u) > most)
            most = unit_count(g, u);
    g->rooms = memory_alloc_array(GRADIENT_ROOMS + PARAM_MODULE_COUNT, sizeof *g->rooms);
    for (int i = 0; i < GRADIENT_ROOMS; i++)
        g->rooms[i] = make_room(g, PARAM_BACKBONE, most);
    g->room_count = GRADIENT_ROOMS;
    for (int u = 0; u < t->unit_count; u++) {
        if (!is_cut(g, u) || module_of(g, u) == PARAM_BACKBONE) continue;
        g->rooms[g->room_count] = make_room(g, module_of(g, u), unit_count(g, u));
        g->units[u] = g->rooms[g->room_count++].full;
    }
}

/* Room for 16-bit sums over the ranks that hold the same part. */
static void make_chunk(ShardedGradients *g)
{
    int64_t most = 0;
    for (int m = 0; m < PARAM_MODULE_COUNT; m++) {
        int64_t first, count;
        shard_map_module(g->map, (ParamModule)m, &first, &count);
        if (g->reduce[m] != DTYPE_F32 && g->map->modules[m].copies && count > most) most = count;
    }
    if (most == 0) return;
    g->chunk_count = most < CHUNK ? most : CHUNK;
    g->chunk = device_alloc(g->ops->device, (size_t)g->chunk_count * sizeof *g->chunk);
    g->bytes += (size_t)g->chunk_count * sizeof *g->chunk;
}

void sharded_gradients_init(ShardedGradients *g, const ShardMap *map, const Ops *ops,
                            const Dtype reduce[PARAM_MODULE_COUNT])
{
    *g = (ShardedGradients){.map = map, .ops = ops, .overlap = true};
    for (int m = 0; m < PARAM_MODULE_COUNT; m++)
        g->reduce[m] = reduce[m];
    g->local = device_alloc(ops->device, (size_t)map->count * sizeof *g->local);
    g->units = memory_alloc_array((size_t)map->table->unit_count, sizeof *g->units);
    make_rooms(g);
    make_chunk(g);
    for (int u = 0; u < map->table->unit_count; u++)
        if (!is_cut(g, u)) g->units[u] = g->local + map->sections[map->unit_sections[u]].local;
}

void sharded_gradients_fini(ShardedGradients *g)
{
    if (!g->map) return;
    Device *device = g->ops->device;
    for (int i = 0; i < g->room_count; i++) {
        device_free(device, g->rooms[i].full);
        device_free(device, g->rooms[i].reduced);
    }
    device_free(device, g->local);
    device_free(device, g->chunk);
    memory_free(g->rooms);
    memory_free(g->units);
    *g = (ShardedGradients){0};
}

ParamValues sharded_gradients_view(const ShardedGradients *g)
{
    return (ParamValues){g->map->table, NULL, g->units};
}

/* --- sums over parts --- */

/* Where a section's sums are received: in place of this rank's own run. */
static Tensor own_run(const ShardedGradients *g, const GradientRoom *room, const ShardSection *s)
{
    ParamModule module = module_of(g, s->unit);
    int64_t at = s->first - g->map->table->units[s->unit].first + g->map->modules[module].shard * s->share;
    if (g->reduce[module] == DTYPE_F32) return tensor_1d(room->full + at, DTYPE_F32, s->share);
    return tensor_1d(room->reduced + at, g->reduce[module], s->share);
}

static void start_sum(ShardedGradients *g, GradientRoom *room, int unit)
{
    const ShardMap *map = g->map;
    const FsdpModule *module = &map->modules[module_of(g, unit)];
    Dtype dtype = g->reduce[module_of(g, unit)];
    int64_t n = unit_count(g, unit);
    if (dtype != DTYPE_F32)
        g->ops->cast(g->ops, tensor_1d(room->reduced, dtype, n), tensor_1d(room->full, DTYPE_F32, n));
    room->unit = unit;
    for (int k = map->unit_sections[unit]; k < map->unit_sections[unit + 1]; k++) {
        const ShardSection *s = &map->sections[k];
        Tensor run = own_run(g, room, s);
        char *first = (char *)run.data - (size_t)(module->shard * s->share) * dtype_size(dtype);
        room->requests[k - map->unit_sections[unit]] =
            comm_reduce_scatter_start(module->parts, run.data, first, s->share, dtype, g->ops->device);
        g->sent += (size_t)((module->shards - 1) * s->share) * dtype_size(dtype);
    }
}

/* The columns of a vector of n elements, a multiple of PARAM_ALIGNMENT, as a matrix of reasonable rows. */
static int64_t columns_of(int64_t n)
{
    int64_t columns = PARAM_ALIGNMENT;
    while (columns < 1024 && n % (2 * columns) == 0)
        columns *= 2;
    return columns;
}

/* Waits for a room's sum and adds it to this rank's part. */
static void finish_sum(ShardedGradients *g, GradientRoom *room)
{
    if (room->unit < 0) return;
    const ShardMap *map = g->map;
    double began = clock_seconds();
    for (int i = 0; i < 2; i++)
        comm_wait(map->modules[module_of(g, room->unit)].parts, &room->requests[i]);
    g->waited += clock_seconds() - began;
    for (int k = map->unit_sections[room->unit]; k < map->unit_sections[room->unit + 1]; k++) {
        const ShardSection *s = &map->sections[k];
        Tensor part = tensor_1d(g->local + s->local, DTYPE_F32, s->share);
        int64_t columns = columns_of(s->share), rows = s->share / columns;
        g->ops->residual_forward(g->ops, tensor_as_2d(part, rows, columns),
                                 tensor_as_2d(own_run(g, room, s), rows, columns), tensor_none(),
                                 tensor_none(), tensor_none());
    }
    room->unit = -1;
}

void sharded_gradients_begin(ShardedGradients *g)
{
    const ShardMap *map = g->map;
    g->ops->zero(g->ops, tensor_1d(g->local, DTYPE_F32, map->count));
    for (int u = 0; u < map->table->unit_count; u++)
        if (is_cut(g, u) && module_of(g, u) != PARAM_BACKBONE)
            g->ops->zero(g->ops, tensor_1d(g->units[u], DTYPE_F32, unit_count(g, u)));
}

void sharded_gradients_before(ShardedGradients *g, int unit)
{
    if (!is_cut(g, unit) || module_of(g, unit) != PARAM_BACKBONE) return;
    GradientRoom *room = &g->rooms[g->next];
    finish_sum(g, room);
    g->units[unit] = room->full;
    g->ops->zero(g->ops, tensor_1d(room->full, DTYPE_F32, unit_count(g, unit)));
}

void sharded_gradients_after(ShardedGradients *g, int unit)
{
    if (!is_cut(g, unit) || module_of(g, unit) != PARAM_BACKBONE) return;
    CHECK(g->units[unit] == g->rooms[g->next].full);
    start_sum(g, &g->rooms[g->next], unit);
    if (!g->overlap) finish_sum(g, &g->rooms[g->next]);
    g->units[unit] = NULL;
    g->next = (g->next + 1) % GRADIENT_ROOMS;
}

void sharded_gradients_reduce_head(ShardedGradients *g, int unit)
{
    for (int i = GRADIENT_ROOMS; i < g->room_count; i++)
        if (g->rooms[i].full == g->units[unit]) start_sum(g, &g->rooms[i], unit);
}

/* --- sums over copies --- */

static void sum_copies(ShardedGradients *g, ParamModule module)
{
    Comm *copies = g->map->modules[module].copies;
    Device *device = g->ops->device;
    int64_t first, count;
    shard_map_module(g->map, module, &first, &count);
    if (!copies || count == 0) return;
    Dtype dtype = g->reduce[module];
    int64_t ranks = comm_size(copies);
    g->sent += (size_t)(2 * (ranks - 1) * count / ranks) * dtype_size(dtype);
    if (dtype == DTYPE_F32) {
        comm_all_reduce(copies, g->local + first, count, DTYPE_F32, COMM_SUM, device);
        return;
    }
    for (int64_t at = 0; at < count; at += g->chunk_count) {
        int64_t n = count - at < g->chunk_count ? count - at : g->chunk_count;
        Tensor exact = tensor_1d(g->local + first + at, DTYPE_F32, n);
        Tensor reduced = tensor_1d(g->chunk, dtype, n);
        g->ops->cast(g->ops, reduced, exact);
        comm_all_reduce(copies, g->chunk, n, dtype, COMM_SUM, device);
        g->ops->cast(g->ops, exact, reduced);
    }
}

void sharded_gradients_end(ShardedGradients *g)
{
    for (int i = 0; i < g->room_count; i++)
        finish_sum(g, &g->rooms[i]);
    double began = clock_seconds();
    for (int m = 0; m < PARAM_MODULE_COUNT; m++)
        sum_copies(g, (ParamModule)m);
    g->waited += clock_seconds() - began;
}
