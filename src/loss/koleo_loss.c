/* koleo_loss.c - which rows repel each other. */
#include "loss/koleo_loss.h"

static int64_t rows_at_once(const KoleoLoss *loss)
{
    return loss->global_scope ? loss->total_groups * loss->group_size : loss->group_size;
}

/* Row 2 s + crop of every sample of all ranks, in rank order; the padding of ranks with fewer groups is
 * passed over. Returns the place of this rank's first sample. */
static int64_t index_all_samples(const KoleoLoss *loss, const Comm *comm, int crop, int32_t *index)
{
    int ranks = comm_size(comm);
    int64_t at = 0, mine = 0, samples_padded = loss->most_groups * loss->group_size;
    for (int rank = 0; rank < ranks; rank++) {
        bool long_run = rank < loss->total_groups % ranks;
        int64_t samples = (loss->total_groups / ranks + long_run) * loss->group_size;
        if (rank == comm_rank(comm)) mine = at;
        for (int64_t i = 0; i < samples; i++)
            index[at++] = (int32_t)(2 * (rank * samples_padded + i) + crop);
    }
    return mine;
}

KoleoLossScratch koleo_loss_scratch(const KoleoLoss *loss, Arena *arena, const Comm *comm)
{
    KoleoLossScratch s = {0};
    int64_t n = rows_at_once(loss), samples = loss->groups * loss->group_size;
    s.rows = tensor_alloc_2d(arena, DTYPE_F32, n, loss->embed_dim);
    s.d_rows = tensor_alloc_2d(arena, DTYPE_F32, n, loss->embed_dim);
    s.nearest = tensor_alloc_1d(arena, DTYPE_I32, n);
    for (int crop = 0; crop < 2; crop++) {
        int32_t *own, *all;
        s.own[crop] = tensor_stage_1d(arena, DTYPE_I32, samples, &own);
        for (int64_t i = 0; i < samples && own; i++)
            own[i] = (int32_t)(2 * i + crop);
        if (!loss->global_scope) continue;
        s.all[crop] = tensor_stage_1d(arena, DTYPE_I32, n, &all);
        if (all) s.first_own = index_all_samples(loss, comm, crop, all);
    }
    if (loss->global_scope)
        s.gathered = tensor_alloc_2d(
            arena, DTYPE_F32, comm_size(comm) * loss->most_groups * loss->group_size * 2, loss->embed_dim);
    return s;
}

static void group_scope(const KoleoLoss *loss, const Ops *ops, const KoleoLossTensors *t,
                        const KoleoLossScratch *s)
{
    int64_t B = loss->group_size;
    double weight = loss->loss_weight / (double)loss->total_groups;
    for (int64_t group = 0; group < loss->groups; group++) {
        for (int crop = 0; crop < 2; crop++) {
            Tensor index = tensor_rows(s->own[crop], group * B, B);
            ops->gather_rows(ops, s->rows, t->cls, index);
            ops->koleo(ops, tensor_rows(t->by_group, loss->first_group + group, 1), s->nearest, s->d_rows,
                       s->rows, weight, t->loss_scale);
            ops->scatter_add_rows(ops, t->d_cls, s->d_rows, index);
        }
    }
}

static void global_scope(const KoleoLoss *loss, const Ops *ops, const KoleoLossTensors *t,
                         const KoleoLossScratch *s, Comm *comm)
{
    int64_t padded = loss->most_groups * loss->group_size * 2, samples = loss->groups * loss->group_size;
    Tensor own = tensor_rows(s->gathered, comm_rank(comm) * padded, padded);
    ops->zero(ops, own);
    ops->gather_rows(ops, tensor_rows(own, 0, t->cls.shape[0]), t->cls, tensor_none());
    comm_all_gather(comm, s->gathered.data, own.data, padded * loss->embed_dim, DTYPE_F32, ops->device);
    for (int crop = 0; crop < 2; crop++) {
        /* Every rank makes the whole loss; it is counted once. */
        Tensor value = loss->first_group == 0 ? tensor_rows(t->by_group, 0, 1) : t->discarded;
        ops->gather_rows(ops, s->rows, s->gathered, s->all[crop]);
        ops->koleo(ops, value, s->nearest, s->d_rows, s->rows, loss->loss_weight, t->loss_scale);
        ops->scatter_add_rows(ops, t->d_cls, tensor_rows(s->d_rows, s->first_own, samples), s->own[crop]);
    }
}

void koleo_loss_forward_backward(const KoleoLoss *loss, const Ops *ops, const KoleoLossTensors *tensors,
                                 const KoleoLossScratch *scratch, Comm *comm)
{
    ops->zero(ops, tensors->d_cls);
    if (loss->global_scope)
        global_scope(loss, ops, tensors, scratch, comm);
    else
        group_scope(loss, ops, tensors, scratch);
}
