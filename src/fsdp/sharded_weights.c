/* sharded_weights.c - rooms, gathers, and when they happen. */
#include "fsdp/sharded_weights.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/memory.h"

#include <string.h>

enum { SHARED_ROOMS = 2 };

static const FsdpModule *module_of(const ShardedWeights *w, int unit)
{
    return &w->map->modules[w->map->table->units[unit].module];
}

static Dtype act_of(const ShardedWeights *w, int unit)
{
    return w->act[w->map->table->units[unit].module];
}

/* Whether the masters serve as full copies. */
static bool masters_serve(const ShardedWeights *w, ParamModule module)
{
    return !w->map->modules[module].parts;
}

/* Elements of a unit's copy that are fp32, and those in 16 bits. */
static int64_t exact_count(const ShardedWeights *w, int unit)
{
    const ParamUnit *u = &w->map->table->units[unit];
    return (act_of(w, unit) == DTYPE_F32 ? u->end : u->exact_end) - u->first;
}

static int64_t reduced_count(const ShardedWeights *w, int unit)
{
    const ParamUnit *u = &w->map->table->units[unit];
    return act_of(w, unit) == DTYPE_F32 ? 0 : u->end - u->reduced_first;
}

static size_t exact_bytes(const ShardedWeights *w, int unit)
{
    ParamModule module = w->map->table->units[unit].module;
    return masters_serve(w, module) ? 0 : (size_t)exact_count(w, unit) * sizeof(float);
}

static size_t room_bytes(const ShardedWeights *w, int unit)
{
    return exact_bytes(w, unit) + (size_t)reduced_count(w, unit) * sizeof(uint16_t);
}

/* --- building --- */

static void make_rooms(ShardedWeights *w, ParamModule module)
{
    const ParamTable *t = w->map->table;
    ShardRooms *rooms = &w->own[module];
    *rooms = (ShardRooms){.first = t->unit_count};
    size_t most = 0;
    for (int u = 0; u < t->unit_count; u++) {
        if (t->units[u].module != module) continue;
        if (u < rooms->first) rooms->first = u;
        rooms->last = u + 1;
        if (room_bytes(w, u) > most) most = room_bytes(w, u);
    }
    w->rooms[module] = rooms;
    if (most == 0) return;
    bool shared =
        w->life[module] == FSDP_USE && rooms->last - rooms->first > SHARED_ROOMS && !masters_serve(w, module);
    rooms->count = shared ? SHARED_ROOMS : rooms->last - rooms->first;
    rooms->rooms = memory_alloc_array((size_t)rooms->count, sizeof *rooms->rooms);
    for (int i = 0; i < rooms->count; i++) {
        size_t bytes = shared ? most : room_bytes(w, rooms->first + i);
        rooms->rooms[i].memory = device_alloc(w->ops->device, bytes);
        rooms->bytes += bytes;
    }
}

static bool rooms_fit(const ShardedWeights *w, const ShardedWeights *other, ParamModule module)
{
    return other && module == PARAM_BACKBONE && w->life[module] != FSDP_ALWAYS &&
           w->life[module] == other->life[module] && w->act[module] == other->act[module] &&
           !masters_serve(w, module);
}

void sharded_weights_init(ShardedWeights *w, const ShardMap *map, const Ops *ops, float *local, bool teacher,
                          const Dtype act[PARAM_MODULE_COUNT], ShardedWeights *other)
{
    size_t units = (size_t)map->table->unit_count;
    *w = (ShardedWeights){.map = map, .ops = ops, .local = local, .prefetch = true};
    w->full = memory_alloc_array(units, sizeof *w->full);
    w->reduced = memory_alloc_array(units, sizeof *w->reduced);
    w->units = memory_alloc_array(units, sizeof *w->units);
    for (int m = 0; m < PARAM_MODULE_COUNT; m++) {
        w->life[m] = teacher ? map->modules[m].teacher : map->modules[m].student;
        w->act[m] = act[m];
        if (rooms_fit(w, other, (ParamModule)m))
            w->rooms[m] = &other->own[m];
        else
            make_rooms(w, (ParamModule)m);
    }
    for (int u = 0; u < map->table->unit_count; u++)
        if (masters_serve(w, map->table->units[u].module))
            w->full[u] = local + map->sections[map->unit_sections[u]].local;
}

