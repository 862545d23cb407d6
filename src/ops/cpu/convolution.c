/* convolution.c - oneDNN convolution primitives, cached by shape.
 *
 * Source: oneDNN 2.x C API (dnnl_convolution_forward_desc_init). Pictures keep their [n, h, w, C]; the
 * library chooses the order of weights.
 */
#include "ops/cpu/convolution.h"

#include "base/check.h"
#include "base/memory.h"

#include <dnnl.h>
#include <omp.h>
#include <string.h>

typedef struct {
    int64_t n, h, w, channels, outputs, kernel, stride, padding;
    int64_t flags; /* bf16, accumulate, relu: one bit each */
} ConvolutionKey;

typedef struct {
    ConvolutionKey key;
    uint64_t last_use; /* 0: the entry is empty */
    dnnl_primitive_t primitive;
    dnnl_primitive_t reorder;             /* of weights */
    dnnl_memory_t x, weights, ours, b, y; /* without data: each call sets its own */
} ConvolutionEntry;

/* The sizes of ten pictures of other shapes; a primitive takes a millisecond and 100 kB. */
enum { CONVOLUTION_ENTRIES = 256 };

struct Convolutions {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    int threads;
    uint64_t clock;
    void *weights; /* in the library's order; of one call */
    size_t weights_bytes;
    ConvolutionEntry entries[CONVOLUTION_ENTRIES];
};

/* A failure of the library on shapes that we made is our bug. */
static void require(dnnl_status_t status)
{
    CHECK(status == dnnl_success);
}

Convolutions *convolution_create(int threads)
{
    Convolutions *convolutions = memory_alloc(sizeof *convolutions);
    convolutions->threads = threads;
    require(dnnl_engine_create(&convolutions->engine, dnnl_cpu, 0));
    require(dnnl_stream_create(&convolutions->stream, convolutions->engine, dnnl_stream_default_flags));
    return convolutions;
}

static void entry_clear(ConvolutionEntry *entry)
{
    if (entry->last_use == 0) return;
    require(dnnl_primitive_destroy(entry->primitive));
    require(dnnl_primitive_destroy(entry->reorder));
    dnnl_memory_t memories[] = {entry->x, entry->weights, entry->ours, entry->b, entry->y};
    for (size_t i = 0; i < sizeof memories / sizeof *memories; i++)
        require(dnnl_memory_destroy(memories[i]));
    *entry = (ConvolutionEntry){0};
}

void convolution_destroy(Convolutions *convolutions)
{
    for (int i = 0; i < CONVOLUTION_ENTRIES; i++)
        entry_clear(&convolutions->entries[i]);
    require(dnnl_stream_destroy(convolutions->stream));
    require(dnnl_engine_destroy(convolutions->engine));
    memory_free(convolutions->weights);
    memory_free(convolutions);
}

static dnnl_memory_t memory_of(const Convolutions *convolutions, const dnnl_memory_desc_t *desc)
{
    dnnl_memory_t memory;
    require(dnnl_memory_create(&memory, desc, convolutions->engine, DNNL_MEMORY_NONE));
    return memory;
}

/* [n, h, w, C] in the library's words. */
static dnnl_memory_desc_t describe_pictures(Tensor t, dnnl_data_type_t type)
{
    dnnl_memory_desc_t desc;
    dnnl_dims_t dims = {t.shape[0], t.shape[3], t.shape[1], t.shape[2]};
    require(dnnl_memory_desc_init_by_tag(&desc, 4, dims, type, dnnl_nhwc));
    return desc;
}

static dnnl_memory_desc_t describe_weights(const Conv2d *conv, dnnl_data_type_t type, dnnl_format_tag_t tag)
{
    dnnl_memory_desc_t desc;
    dnnl_dims_t dims = {conv->w.shape[0], conv->x.shape[3], conv->kernel, conv->kernel};
    require(dnnl_memory_desc_init_by_tag(&desc, 4, dims, type, tag));
    return desc;
}

/* What follows the sum of products: accumulate, then relu. */
static dnnl_primitive_attr_t attributes_of(const Conv2d *conv)
{
    dnnl_post_ops_t post_ops;
    dnnl_primitive_attr_t attributes;
    require(dnnl_post_ops_create(&post_ops));
    require(dnnl_primitive_attr_create(&attributes));
    if (conv->accumulate) require(dnnl_post_ops_append_sum(post_ops, 1.0f));
    if (conv->relu) require(dnnl_post_ops_append_eltwise(post_ops, 1.0f, dnnl_eltwise_relu, 0.0f, 0.0f));
    require(dnnl_primitive_attr_set_post_ops(attributes, post_ops));
    require(dnnl_post_ops_destroy(post_ops));
    return attributes;
}

static dnnl_primitive_t reorder_make(const Convolutions *convolutions, const dnnl_memory_desc_t *from,
                                     const dnnl_memory_desc_t *to)
{
    dnnl_primitive_desc_t described;
    dnnl_primitive_t primitive;
    require(dnnl_reorder_primitive_desc_create(&described, from, convolutions->engine, to,
                                               convolutions->engine, NULL));
    require(dnnl_primitive_create(&primitive, described));
    require(dnnl_primitive_desc_destroy(described));
    return primitive;
}

