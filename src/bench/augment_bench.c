/* augment_bench.c - one repetition goes through all pictures. */
#include "bench/augment_bench.h"

#include "base/memory.h"
#include "data/augment_part.h"

enum { LARGE_WIDTH = 1000, LARGE_HEIGHT = 750 };

typedef struct {
    const BenchPictures *pictures;
    const AugmentParams *augment;
    Image decoded[BENCH_PICTURES_MAX]; /* owned */
    Image image;                       /* of the picture under way; owned */
    AugmentScratch *scratch;           /* owned */
    uint8_t *global, *local;           /* crops; owned */
    uint64_t draws;                    /* so that each repetition draws other crops */
} AugmentBench;

static void decode(void *context)
{
    AugmentBench *bench = context;
    for (int i = 0; i < bench->pictures->count; i++) {
        const DataBuffer *item = &bench->pictures->items[i];
        image_decode(&bench->image, item->bytes, item->size, NULL);
    }
}

static void crop(void *context)
{
    AugmentBench *bench = context;
    for (int i = 0; i < bench->pictures->count; i++)
        augment_sample(bench->augment, &bench->decoded[i], rng_at(0, RNG_BENCH, 1, bench->draws++),
                       bench->global, bench->local, bench->scratch);
}

/* As the loader does it. */
static void decode_and_crop(AugmentBench *bench, ImageChoosePart *choose)
{
    for (int i = 0; i < bench->pictures->count; i++) {
        const DataBuffer *item = &bench->pictures->items[i];
        AugmentPart plan = augment_part_of(bench->augment, rng_at(0, RNG_BENCH, 1, bench->draws++));
        ImagePart part;
        image_decode_part(&bench->image, &part, choose, &plan, item->bytes, item->size, NULL);
        augment_load_part(bench->scratch, &bench->image, &part);
        augment_crops(bench->augment, plan.draws, bench->global, bench->local, bench->scratch);
    }
}

static void decode_and_crop_exact(void *context)
{
    decode_and_crop(context, augment_part_choose_all);
}

static void decode_and_crop_scaled(void *context)
{
    decode_and_crop(context, augment_part_choose);
}

/* Every picture once, so that the loops above need no error. */
static Status decode_all(AugmentBench *bench, Error *error)
{
    for (int i = 0; i < bench->pictures->count; i++) {
        const DataBuffer *item = &bench->pictures->items[i];
        Status status = image_decode(&bench->decoded[i], item->bytes, item->size, error);
        if (status != STATUS_OK)
            return status_prefix(error, status, "%s: picture %d", bench->pictures->source, i);
    }
    return STATUS_OK;
}

/* A sample from its bytes, in both modes of data.decode. */
static void measure_whole(AugmentBench *bench, BenchRows *rows, double seconds)
{
    static const struct {
        const char *mode;
        void (*work)(void *context);
    } modes[] = {{"exact", decode_and_crop_exact}, {"scaled", decode_and_crop_scaled}};
    const AugmentParams *a = bench->augment;
    double images = bench->pictures->count;
    for (int m = 0; m < 2; m++) {
        BenchTask task = {.context = bench, .work = modes[m].work};
        bench->draws = 0; /* the same crops in both */
        bench_rows_add(rows, "augmentation", BENCH_IMAGES, images, bench_timer_run(&task, seconds, 2),
                       "%s decode, 2 x %lld + %lld x %lld px of %.2f Mpx", modes[m].mode,
                       (long long)a->global[0].size, (long long)a->local_count, (long long)a->local.size,
                       bench->pictures->pixels / images / 1e6);
    }
}

/* The same on pictures where scaling has something to save. */
static Status measure_large(AugmentBench *bench, BenchRows *rows, double seconds, Error *error)
{
    BenchPictures large;
    const BenchPictures *given = bench->pictures;
    Status status = bench_pictures_draw(&large, LARGE_WIDTH, LARGE_HEIGHT, error);
    bench->pictures = &large;
    if (status == STATUS_OK) measure_whole(bench, rows, seconds);
    bench->pictures = given;
    bench_pictures_fini(&large);
    return status;
}

static void measure(AugmentBench *bench, BenchRows *rows, bool crops, double seconds)
{
    const BenchPictures *pictures = bench->pictures;
    double images = pictures->count;
    BenchTask task = {.context = bench, .work = decode};
    bench_rows_add(rows, "limits", BENCH_IMAGES, images, bench_timer_run(&task, seconds, 2),
                   "decode, 1 thread, %.2f Mpx and %.0f kB each", pictures->pixels / images / 1e6,
                   pictures->bytes / images / 1e3);
    if (!crops) return;
    const AugmentParams *a = bench->augment;
    task.work = crop;
    bench_rows_add(rows, "augmentation", BENCH_IMAGES, images, bench_timer_run(&task, seconds, 2),
                   "2 x %lld + %lld x %lld px of a decoded one", (long long)a->global[0].size,
                   (long long)a->local_count, (long long)a->local.size);
    measure_whole(bench, rows, seconds);
}

Status augment_bench_run(BenchRows *rows, const BenchPictures *pictures, const AugmentParams *augment,
                         bool crops, double seconds, Error *error)
{
    AugmentBench *bench = memory_alloc(sizeof *bench);
    size_t global = 3 * (size_t)(augment->global[0].size * augment->global[0].size);
    size_t local = 3 * (size_t)(augment->local.size * augment->local.size);
    *bench = (AugmentBench){.pictures = pictures, .augment = augment, .scratch = augment_scratch_create()};
    bench->global = memory_alloc(AUGMENT_GLOBAL_CROPS * global);
    bench->local = memory_alloc((size_t)augment->local_count * local);
    Status status = decode_all(bench, error);
    if (status == STATUS_OK) measure(bench, rows, crops, seconds);
    if (status == STATUS_OK && crops) status = measure_large(bench, rows, seconds, error);
    for (int i = 0; i < BENCH_PICTURES_MAX; i++)
        image_destroy(&bench->decoded[i]);
    image_destroy(&bench->image);
    augment_scratch_destroy(bench->scratch);
    memory_free(bench->global);
    memory_free(bench->local);
    memory_free(bench);
    return status;
}