void sharded_weights_fini(ShardedWeights *w)
{
    if (!w->map) return;
    for (int m = 0; m < PARAM_MODULE_COUNT; m++) {
        for (int i = 0; i < w->own[m].count; i++)
            device_free(w->ops->device, w->own[m].rooms[i].memory);
        memory_free(w->own[m].rooms);
    }
    memory_free(w->full);
    memory_free(w->reduced);
    memory_free(w->units);
    *w = (ShardedWeights){0};
}

Weights sharded_weights_view(const ShardedWeights *w, ParamModule module)
{
    Weights view = {.master = {w->map->table, NULL, w->full}, .reduced_dtype = w->act[module]};
    if (w->act[module] != DTYPE_F32) view.reduced_units = w->reduced;
    return view;
}

size_t sharded_weights_bytes(const ShardedWeights *w)
{
    size_t bytes = 0;
    for (int m = 0; m < PARAM_MODULE_COUNT; m++)
        bytes += w->own[m].bytes;
    return bytes;
}

/* --- filling --- */

/* What lies in a room is given up. */
static void clear_room(ShardRoom *room)
{
    if (!room->owner) return;
    ShardedWeights *w = room->owner;
    int unit = room->unit;
    CHECK(!w->units[unit].in_use && !w->units[unit].filling);
    w->units[unit].room = NULL;
    w->reduced[unit] = NULL;
    if (exact_bytes(w, unit) > 0) w->full[unit] = NULL;
#ifdef DINOBATCH_POISON
    if (device_kind(w->ops->device) == DEVICE_CPU) memset(room->memory, 0xff, room_bytes(w, unit));
#endif
    room->owner = NULL;
}

/* The unit's own room, or of those that are shared the one that nobody uses and whose last use is the
 * longest ago; NULL if there is none. */
static ShardRoom *find_room(const ShardedWeights *w, int unit)
{
    ShardRooms *rooms = w->rooms[w->map->table->units[unit].module];
    if (rooms->count == rooms->last - rooms->first) return &rooms->rooms[unit - rooms->first];
    ShardRoom *best = NULL;
    for (int i = 0; i < rooms->count; i++) {
        ShardRoom *room = &rooms->rooms[i];
        const ShardedUnit *there = room->owner ? &room->owner->units[room->unit] : NULL;
        if (there && (there->in_use || there->filling)) continue;
        if (!best || room->touched < best->touched) best = room;
    }
    return best;
}

/* This rank's run of a section to its place in the copy, and the other runs on their way to theirs. */
static CommRequest fill_section(ShardedWeights *w, const ShardSection *s)
{
    const Ops *ops = w->ops;
    const ParamUnit *unit = &w->map->table->units[s->unit];
    const FsdpModule *module = module_of(w, s->unit);
    float *mine = w->local + s->local;
    bool reduced = act_of(w, s->unit) != DTYPE_F32 && s->first >= unit->exact_end;
    void *to, *run;
    Dtype dtype = reduced ? act_of(w, s->unit) : DTYPE_F32;
    if (reduced) {
        to = w->reduced[s->unit] + (s->first - unit->reduced_first);
        run = (uint16_t *)to + module->shard * s->share;
        ops->cast(ops, tensor_1d(run, dtype, s->share), tensor_1d(mine, DTYPE_F32, s->share));
    } else {
        to = w->full[s->unit] + (s->first - unit->first);
        run = (float *)to + module->shard * s->share;
        if (run != mine) device_copy(ops->device, run, mine, (size_t)s->share * sizeof *mine);
    }
    if (!module->parts) return (CommRequest){0};
    w->received += (size_t)((module->shards - 1) * s->share) * dtype_size(dtype);
    return comm_all_gather_start(module->parts, to, run, s->share, dtype, ops->device);
}

