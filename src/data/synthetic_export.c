/* synthetic_export.c - files from drawings. */
#include "data/synthetic_export.h"

#include "base/memory.h"
#include "data/image_encode.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { PATH_BYTES = 4096, NAME_BYTES = 64 };

static Status make_folder(const char *path, Error *error)
{
    if (mkdir(path, 0777) == 0 || errno == EEXIST) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "%s: %s", path, strerror(errno));
}

static Status make_folders(const SyntheticExportParams *params, Error *error)
{
    if (strlen(params->folder) + 2 * NAME_BYTES > PATH_BYTES)
        return status_fail(error, STATUS_INPUT, "%s: path is too long", params->folder);
    for (int masks = 0; masks <= (params->masks ? 1 : 0); masks++) {
        char path[PATH_BYTES], name[NAME_BYTES];
        snprintf(path, sizeof path, "%s/%s", params->folder, masks ? "masks" : "images");
        TRY(make_folder(path, error));
        for (int64_t label = 0; label < params->images.classes; label++) {
            synthetic_draw_class_name(&params->images, label, name, sizeof name);
            snprintf(path, sizeof path, "%s/%s/%s", params->folder, masks ? "masks" : "images", name);
            TRY(make_folder(path, error));
        }
    }
    return STATUS_OK;
}

static Status write_file(const char *path, const DataBuffer *bytes, Error *error)
{
    FILE *file = fopen(path, "wb");
    bool written = file && fwrite(bytes->bytes, 1, bytes->size, file) == bytes->size;
    if (file && fclose(file) != 0) written = false;
    if (!written) return status_fail(error, STATUS_FAILED, "%s: %s", path, strerror(errno));
    return STATUS_OK;
}

/* "CLASS/00000000.png" of an image or mask: the key of the image when its folder is read as a data set. */
static void key_of(const SyntheticExportParams *params, int64_t index, bool mask, char *key, size_t size)
{
    char name[NAME_BYTES];
    synthetic_draw_class_name(&params->images, synthetic_draw_label(&params->images, index), name,
                              sizeof name);
    snprintf(key, size, "%s/%08lld.%s", name, (long long)index,
             mask || !params->jpeg_quality ? "png" : "jpg");
}

static Status write_one(const SyntheticExportParams *params, int64_t index, bool mask,
                        const DataBuffer *bytes, Error *error)
{
    char key[2 * NAME_BYTES], path[PATH_BYTES + 3 * NAME_BYTES];
    key_of(params, index, mask, key, sizeof key);
    snprintf(path, sizeof path, "%s/%s/%s", params->folder, mask ? "masks" : "images", key);
    return write_file(path, bytes, error);
}

Status synthetic_export_mask(const SyntheticParams *images, int64_t index, DataBuffer *buffer, Error *error)
{
    uint8_t *mask = memory_alloc((size_t)(images->size * images->size));
    synthetic_draw_mask(images, index, mask);
    Status status = image_encode_png(buffer, mask, images->size, images->size, 1, error);
    memory_free(mask);
    return status;
}

static Status export_one(const SyntheticExportParams *params, int64_t index, Image *image, DataBuffer *bytes,
                         Error *error)
{
    SyntheticParams images = params->images;
    synthetic_draw_image(&images, index, image);
    if (params->jpeg_quality)
        TRY(image_encode_jpeg(bytes, image->rgb, image->width, image->height, params->jpeg_quality, error));
    else
        TRY(image_encode_png(bytes, image->rgb, image->width, image->height, 3, error));
    TRY(write_one(params, index, false, bytes, error));
    if (!params->masks) return STATUS_OK;
    TRY(synthetic_export_mask(&images, index, bytes, error));
    return write_one(params, index, true, bytes, error);
}

static Status export_share(const SyntheticExportParams *params, int64_t first, int64_t step, Error *error)
{
    Status failed = STATUS_OK;
#pragma omp parallel
    {
        Image image = {0};
        DataBuffer bytes = {0};
#pragma omp for schedule(dynamic, 4)
        for (int64_t i = first; i < params->images.count; i += step) {
            Error reason = {0};
            Status status = export_one(params, i, &image, &bytes, &reason);
            if (status == STATUS_OK) continue;
#pragma omp critical(synthetic_export_failure)
            failed = status_fail(error, status, "%s", reason.text);
        }
        image_destroy(&image);
        data_buffer_destroy(&bytes);
    }
    return failed;
}

Status synthetic_export_images(const SyntheticExportParams *params, Comm *comm, Error *error)
{
    TRY(comm_agree(comm, comm_rank(comm) == 0 ? make_folders(params, error) : STATUS_OK, error));
    return comm_agree(comm, export_share(params, comm_rank(comm), comm_size(comm), error), error);
}

static void write_labels(const SyntheticExportParams *params, FILE *file)
{
    fprintf(file, "index,key,label,class\n");
    for (int64_t i = 0; i < params->images.count; i++) {
        char key[2 * NAME_BYTES], name[NAME_BYTES];
        int64_t label = synthetic_draw_label(&params->images, i);
        key_of(params, i, false, key, sizeof key);
        synthetic_draw_class_name(&params->images, label, name, sizeof name);
        fprintf(file, "%lld,%s,%lld,%s\n", (long long)i, key, (long long)label, name);
    }
}

static void write_duplicates(const SyntheticExportParams *params, FILE *file)
{
    fprintf(file, "index,source,left,top,extent,mirrored,brightness,contrast\n");
    for (int64_t i = 0; i < params->images.count; i++) {
        SyntheticView view = synthetic_draw_view(&params->images, i);
        if (view.source == i) continue;
        fprintf(file, "%lld,%lld,%.4f,%.4f,%.4f,%d,%.4f,%.4f\n", (long long)i, (long long)view.source,
                (double)view.left, (double)view.top, (double)view.extent, view.mirrored,
                (double)view.brightness, (double)view.contrast);
    }
}

static Status write_csv(const SyntheticExportParams *params, const char *name,
                        void (*write)(const SyntheticExportParams *, FILE *), Error *error)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", params->folder, name);
    FILE *file = fopen(path, "w");
    if (!file) return status_fail(error, STATUS_FAILED, "%s: %s", path, strerror(errno));
    write(params, file);
    bool failed = ferror(file) != 0;
    if (fclose(file) != 0 || failed)
        return status_fail(error, STATUS_FAILED, "%s: %s", path, strerror(errno));
    return STATUS_OK;
}

Status synthetic_export_truth(const SyntheticExportParams *params, Error *error)
{
    TRY(write_csv(params, "labels.csv", write_labels, error));
    return write_csv(params, "duplicates.csv", write_duplicates, error);
}
