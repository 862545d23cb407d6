/* ops.c - the backend of a device. */
#include "ops/ops_backend.h"

#include "base/check.h"

bool ops_attention_works(const Device *device, OpsAttention attention)
{
    return attention != OPS_ATTENTION_SM90 || device_kind(device) == DEVICE_CPU ||
           device_architecture(device) == 90;
}

Ops *ops_create(Device *device, const OpsLimits *limits, const OpsOptions *options)
{
    CHECK(ops_attention_works(device, options->attention));
    return device_kind(device) == DEVICE_CUDA ? ops_cuda_create(device, limits, options)
                                              : ops_cpu_create(device, limits, options);
}

size_t ops_memory(DeviceKind kind, const OpsLimits *limits, int parallel)
{
    return kind == DEVICE_CUDA ? ops_cuda_memory(limits, parallel) : ops_cpu_memory(limits, parallel);
}

void ops_destroy(Ops *ops)
{
    if (ops) ops->destroy(ops);
}

void ops_check_prototype_cross_entropy(const PrototypeCrossEntropy *a)
{
    int64_t n = a->student.shape[0], d = a->student.shape[1], K = a->student_v.shape[0];
    CHECK(a->student.ndim == 2 && a->student_v.ndim == 2 && a->student_v.shape[1] == d);
    CHECK(a->teacher.ndim == 2 && a->teacher_v.ndim == 2 && a->teacher_v.shape[0] == K &&
          a->teacher_v.shape[1] == a->teacher.shape[1]);
    CHECK(a->student_v.dtype == a->teacher_v.dtype);
    CHECK(tensor_count(a->student_scale) == K && tensor_count(a->teacher_scale) == K);
    CHECK(tensor_count(a->teacher_bias) == K && tensor_count(a->row_weight) == n);
    CHECK(a->targets.ndim == 2 && a->targets.shape[0] == n && tensor_count(a->loss) == n);
    CHECK(a->targets.shape[1] >= 1 && a->targets.shape[1] <= PROTOTYPE_MAX_TARGETS);
    CHECK(a->student_temp > 0.0f && a->teacher_temp > 0.0f);
    CHECK(tensor_given(a->d_student) == tensor_given(a->d_student_w));
    CHECK(!tensor_given(a->d_student) || tensor_count(a->d_student) == n * d);
    CHECK(!tensor_given(a->d_student_w) || tensor_count(a->d_student_w) == K * d);
    CHECK(!tensor_given(a->usage) || tensor_count(a->usage) == K);
    CHECK(tensor_count(a->entropy) == 2);
}

/* Windows along one edge of a picture. */
static int64_t windows(int64_t edge, int64_t kernel, int64_t stride, int64_t padding)
{
    CHECK(kernel >= 1 && stride >= 1 && padding >= 0 && edge + 2 * padding >= kernel);
    return (edge + 2 * padding - kernel) / stride + 1;
}

void ops_check_conv2d(const Conv2d *c)
{
    CHECK(c->x.ndim == 4 && c->y.ndim == 4 && c->w.ndim == 2 && c->y.shape[0] == c->x.shape[0]);
    CHECK(c->x.dtype == c->y.dtype && c->x.dtype == c->w.dtype);
    CHECK(c->y.shape[1] == windows(c->x.shape[1], c->kernel, c->stride, c->padding));
    CHECK(c->y.shape[2] == windows(c->x.shape[2], c->kernel, c->stride, c->padding));
    CHECK(c->w.shape[0] == c->y.shape[3] && c->w.shape[1] == c->kernel * c->kernel * c->x.shape[3]);
    CHECK(tensor_count(c->b) == c->w.shape[0] && c->b.dtype == DTYPE_F32);
}

void ops_check_max_pool(Tensor y, Tensor x, int64_t kernel, int64_t stride, int64_t padding)
{
    CHECK(x.ndim == 4 && y.ndim == 4 && y.shape[0] == x.shape[0] && y.shape[3] == x.shape[3]);
    CHECK(x.dtype == y.dtype && padding <= kernel / 2);
    CHECK(y.shape[1] == windows(x.shape[1], kernel, stride, padding));
    CHECK(y.shape[2] == windows(x.shape[2], kernel, stride, padding));
}
