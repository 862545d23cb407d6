/* ops_timed.h - a table of operations that passes every call on to another one and keeps its time and work.
 *
 *     OpsTimed timed;
 *     ops_timed_init(&timed, ops);
 *     ... &timed.ops wherever a `const Ops *` goes ...
 *     timed.totals[OPS_TIMED_gelu_forward].seconds
 *
 * Work is what the result needs, once: products count multiply and add as two, backwards of attention and of
 * the losses do not count scores that are computed again, so a rate made of it is comparable between ways to
 * compute. Operations without large products count bytes of their operands, read and written. One caller at a
 * time, as with any Ops.
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
    Ops ops;               /* first: the wrappers find the rest from it */
    const Ops *inner;      /* borrowed */
    OpsTimedTotal *totals; /* [OPS_TIMED_COUNT] owned */
} OpsTimed;

/* `inner` must outlive it. Released by ops_timed_fini. */
void ops_timed_init(OpsTimed *timed, const Ops *inner);
void ops_timed_fini(OpsTimed *timed);

/* Forgets all calls so far. */
void ops_timed_reset(OpsTimed *timed);

/* "linear_forward", .. */
const char *ops_timed_name(int operation);

#endif
