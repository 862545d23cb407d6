/* nn_hooks.h - where a forward or backward pass tells what it is about to touch.
 *
 * Layers do not know how parameters are distributed. Before a unit's weights are read, and after its work is
 * done, a pass calls these; a sharded run gathers the unit in `before` and frees it, or reduces its gradient,
 * in `after`.
 */
#ifndef DINOBATCH_NN_NN_HOOKS_H
#define DINOBATCH_NN_NN_HOOKS_H

typedef enum { NN_FORWARD, NN_BACKWARD } NnPhase;

/* All zero: nobody listens. `unit` is the number in the parameter table. */
typedef struct {
    void *context;
    void (*before)(void *context, int unit, NnPhase phase);
    void (*after)(void *context, int unit, NnPhase phase);
} NnHooks;

static inline void nn_hooks_before(const NnHooks *hooks, int unit, NnPhase phase)
{
    if (hooks && hooks->before) hooks->before(hooks->context, unit, phase);
}

static inline void nn_hooks_after(const NnHooks *hooks, int unit, NnPhase phase)
{
    if (hooks && hooks->after) hooks->after(hooks->context, unit, phase);
}

#endif
