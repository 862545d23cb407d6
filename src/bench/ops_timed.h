/* ops_timed.h - a table of operations that passes every call on to another one and keeps its time and work.
 *
 *     OpsTimed timed;
 *     ops_timed_init(&timed, ops);
 *     ... &timed.ops wherever a `const Ops *` goes ...
 *     ops_timed_collect(&timed);
 *     timed.totals[OPS_TIMED_gelu_forward].seconds
 *
 * On a GPU the time is the GPU's, between events before and after each call: the host does not wait for any,
 * but the events themselves take a microsecond or two.
 *
 * Work is that of ops_work.h. One caller at a time, as with any Ops.
 */
#ifndef DINOBATCH_BENCH_OPS_TIMED_H
#define DINOBATCH_BENCH_OPS_TIMED_H

#include "ops/ops.h"

enum {
#define OPS_TIMED_NUMBER(name, arguments) OPS_TIMED_##name,
    OPS_LIST(OPS_TIMED_NUMBER)
#undef OPS_TIMED_NUMBER
        OPS_TIMED_COUNT
};

typedef struct {
    int64_t calls;
    double seconds;
    double flops, bytes; /* one of them is 0 */
} OpsTimedTotal;

typedef struct {
    Ops ops;                     /* first: the wrappers find the rest from it */
    const Ops *inner;            /* borrowed */
    OpsTimedTotal *totals;       /* [OPS_TIMED_COUNT] owned */
    struct OpsTimedCalls *calls; /* of a GPU, since the last collect; NULL on a CPU; owned */
} OpsTimed;

/* `inner` must outlive it. Released by ops_timed_fini. */
void ops_timed_init(OpsTimed *timed, const Ops *inner);
void ops_timed_fini(OpsTimed *timed);

/* Forgets all calls so far. */
void ops_timed_reset(OpsTimed *timed);

/* Brings `totals` up to date: waits for the calls made so far. */
void ops_timed_collect(OpsTimed *timed);

/* The seconds of calls from now on are added to *seconds, too, when they are collected; NULL: to nothing. For
 * GPUs alone: on a CPU the caller has a clock. */
void ops_timed_into(OpsTimed *timed, double *seconds);

/* "linear_forward", .. */
const char *ops_timed_name(int operation);

#endif
