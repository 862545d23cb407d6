/* job_extract_request.c - see job_extract_request.h. */
#include "job_extract_request.h"

#include "data/data_spec.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char SSCD_PREFIX[] = "sscd:";

enum { SIDE_MOST = 32768, NATIVE_PATCHES = 4096, NATIVE_PATCHES_MOST = 65536 };

static Status parse_output(const char *text, ExtractRequest *request, Error *error)
{
    if (!text) return status_fail(error, STATUS_INPUT, "extract needs --output-dir DIR or FILE.h5");
    size_t length = strlen(text);
    bool is_file = length > 3 && strcmp(text + length - 3, ".h5") == 0;
    if (length + sizeof "/features.h5" > sizeof request->output)
        return status_fail(error, STATUS_INPUT, "--output-dir: the path is too long");
    snprintf(request->output, sizeof request->output, "%s%s", text, is_file ? "" : "/features.h5");
    return STATUS_OK;
}

static ExtractSubject subject_of(const char *model)
{
    if (strncmp(model, SSCD_PREFIX, sizeof SSCD_PREFIX - 1) == 0) return EXTRACT_SSCD;
    if (strcmp(model, "untrained") == 0) return EXTRACT_UNTRAINED;
    return strcmp(model, "raw-pixels") == 0 ? EXTRACT_PIXELS : EXTRACT_CHECKPOINT;
}

static bool is_transformer(const ExtractRequest *request)
{
    return request->subject == EXTRACT_CHECKPOINT || request->subject == EXTRACT_UNTRAINED;
}

/* --layer, and what a row is without it. */
static Status parse_layer(const char *layer, ExtractRequest *request, Error *error)
{
    FeatureExtractor row = {.kind = request->subject == EXTRACT_SSCD     ? FEATURE_EMBEDDING
                                    : request->subject == EXTRACT_PIXELS ? FEATURE_RAW_PIXELS
                                                                         : FEATURE_CLASS_TOKEN};
    if (layer && feature_extractor_parse_layer(&row, layer, error) != STATUS_OK)
        return status_prefix(error, STATUS_INPUT, "--layer");
    request->kind = row.kind;
    request->grid = row.grid;
    request->patches = row.patches;
    feature_extractor_layer(&row, request->layer);
    return STATUS_OK;
}

/* --which and --layer, which are about vision transformers. */
static Status parse_kind(const Options *options, ExtractRequest *request, Error *error)
{
    const char *which = options_get(options, "which"), *layer = options_get(options, "layer");
    if (layer && !is_transformer(request))
        return status_fail(error, STATUS_INPUT, "--layer is not for --model %s", request->model);
    if (which && request->subject != EXTRACT_CHECKPOINT)
        return status_fail(error, STATUS_INPUT, "--which is not for --model %s", request->model);
    TRY(eval_model_role(&request->role, which, error));
    return parse_layer(layer, request, error);
}

static Status parse_resize(const Options *options, ExtractRequest *request, Error *error)
{
    static const char *const names[] = {
        [EVAL_CENTRE] = "centre", [EVAL_SQUARE] = "square", [EVAL_SHORTER] = "shorter"};
    bool is_sscd = request->subject == EXTRACT_SSCD;
    EvalTransform wrong = is_sscd ? EVAL_CENTRE : EVAL_SHORTER;
    const char *resize = options_get(options, "resize");
    request->transform = is_sscd ? EVAL_SQUARE : EVAL_CENTRE;
    if (!resize) return STATUS_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        request->transform = (EvalTransform)i;
        if (strcmp(resize, names[i]) == 0 && request->transform != wrong) return STATUS_OK;
    }
    return status_fail(error, STATUS_INPUT, "--resize %s: expected square or %s with this model", resize,
                       is_sscd ? "shorter" : "centre");
}

/* "224x308" */
static bool parse_sides(const char *text, EvalSize *size)
{
    const char *cross = strchr(text, 'x');
    if (!cross) return false;
    size->height = data_spec_number(text, (size_t)(cross - text));
    size->width = data_spec_number(cross + 1, strlen(cross + 1));
    return size->height >= 1 && size->width >= 1 && size->height <= SIDE_MOST && size->width <= SIDE_MOST;
}