static void entry_make(Convolutions *convolutions, ConvolutionEntry *entry, const Conv2d *conv)
{
    dnnl_data_type_t type = conv->x.dtype == DTYPE_BF16 ? dnnl_bf16 : dnnl_f32;
    dnnl_memory_desc_t x = describe_pictures(conv->x, type), y = describe_pictures(conv->y, type);
    dnnl_memory_desc_t ours = describe_weights(conv, type, dnnl_ohwi);
    dnnl_memory_desc_t any = describe_weights(conv, type, dnnl_format_tag_any), b;
    require(dnnl_memory_desc_init_by_tag(&b, 1, (dnnl_dims_t){conv->w.shape[0]}, dnnl_f32, dnnl_a));

    dnnl_convolution_desc_t convolution;
    dnnl_dims_t strides = {conv->stride, conv->stride}, padding = {conv->padding, conv->padding};
    require(dnnl_convolution_forward_desc_init(&convolution, dnnl_forward_inference, dnnl_convolution_direct,
                                               &x, &any, &b, &y, strides, padding, padding));
    dnnl_primitive_attr_t attributes = attributes_of(conv);
    dnnl_primitive_desc_t described;
    require(dnnl_primitive_desc_create(&described, &convolution, attributes, convolutions->engine, NULL));
    require(dnnl_primitive_create(&entry->primitive, described));
    const dnnl_memory_desc_t *theirs = dnnl_primitive_desc_query_md(described, dnnl_query_weights_md, 0);
    entry->reorder = reorder_make(convolutions, &ours, theirs);
    entry->x = memory_of(convolutions, &x);
    entry->y = memory_of(convolutions, &y);
    entry->b = memory_of(convolutions, &b);
    entry->ours = memory_of(convolutions, &ours);
    entry->weights = memory_of(convolutions, theirs);
    size_t bytes = dnnl_memory_desc_get_size(theirs);
    if (bytes > convolutions->weights_bytes) {
        memory_free(convolutions->weights);
        convolutions->weights = memory_alloc(bytes);
        convolutions->weights_bytes = bytes;
    }
    require(dnnl_primitive_desc_destroy(described));
    require(dnnl_primitive_attr_destroy(attributes));
}

static ConvolutionKey key_of(const Conv2d *c)
{
    return (ConvolutionKey){.n = c->x.shape[0],
                            .h = c->x.shape[1],
                            .w = c->x.shape[2],
                            .channels = c->x.shape[3],
                            .outputs = c->y.shape[3],
                            .kernel = c->kernel,
                            .stride = c->stride,
                            .padding = c->padding,
                            .flags = (c->x.dtype == DTYPE_BF16) | c->accumulate << 1 | c->relu << 2};
}

/* The entry of this shape, made where it is missing in place of the one unused for longest. */
static ConvolutionEntry *entry_find(Convolutions *convolutions, const Conv2d *conv)
{
    ConvolutionKey key = key_of(conv);
    ConvolutionEntry *oldest = &convolutions->entries[0];
    convolutions->clock++;
    for (int i = 0; i < CONVOLUTION_ENTRIES; i++) {
        ConvolutionEntry *entry = &convolutions->entries[i];
        if (entry->last_use && memcmp(&entry->key, &key, sizeof key) == 0) {
            entry->last_use = convolutions->clock;
            return entry;
        }
        if (entry->last_use < oldest->last_use) oldest = entry;
    }
    entry_clear(oldest);
    entry_make(convolutions, oldest, conv);
    oldest->key = key;
    oldest->last_use = convolutions->clock;
    return oldest;
}

void convolution_run(Convolutions *convolutions, const Conv2d *conv)
{
    /* The OpenMP setting belongs to the calling thread, which need not be the one that made this. */
    if (omp_get_max_threads() != convolutions->threads) omp_set_num_threads(convolutions->threads);
    ConvolutionEntry *entry = entry_find(convolutions, conv);
    require(dnnl_memory_set_data_handle(entry->ours, conv->w.data));
    require(dnnl_memory_set_data_handle(entry->weights, convolutions->weights));
    require(dnnl_memory_set_data_handle(entry->x, conv->x.data));
    require(dnnl_memory_set_data_handle(entry->b, conv->b.data));
    require(dnnl_memory_set_data_handle(entry->y, conv->y.data));
    dnnl_exec_arg_t weights[] = {{DNNL_ARG_FROM, entry->ours}, {DNNL_ARG_TO, entry->weights}};
    require(dnnl_primitive_execute(entry->reorder, convolutions->stream, 2, weights));
    dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, entry->x},
                                   {DNNL_ARG_WEIGHTS, entry->weights},
                                   {DNNL_ARG_BIAS, entry->b},
                                   {DNNL_ARG_DST, entry->y}};
    require(dnnl_primitive_execute(entry->primitive, convolutions->stream, 4, arguments));
}
