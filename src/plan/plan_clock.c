/* plan_clock.c - the device's time, and the links'. */
#include "plan/plan_clock.h"

#include "base/check.h"

#include <math.h>
#include <string.h>

void plan_clock_init(PlanClock *clock, const Cluster *cluster)
{
    *clock = (PlanClock){.cluster = cluster, .phase = PLAN_REST};
}

void plan_clock_reset(PlanClock *clock)
{
    memset(clock->work, 0, sizeof clock->work);
    memset(clock->phases, 0, sizeof clock->phases);
    memset(clock->exposed, 0, sizeof clock->exposed);
    memset(clock->traffic, 0, sizeof clock->traffic);
    clock->flops = 0;
    clock->operations = 0;
}

void plan_clock_spend(PlanClock *clock, PlanWork work, double seconds)
{
    clock->now += seconds;
    clock->work[work] += seconds;
    clock->phases[clock->phase] += seconds;
}

static void moved(void *context, DeviceMove move, size_t bytes)
{
    PlanClock *clock = context;
    const Cluster *c = clock->cluster;
    bool host = move == DEVICE_MOVE_UPLOAD || move == DEVICE_MOVE_DOWNLOAD;
    double rate = host ? c->host_gb_s * 1e9 : cluster_memory_rate(c),
           times = move == DEVICE_MOVE_COPY ? 2 : 1;
    plan_clock_spend(clock, PLAN_COPIES, fmax(times * (double)bytes / rate, c->operation_us * 1e-6));
}

DeviceListener plan_clock_device(PlanClock *clock)
{
    return (DeviceListener){clock, moved};
}

/* --- collectives --- */

double plan_clock_collective(const PlanLink *link, CommMove move, double bytes)
{
    const Cluster *c = link->clock->cluster;
    int p = link->size;
    if (p == 1) return 0;
    double within = c->within_gb_s * 1e9, between = c->between_gb_s * 1e9 * link->part;
    double rate = (link->nodes == 1   ? within
                   : link->nodes == p ? between
                                      : fmin(within, between)) *
                  c->network_share;
    double ring = (p - link->nodes) * c->within_us + (link->nodes - 1) * c->between_us, latency = ring;
    double per_node = (double)p / link->nodes;
    double tree = 2 * ((per_node - 1) * c->within_us + ceil(log2(link->nodes)) * c->between_us);
    if (move == COMM_MOVE_ALL_REDUCE) latency = fmin(2 * ring, tree);
    double laps = move == COMM_MOVE_ALL_REDUCE ? 2 : 1;
    return laps * bytes * (p - 1) / p / rate + (latency + c->operation_us) * 1e-6;
}

static PlanTraffic traffic_of(const PlanClock *clock, CommMove move, const char *buffer)
{
    if (move == COMM_MOVE_REDUCE_SCATTER) return PLAN_SCATTER;
    bool of_step = buffer >= clock->step && buffer < clock->step_end;
    if (move == COMM_MOVE_ALL_GATHER) return of_step ? PLAN_KOLEO : PLAN_GATHER;
    bool gradient = buffer >= clock->gradients && buffer < clock->gradients_end;
    if (gradient || (clock->chunk && buffer == clock->chunk)) return PLAN_GRADIENT_SUM;
    return clock->targets ? PLAN_TARGETS : PLAN_FIGURES;
}

/* The place of start `number`; of 0, a free one. */
static int place_of(const PlanLink *link, int64_t number)
{
    int place = 0;
    while (place < COMM_UNDER_WAY_MAX && link->under_way[place].number != number)
        place++;
    CHECK(place < COMM_UNDER_WAY_MAX);
    return place;
}

static void started(void *context, int64_t number, CommMove move, const void *buffer, size_t bytes)
{
    PlanLink *link = context;
    PlanClock *clock = link->clock;
    PlanTraffic traffic = traffic_of(clock, move, buffer);
    double seconds = plan_clock_collective(link, move, (double)bytes), begin = fmax(clock->now, link->free);
    link->free = begin + seconds;
    size_t room = move == COMM_MOVE_REDUCE_SCATTER ? bytes : 0;
    int place = place_of(link, 0);
    link->under_way[place].number = number;
    link->under_way[place].done = link->free;
    link->under_way[place].traffic = traffic;
    link->under_way[place].room = room;
    clock->rooms += room;
    if (clock->rooms > clock->rooms_peak) clock->rooms_peak = clock->rooms;
    if (move == COMM_MOVE_ALL_REDUCE && bytes > clock->largest_all_reduce) clock->largest_all_reduce = bytes;

    PlanTrafficTotal *total = &clock->traffic[traffic];
    double laps = move == COMM_MOVE_ALL_REDUCE ? 2 : 1, sent = laps * (double)bytes * (link->size - 1);
    total->calls++;
    total->bytes += (double)bytes;
    total->sent += sent / link->size;
    if (link->nodes > 1) total->across += sent / link->size / link->part;
    total->seconds += seconds;
}

static void waited(void *context, int64_t number)
{
    PlanLink *link = context;
    PlanClock *clock = link->clock;
    int place = place_of(link, number);
    double wait = fmax(link->under_way[place].done - clock->now, 0);
    link->under_way[place].number = 0;
    clock->rooms -= link->under_way[place].room;
    clock->traffic[link->under_way[place].traffic].exposed += wait;
    clock->exposed[clock->phase] += wait;
    clock->phases[clock->phase] += wait;
    clock->now += wait;
}

CommListener plan_clock_link(PlanLink *link, PlanClock *clock, int size, int nodes, double part)
{
    CHECK(size >= 1 && nodes >= 1 && nodes <= size && part > 0);
    *link = (PlanLink){.clock = clock, .size = size, .nodes = nodes, .part = part};
    return (CommListener){link, started, waited};
}