static Status parse_size(const Options *options, ExtractRequest *request, Error *error)
{
    static const char NATIVE[] = "native";
    const char *text = options_get(options, "size");
    if (!text) return STATUS_OK;
    if (!is_transformer(request))
        return status_fail(error, STATUS_INPUT, "--size is not for --model %s", request->model);
    if (options_get(options, "resize"))
        return status_fail(error, STATUS_INPUT,
                           "--size takes all of a picture, and --resize says so otherwise");
    if (strncmp(text, NATIVE, sizeof NATIVE - 1) == 0) {
        const char *most = text + sizeof NATIVE - 1;
        request->transform = EVAL_NATIVE;
        request->most_patches = NATIVE_PATCHES;
        if (*most) request->most_patches = *most == ':' ? data_spec_number(most + 1, strlen(most + 1)) : 0;
        snprintf(request->size_text, sizeof request->size_text, "native:%lld",
                 (long long)request->most_patches);
        if (request->most_patches >= 1 && request->most_patches <= NATIVE_PATCHES_MOST) return STATUS_OK;
    } else if (parse_sides(text, &request->size)) {
        request->transform = EVAL_WHOLE;
        snprintf(request->size_text, sizeof request->size_text, "%lldx%lld", (long long)request->size.height,
                 (long long)request->size.width);
        return STATUS_OK;
    }
    return status_fail(
        error, STATUS_INPUT,
        "--size %s: expected HEIGHTxWIDTH in pixels up to %d, native or native:PATCHES up to %d", text,
        SIDE_MOST, NATIVE_PATCHES_MOST);
}

static Status parse_dtype(const Options *options, ExtractRequest *request, Error *error)
{
    const char *text = options_get(options, "dtype");
    request->half = text && strcmp(text, "float16") == 0;
    if (!text || request->half || strcmp(text, "float32") == 0) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "--dtype %s: expected float32 or float16", text);
}

static Status parse_ridge(const Options *options, ExtractRequest *request, Error *error)
{
    const char *text = options_get(options, "whiten-ridge");
    request->whitening.ridge = WHITENING_RIDGE;
    if (!text) return STATUS_OK;
    if (request->whitening.kind != WHITENING_FULL)
        return status_fail(error, STATUS_INPUT, "--whiten-ridge is for --whiten");
    char *end;
    request->whitening.ridge = strtod(text, &end);
    if (end != text && !*end && request->whitening.ridge > 0 && isfinite(request->whitening.ridge))
        return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "--whiten-ridge %s: expected a number above 0", text);
}

static Status parse_dims(const Options *options, ExtractRequest *request, Error *error)
{
    const char *text = options_get(options, "whiten-dims");
    if (!text) return STATUS_OK;
    if (request->whitening.kind != WHITENING_FULL)
        return status_fail(error, STATUS_INPUT, "--whiten-dims is for --whiten");
    request->whitening.dims = data_spec_number(text, strlen(text));
    if (request->whitening.dims >= 1) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "--whiten-dims %s: expected a number from 1", text);
}

/* --center and --whiten, with what is about them. */
static Status parse_whitening(const Options *options, ExtractRequest *request, Error *error)
{
    const char *center = options_get(options, "center"), *whiten = options_get(options, "whiten");
    if (center && whiten) return status_fail(error, STATUS_INPUT, "--center and --whiten: choose one");
    if ((center || whiten) && request->patches)
        return status_fail(error, STATUS_INPUT, "--%s is for rows, not for patch tokens",
                           whiten ? "whiten" : "center");
    request->whitening.kind = whiten ? WHITENING_FULL : center ? WHITENING_CENTER : WHITENING_NONE;
    request->whitening_file = whiten ? whiten : center;
    TRY(parse_ridge(options, request, error));
    return parse_dims(options, request, error);
}

Status job_extract_request_parse(ExtractRequest *request, const Options *options, Error *error)
{
    *request = (ExtractRequest){.model = options_get(options, "model"), .data = options_get(options, "data")};
    if (!request->model)
        return status_fail(error, STATUS_INPUT,
                           "extract needs --model PATH, sscd:FILE, untrained or raw-pixels");
    if (!request->data) return status_fail(error, STATUS_INPUT, "extract needs --data SPEC");
    request->subject = subject_of(request->model);
    TRY(parse_kind(options, request, error));
    TRY(parse_resize(options, request, error));
    if (request->subject == EXTRACT_SSCD) request->model += sizeof SSCD_PREFIX - 1;
    TRY(parse_size(options, request, error));
    TRY(parse_dtype(options, request, error));
    TRY(parse_whitening(options, request, error));
    request->upside_down = options_get(options, "upside-down") != NULL;
    const char *views = options_get(options, "views");
    request->views = image_views_whole();
    if (views && image_views_parse(&request->views, views, error) != STATUS_OK)
        return status_prefix(error, STATUS_INPUT, "--views");
    return parse_output(options->output_dir, request, error);
}
