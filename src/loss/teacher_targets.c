/* teacher_targets.c - the two ways to make targets. */
#include "loss/teacher_targets.h"

void teacher_targets_sinkhorn(const Ops *ops, Tensor bias, const TeacherScores *scores, double temp,
                              Comm *comm)
{
    ops->prototype_sinkhorn(ops, bias, scores->rows, scores->v, scores->scale, (float)temp,
                            SINKHORN_KNOPP_ITERATIONS, comm);
}

void teacher_targets_centering(const Ops *ops, Tensor bias, Tensor center, Tensor sum,
                               const TeacherScores *scores, Tensor row_weight, double temp, double momentum,
                               Comm *comm)
{
    ops->prototype_center(ops, sum, scores->rows, scores->v, scores->scale, row_weight);
    comm_all_reduce(comm, sum.data, tensor_count(sum), DTYPE_F32, COMM_SUM, ops->device);
    ops->center_update(ops, bias, center, sum, temp, momentum);
}