static void start(ShardedWeights *w, int unit, ShardRoom *room)
{
    ShardedUnit *u = &w->units[unit];
    ShardRooms *rooms = w->rooms[w->map->table->units[unit].module];
    clear_room(room);
    *room = (ShardRoom){room->memory, w, unit, ++rooms->clock};
    u->room = room;
    u->filling = true;
    if (exact_bytes(w, unit) > 0) w->full[unit] = (float *)(void *)room->memory;
    if (reduced_count(w, unit) > 0)
        w->reduced[unit] = (uint16_t *)(void *)(room->memory + exact_bytes(w, unit));
    int first = w->map->unit_sections[unit];
    for (int k = first; k < w->map->unit_sections[unit + 1]; k++)
        u->requests[k - first] = fill_section(w, &w->map->sections[k]);
}

/* Waits for a unit under way, and makes the 16-bit copies of what came in fp32. */
static void finish(ShardedWeights *w, int unit)
{
    ShardedUnit *u = &w->units[unit];
    const ParamUnit *p = &w->map->table->units[unit];
    const FsdpModule *module = module_of(w, unit);
    double began = clock_seconds();
    for (int i = 0; i < 2 && module->parts; i++)
        comm_wait(module->parts, &u->requests[i]);
    w->waited += clock_seconds() - began;
    u->filling = false;
    int64_t both = p->exact_end - p->reduced_first;
    if (act_of(w, unit) == DTYPE_F32 || both <= 0) return;
    w->ops->cast(w->ops, tensor_1d(w->reduced[unit], act_of(w, unit), both),
                 tensor_1d(w->full[unit] + (p->reduced_first - p->first), DTYPE_F32, both));
}

/* --- when --- */

static bool has_room(const ShardedWeights *w, int unit)
{
    return w->rooms[w->map->table->units[unit].module]->count > 0;
}

void sharded_weights_need(ShardedWeights *w, int unit)
{
    ShardedUnit *u = &w->units[unit];
    if (!has_room(w, unit)) return;
    if (!u->room) {
        ShardRoom *room = find_room(w, unit);
        CHECK(room);
        start(w, unit, room);
    }
    if (u->filling) finish(w, unit);
    ShardRooms *rooms = w->rooms[w->map->table->units[unit].module];
    u->room->touched = ++rooms->clock;
}

/* Starts on the unit that a pass will touch next. */
static void look_ahead(ShardedWeights *w, int unit)
{
    const ParamTable *t = w->map->table;
    if (unit < 0 || unit >= t->unit_count || t->units[unit].module != PARAM_BACKBONE) return;
    if (!has_room(w, unit) || w->units[unit].room || !module_of(w, unit)->parts) return;
    ShardRoom *room = find_room(w, unit);
    if (room) start(w, unit, room);
}

void sharded_weights_before(ShardedWeights *w, int unit, bool backward)
{
    sharded_weights_need(w, unit);
    w->units[unit].in_use = true;
    if (w->prefetch) look_ahead(w, backward ? unit - 1 : unit + 1);
}

void sharded_weights_after(ShardedWeights *w, int unit)
{
    w->units[unit].in_use = false;
}

void sharded_weights_changed(ShardedWeights *w)
{
    const ParamTable *t = w->map->table;
    for (int u = 0; u < t->unit_count; u++) {
        if (!has_room(w, u)) continue;
        if (w->units[u].filling) finish(w, u);
        if (w->units[u].room) clear_room(w->units[u].room);
        bool always = w->life[t->units[u].module] == FSDP_ALWAYS || masters_serve(w, t->units[u].module);
        if (always) sharded_weights_need(w, u);
    }
}
