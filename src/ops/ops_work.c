/* ops_work.c - the few shapes of work. */
#include "ops/ops_work.h"

OpsWork ops_work_product(Dtype dtype, int64_t m, int64_t n, int64_t k)
{
    return (OpsWork){.flops = 2.0 * (double)m * (double)n * (double)k, .dtype = dtype};
}

OpsWork ops_work_attention(Tensor out, Tensor cu_seqlens)
{
    return (OpsWork){.dtype = out.dtype,
                     .starts = cu_seqlens,
                     .tokens = out.shape[0],
                     .per_square = 4.0 * (double)out.shape[1]};
}

OpsWork ops_work_cross_entropy(const PrototypeCrossEntropy *args)
{
    OpsWork scores = ops_work_product(args->student_v.dtype, args->student.shape[0], args->student_v.shape[0],
                                      args->student_v.shape[1]);
    return ops_work_times(tensor_given(args->d_student) ? 3 : 1, scores);
}

OpsWork ops_work_convolution(const Conv2d *conv)
{
    int64_t outputs = conv->w.shape[0];
    return ops_work_product(conv->w.dtype, tensor_count(conv->y) / outputs, outputs, conv->w.shape[1]);
}

OpsWork ops_work_times(double factor, OpsWork work)
{
    work.flops *= factor;
    work.bytes *= factor;
    work.per_square *= factor;
    return work;
}

OpsWork ops_work_moved(const Tensor *tensors, size_t count)
{
    OpsWork work = {0};
    for (size_t i = 0; i < count; i++)
        if (tensor_given(tensors[i])) work.bytes += (double)tensor_bytes(tensors[i]);
    return work;
}

OpsWork ops_work_with_rows(OpsWork work, Tensor y, int count)
{
    work.bytes += count * (double)sizeof(float) * (double)tensor_count(y);
    return work;
}

double ops_work_of_lengths(const OpsWork *work, const int32_t *starts, int64_t count)
{
    double sum = 0;
    for (int64_t s = 0; s + 1 < count; s++)
        sum += (double)(starts[s + 1] - starts[s]) * (double)(starts[s + 1] - starts[s]);
    return work->per_square * sum;
}
