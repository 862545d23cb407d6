/* plan_clock.h - the time of a training step on a described cluster, work by work.
 *
 * The real step runs on a described device (device/described) with described ranks (comm/described) and
 * operations that only say what they would do (plan_ops.h). Each piece of work moves this clock as it would
 * move the device's: operations and copies one after the other; a collective when it is started, behind what
 * its communicator has under way, beside the work that follows; and a wait moves the clock to the
 * collective's end. So what hides behind what is the order of the program itself.
 *
 * Collectives are rings (Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms", JPDC 2009): of S
 * bytes on p ranks, S (p - 1) / p go over every link, twice in an all-reduce; the slowest link decides.
 * Messages wait for p - 1 hops, or, in an all-reduce where that is less, for a tree's (NCCL 2.4).
 *
 * What it is not: a model of contention. Collectives take no memory bandwidth and no multiprocessors from the
 * work beside them, communicators do not share wires, and every rank is as fast as this one.
 */
#ifndef DINOBATCH_PLAN_PLAN_CLOCK_H
#define DINOBATCH_PLAN_PLAN_CLOCK_H

#include "comm/described/comm_described.h"
#include "device/described/device_described.h"
#include "plan/cluster.h"

/* What takes the device's time. */
typedef enum {
    PLAN_PRODUCTS, /* dense layers */
    PLAN_ATTENTION,
    PLAN_PROTOTYPES, /* scores and losses over the last layers */
    PLAN_ROWS,       /* what moves memory: norms, activations, residuals, optimiser */
    PLAN_COPIES,     /* to and from the host, and by the device's own engine */
    PLAN_WORK_COUNT
} PlanWork;

/* What travels. */
typedef enum {
    PLAN_GATHER,       /* of weights */
    PLAN_SCATTER,      /* of gradients: reduce-scatter */
    PLAN_GRADIENT_SUM, /* of gradients over ranks that hold the same part: all-reduce */
    PLAN_TARGETS,      /* Sinkhorn's sums, or centres */
    PLAN_KOLEO,        /* class tokens of all ranks */
    PLAN_FIGURES,      /* losses, norms, prototypes in use */
    PLAN_TRAFFIC_COUNT
} PlanTraffic;

/* Parts of a step. */
typedef enum { PLAN_TEACHER, PLAN_STUDENT, PLAN_BACKWARD, PLAN_REST, PLAN_PHASE_COUNT } PlanPhase;

typedef struct {
    int64_t calls;
    double bytes;   /* of the data that is gathered or summed */
    double sent;    /* by this rank */
    double across;  /* out of this node, by all its ranks */
    double seconds; /* on the wires, */
    double exposed; /* of which the device waited */
} PlanTrafficTotal;

typedef struct {
    const Cluster *cluster; /* borrowed */
    double now;             /* seconds */
    PlanPhase phase;
    bool targets;                          /* the last operation makes targets: so do collectives now */
    const char *step, *step_end;           /* the step's arena, */
    const char *gradients, *gradients_end; /* this rank's part of the gradients, */
    const void *chunk;                     /* and what is on its way out of it */
    double work[PLAN_WORK_COUNT];
    double phases[PLAN_PHASE_COUNT], exposed[PLAN_PHASE_COUNT];
    PlanTrafficTotal traffic[PLAN_TRAFFIC_COUNT];
    double flops;              /* of products, as often as they are made */
    int64_t operations;        /* calls */
    size_t rooms, rooms_peak;  /* bytes of reduce-scatters under way */
    size_t largest_all_reduce; /* bytes */
} PlanClock;

/* A communicator's place in the cluster, and what it has under way. */
typedef struct {
    PlanClock *clock; /* borrowed */
    int size, nodes;  /* ranks, and nodes that they lie on */
    double part;      /* of a node's ranks that belong to it: others like it share the node's adapters */
    double free;      /* when the last collective is done */
    struct {
        int64_t number; /* of the start; 0: free */
        double done;
        PlanTraffic traffic;
        size_t room;
    } under_way[COMM_UNDER_WAY_MAX];
} PlanLink;

void plan_clock_init(PlanClock *clock, const Cluster *cluster);

/* Time and totals start anew; what is under way stays. */
void plan_clock_reset(PlanClock *clock);

/* `seconds` of the device's time. */
void plan_clock_spend(PlanClock *clock, PlanWork work, double seconds);

/* For device_described_open. */
DeviceListener plan_clock_device(PlanClock *clock);

/* For comm_described_create. `link` is filled in and outlives the communicator. */
CommListener plan_clock_link(PlanLink *link, PlanClock *clock, int size, int nodes, double part);

/* Seconds that a collective of `bytes` takes on a link that has nothing else to do. */
double plan_clock_collective(const PlanLink *link, CommMove move, double bytes);

#endif
