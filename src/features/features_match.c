/* features_match.c - see features_match.h. */
#include "features/features_match.h"

#include "base/memory.h"
#include "base/rng.h"

#include <string.h>

enum { DIGEST_ROWS = 16 };

/* The part of a path behind the last slash; "" for NULL. */
static const char *base_name(const char *path)
{
    const char *slash = path ? strrchr(path, '/') : NULL;
    return slash ? slash + 1 : path ? path : "";
}

static Status differ(const FeaturesFile *a, const FeaturesFile *b, const char *what, const char *of_a,
                     const char *of_b, Error *error)
{
    return status_fail(error, STATUS_INPUT, "%s and %s cannot be compared: %s '%s' and '%s'", a->file.path,
                       b->file.path, what, of_a, of_b);
}

/* "" where pictures were brought to a size by the configuration. */
static const char *size_of(const FeaturesMeta *meta)
{
    return meta->size ? meta->size : "";
}

Status features_match(const FeaturesFile *a, const FeaturesFile *b, Error *error)
{
    const FeaturesMeta *x = &a->meta, *y = &b->meta;
    if (a->d != b->d)
        return status_fail(error, STATUS_INPUT, "%s has rows of %lld numbers, %s of %lld", a->file.path,
                           (long long)a->d, b->file.path, (long long)b->d);
    if (x->input_size != y->input_size)
        return status_fail(error, STATUS_INPUT,
                           "%s and %s cannot be compared: of pictures at %lld and %lld pixels", a->file.path,
                           b->file.path, (long long)x->input_size, (long long)y->input_size);
    if (strcmp(size_of(x), size_of(y)) != 0) return differ(a, b, "size", size_of(x), size_of(y), error);
    if (strcmp(x->arch, y->arch) != 0) return differ(a, b, "arch", x->arch, y->arch, error);
    if (strcmp(x->layer, y->layer) != 0) return differ(a, b, "layer", x->layer, y->layer, error);
    if (strcmp(base_name(x->model), base_name(y->model)) != 0)
        return differ(a, b, "model", x->model, y->model, error);
    if (strcmp(base_name(x->whitening), base_name(y->whitening)) != 0)
        return differ(a, b, "whitening", base_name(x->whitening), base_name(y->whitening), error);
    return STATUS_OK;
}

/* "" where whole pictures are all there is. */
static const char *view_list(const FeaturesFile *file)
{
    return file->meta.view_list ? file->meta.view_list : "";
}

Status features_match_views(const FeaturesFile *a, const FeaturesFile *b, Error *error)
{
    if (strcmp(view_list(a), view_list(b)) == 0 && a->meta.views == b->meta.views) return STATUS_OK;
    return differ(a, b, "views", view_list(a), view_list(b), error);
}

Status features_match_upright(const FeaturesFile *a, const FeaturesFile *b, Error *error)
{
    if (a->meta.upside_down == b->meta.upside_down) return STATUS_OK;
    const FeaturesFile *turned = a->meta.upside_down ? a : b, *upright = a->meta.upside_down ? b : a;
    return status_fail(error, STATUS_INPUT, "%s is of pictures upside down, %s is not", turned->file.path,
                       upright->file.path);
}

Status features_digest(const FeaturesFile *file, uint64_t *digest, Error *error)
{
    int64_t sizes[] = {file->n, file->d, file->meta.input_size};
    uint64_t hash = rng_hash_bytes(*digest, sizes, sizeof sizes);
    hash = rng_hash_text(hash, file->meta.arch);
    if (file->meta.size) hash = rng_hash_text(hash, file->meta.size);
    hash = rng_hash_text(hash, file->meta.layer);
    hash = rng_hash_text(hash, base_name(file->meta.model));
    hash = rng_hash_text(hash, base_name(file->meta.whitening));
    hash = rng_hash_text(hash, view_list(file));
    int64_t rows = file->n < DIGEST_ROWS ? file->n : DIGEST_ROWS;
    float *values = memory_alloc_array((size_t)file->d, sizeof *values);
    char *key = memory_alloc(file->key_bytes + 1);
    Status status = STATUS_OK;
    for (int64_t i = 0; i < rows && status == STATUS_OK; i++) {
        int64_t row = rows == 1 ? 0 : i * ((file->n - 1) / (rows - 1));
        status = features_file_read(file, row, 1, values, NULL, error);
        if (status == STATUS_OK) status = features_file_read_keys(file, row, 1, key, error);
        hash = rng_hash_bytes(hash, values, (size_t)file->d * sizeof *values);
        hash = rng_hash_text(hash, key);
    }
    memory_free(key);
    memory_free(values);
    *digest = hash;
    return status;
}
