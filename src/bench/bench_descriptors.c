/* bench_descriptors.c - see bench_descriptors.h. */
#include "bench/bench_descriptors.h"

#include "base/memory.h"
#include "base/rng.h"
#include "features/features_file.h"

#include <math.h>
#include <stdio.h>

enum { COPIES = 10, DRAW_CENTRE = 1000, DRAW_ROW, DRAW_COPY, DRAW_FILE }; /* the last four: random streams */

static const double SPREAD = 1.3;     /* of rows around their centre, whose own is 1 */
static const double FALL = -0.375;    /* of the spread of the i-th widest column: (1 + i)^FALL */
static const double MOST_NOISE = 1.2; /* of a copy: a cosine of 1 / sqrt(1 + 1.2^2) */

/* --- drawn rows --- */

typedef struct {
    const BenchDescriptorsParams *params;
    float *scales;  /* [d] */
    float *centres; /* [clusters, d] */
} Drawing;

static void drawing_init(Drawing *drawing, const BenchDescriptorsParams *params)
{
    int64_t d = params->d;
    *drawing = (Drawing){.params = params,
                         .scales = memory_alloc_array((size_t)d, sizeof(float)),
                         .centres = memory_alloc_array((size_t)(params->clusters * d), sizeof(float))};
    enum { PRIME = 7919 }; /* wide and narrow columns lie mixed, as in descriptors that no PCA has turned */
    for (int64_t j = 0; j < d; j++)
        drawing->scales[j] = (float)pow(1.0 + (double)(j * PRIME % d), FALL);
#pragma omp parallel for schedule(static) num_threads(params->threads)
    for (int64_t c = 0; c < params->clusters; c++) {
        Rng rng = rng_at(params->seed, RNG_BENCH, DRAW_CENTRE, (uint64_t)c);
        for (int64_t j = 0; j < d; j++)
            drawing->centres[c * d + j] = (float)rng_normal(&rng) * drawing->scales[j];
    }
}

static void drawing_fini(Drawing *drawing)
{
    memory_free(drawing->scales);
    memory_free(drawing->centres);
}

static double draw_around_centre(const Drawing *drawing, int64_t id, float *row)
{
    const BenchDescriptorsParams *params = drawing->params;
    Rng rng = rng_at(params->seed, RNG_BENCH, DRAW_ROW, (uint64_t)id);
    double uniform = rng_uniform01(&rng), squares = 0;
    const float *centre =
        drawing->centres + (int64_t)(uniform * uniform * (double)params->clusters) * params->d;
    for (int64_t j = 0; j < params->d; j++) {
        row[j] = centre[j] + (float)(SPREAD * rng_normal(&rng)) * drawing->scales[j];
        squares += (double)row[j] * (double)row[j];
    }
    return squares;
}

static void draw_row(const Drawing *drawing, int64_t id, float *row)
{
    bool copy = id % COPIES == COPIES - 1;
    double squares = draw_around_centre(drawing, copy ? id - 1 : id, row);
    if (!copy) return;
    Rng rng = rng_at(drawing->params->seed, RNG_BENCH, DRAW_COPY, (uint64_t)id);
    double noise = MOST_NOISE * rng_uniform01(&rng), scales = 0;
    for (int64_t j = 0; j < drawing->params->d; j++)
        scales += (double)drawing->scales[j] * (double)drawing->scales[j];
    noise *= sqrt(squares / scales);
    for (int64_t j = 0; j < drawing->params->d; j++)
        row[j] += (float)(noise * rng_normal(&rng)) * drawing->scales[j];
}

static void draw(BenchDescriptors *descriptors, const BenchDescriptorsParams *params)
{
    Drawing drawing;
    drawing_init(&drawing, params);
    const IndexRows *rows = &descriptors->rows;
#pragma omp parallel for schedule(static) num_threads(params->threads)
    for (int64_t i = 0; i < rows->count; i++)
        draw_row(&drawing, rows->first + i, descriptors->values + i * params->d);
    drawing_fini(&drawing);
    snprintf(descriptors->source, sizeof descriptors->source,
             "drawn, %lld clusters, one row in %d a near copy", (long long)params->clusters, COPIES);
}

/* --- rows of a file --- */

/* This rank's of the rows drawn from the file, neighbours read together. */
static Status read_rows(const FeaturesFile *file, const IndexRows *rows, uint64_t seed, float *values,
                        Error *error)
{
    int64_t *ids = memory_alloc_array((size_t)rows->total, sizeof *ids);
    index_rows_sample(ids, rows->total, file->n, seed, DRAW_FILE);
    const int64_t *mine = ids + rows->first;
    Status status = STATUS_OK;
    for (int64_t i = 0, run; i < rows->count && status == STATUS_OK; i += run) {
        for (run = 1; i + run < rows->count && mine[i + run] == mine[i] + run;)
            run++;
        status = features_file_read(file, mine[i], run, values + i * rows->d, NULL, error);
    }
    memory_free(ids);
    return status;
}

/* --- both --- */

static void place(BenchDescriptors *descriptors, int64_t total, int64_t d, Comm *comm)
{
    int64_t first = index_range_first(total, comm_rank(comm), comm_size(comm));
    int64_t count = index_range_first(total, comm_rank(comm) + 1, comm_size(comm)) - first;
    descriptors->values = memory_alloc_array((size_t)(count * d), sizeof *descriptors->values);
    descriptors->rows = index_rows_memory("descriptors", descriptors->values, count, d);
    descriptors->rows.first = first;
    descriptors->rows.total = total;
}

static Status load(BenchDescriptors *descriptors, const BenchDescriptorsParams *params, Comm *comm,
                   Error *error)
{
    FeaturesFile file;
    Status status = comm_agree(comm, features_file_open(&file, params->path, error), error);
    if (status == STATUS_OK) {
        place(descriptors, file.n < params->rows ? file.n : params->rows, file.d, comm);
        status = read_rows(&file, &descriptors->rows, params->seed, descriptors->values, error);
        snprintf(descriptors->source, sizeof descriptors->source, "of %lld rows of %s", (long long)file.n,
                 params->path);
    }
    features_file_close(&file);
    return comm_agree(comm, status, error);
}

Status bench_descriptors_init(BenchDescriptors *descriptors, const BenchDescriptorsParams *params, Comm *comm,
                              Error *error)
{
    *descriptors = (BenchDescriptors){0};
    if (params->path) return load(descriptors, params, comm, error);
    place(descriptors, params->rows, params->d, comm);
    draw(descriptors, params);
    return STATUS_OK;
}

void bench_descriptors_fini(BenchDescriptors *descriptors)
{
    memory_free(descriptors->values);
    *descriptors = (BenchDescriptors){0};
}
