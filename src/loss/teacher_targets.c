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
    int64_t K = center.shape[0];
    float *b = tensor_f32(bias), *c = tensor_f32(center), *s = tensor_f32(sum);
    ops->prototype_center(ops, sum, scores->rows, scores->v, scores->scale, row_weight);
    comm_all_reduce(comm, s, K, DTYPE_F32, COMM_SUM, NULL);
    for (int64_t k = 0; k < K; k++) {
        b[k] = (float)(-(double)c[k] / temp);
        c[k] = (float)((double)c[k] * momentum + (double)s[k] * (1.0 - momentum));
    }
}
