/* koleo_loss.c - which rows repel each other. */
#include "loss/koleo_loss.h"

#include <string.h>

static int64_t rows_at_once(const KoleoLoss *loss)
{
    return loss->global_scope ? loss->total_groups * loss->group_size : loss->group_size;
}

KoleoLossScratch koleo_loss_scratch(const KoleoLoss *loss, Arena *arena, int ranks)
{
    KoleoLossScratch s = {0};
    int64_t n = rows_at_once(loss);
    s.rows = tensor_alloc_2d(arena, DTYPE_F32, n, loss->embed_dim);
    s.d_rows = tensor_alloc_2d(arena, DTYPE_F32, n, loss->embed_dim);
    s.index = tensor_alloc_1d(arena, DTYPE_I32, n);
    s.nearest = tensor_alloc_1d(arena, DTYPE_I32, n);
    if (loss->global_scope)
        s.gathered = tensor_alloc_2d(arena, DTYPE_F32, ranks * loss->most_groups * loss->group_size * 2,
                                     loss->embed_dim);
    return s;
}

static void group_scope(const KoleoLoss *loss, const Ops *ops, Tensor cls, Tensor d_cls, double *by_group,
                        const KoleoLossScratch *s)
{
    int64_t B = loss->group_size;
    int32_t *index = tensor_i32(s->index);
    float weight = (float)(loss->loss_weight / (double)loss->total_groups);
    for (int64_t group = 0; group < loss->groups; group++) {
        by_group[group] = 0;
        for (int crop = 0; crop < 2; crop++) {
            for (int64_t i = 0; i < B; i++)
                index[i] = (int32_t)(2 * (group * B + i) + crop);
            double value;
            ops->gather_rows(ops, s->rows, cls, s->index);
            ops->koleo(ops, &value, s->nearest, s->d_rows, s->rows, weight);
            ops->scatter_add_rows(ops, d_cls, s->d_rows, s->index);
            by_group[group] += value * loss->loss_weight / (double)loss->total_groups;
        }
    }
}

/* Row 2 s + crop of every sample of all ranks, in rank order; the padding of ranks with fewer groups is
 * passed over. */
static void index_all_samples(const KoleoLoss *loss, Comm *comm, int crop, int32_t *index)
{
    int ranks = comm_size(comm);
    int64_t at = 0, samples_padded = loss->most_groups * loss->group_size;
    for (int rank = 0; rank < ranks; rank++) {
        bool long_run = rank < loss->total_groups % ranks;
        int64_t samples = (loss->total_groups / ranks + long_run) * loss->group_size;
        for (int64_t i = 0; i < samples; i++)
            index[at++] = (int32_t)(2 * (rank * samples_padded + i) + crop);
    }
}

static void global_scope(const KoleoLoss *loss, const Ops *ops, Tensor cls, Tensor d_cls, double *by_group,
                         const KoleoLossScratch *s, Comm *comm)
{
    int64_t D = loss->embed_dim, padded = loss->most_groups * loss->group_size * 2, mine = cls.shape[0];
    int64_t first_row = comm_rank(comm) * padded;
    Tensor own = tensor_rows(s->gathered, first_row, mine);
    memset(tensor_rows(s->gathered, first_row, padded).data, 0, (size_t)(padded * D) * sizeof(float));
    memcpy(own.data, cls.data, tensor_bytes(cls));
    comm_all_gather(comm, s->gathered.data, (const float *)s->gathered.data + first_row * D, padded * D,
                    DTYPE_F32, NULL);

    int32_t *index = tensor_i32(s->index);
    double sum = 0;
    for (int crop = 0; crop < 2; crop++) {
        double value;
        index_all_samples(loss, comm, crop, index);
        ops->gather_rows(ops, s->rows, s->gathered, s->index);
        ops->koleo(ops, &value, s->nearest, s->d_rows, s->rows, (float)loss->loss_weight);
        for (int64_t i = 0; i < s->rows.shape[0]; i++)
            if (index[i] >= first_row && index[i] < first_row + mine)
                memcpy((float *)d_cls.data + (index[i] - first_row) * D,
                       (const float *)s->d_rows.data + i * D, (size_t)D * sizeof(float));
        sum += value;
    }
    for (int64_t group = 0; group < loss->groups; group++)
        by_group[group] = sum * loss->loss_weight / (double)loss->total_groups;
}

void koleo_loss_forward_backward(const KoleoLoss *loss, const Ops *ops, Tensor cls, Tensor d_cls,
                                 double *by_group, const KoleoLossScratch *scratch, Comm *comm)
{
    memset(d_cls.data, 0, tensor_bytes(d_cls));
    if (loss->global_scope)
        global_scope(loss, ops, cls, d_cls, by_group, scratch, comm);
    else
        group_scope(loss, ops, cls, d_cls, by_group, scratch);
}
