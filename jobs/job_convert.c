/* job_convert.c - weights from and to safetensors files, under the names of the reference, of Hugging Face's
 * transformers and of timm.
 *
 *   dinobatch convert FILE.safetensors|INDEX.safetensors.index.json|FOLDER CHECKPOINT.h5
 *                     [--heads N] [--image-size PIXELS] [--ssl-heads keep|drop]
 *                     [--config-file FILE] [key=value ...]
 *   dinobatch convert CHECKPOINT.h5|RUN_FOLDER FILE.safetensors [--which teacher|student]
 *                     [--names reference|huggingface|timm] [--dtype float32|float16|bfloat16]
 *                     [--image-size PIXELS] [--ssl-heads keep|drop]
 *   dinobatch convert SSCD.safetensors WEIGHTS.h5
 *
 * What comes in is a checkpoint with a teacher alone, for all that evaluates, for student.pretrained_weights
 * and, with its DINO and iBOT heads, for a distillation. Students and optimizers stay where they are.
 */
#include "base/memory.h"
#include "ckpt/descriptor_file.h"
#include "ckpt/descriptor_weights.h"
#include "ckpt/vit_weights.h"
#include "data/data_spec.h"
#include "eval/eval_model.h"
#include "job.h"
#include "job_convert_config.h"
#include "job_convert_huggingface.h"
#include "run/version.h"
#include "ssl/ssl_meta_arch.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const OptionSpec job_convert_options[] = {
    {"names", "reference|huggingface|timm",
     "names of what is written as safetensors (default: reference); those of a file that is read are found "
     "out",
     false},
    {"which", "teacher|student", "whose weights of a checkpoint (default: teacher)", false},
    {"dtype", "float32|float16|bfloat16", "of what is written as safetensors (default: float32)", false},
    {"heads", "N", "attention heads of a file that is read (default: 64 numbers a head)", false},
    {"ssl-heads", "keep|drop",
     "DINO and iBOT heads, under the reference's names (default: keep what is read as safetensors, drop what "
     "is "
     "written)",
     false},
    {"image-size", "PIXELS", "resample the position embedding to pictures of this side", false},
    {0},
};

typedef struct {
    const char *from, *to;
    bool writes_safetensors;
    VitNaming naming;
    SafetensorsType type; /* of what is written */
    CheckpointRole role;
    int64_t heads, image_size; /* 0: not given */
    bool ssl_heads;            /* are taken along where there are any */
} Request;

/* Weights with the network that they are of. */
typedef struct {
    Vit vit;
    ParamTable table;
    float *flat; /* owned */
} Network;

static bool ends_with(const char *text, const char *ending)
{
    size_t length = strlen(text), tail = strlen(ending);
    return length > tail && strcmp(text + length - tail, ending) == 0;
}

static Status parse_number(const Options *options, const char *name, int64_t *value, Error *error)
{
    const char *text = options_get(options, name);
    if (!text) return STATUS_OK;
    *value = data_spec_number(text, strlen(text));
    if (*value >= 1) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "--%s %s: expected a number from 1", name, text);
}

static Status parse_type(const char *word, SafetensorsType *type, Error *error)
{
    static const struct {
        const char *word;
        SafetensorsType type;
    } types[] = {{"float32", SAFETENSORS_F32}, {"float16", SAFETENSORS_F16}, {"bfloat16", SAFETENSORS_BF16}};
    *type = SAFETENSORS_F32;
    if (!word) return STATUS_OK;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        *type = types[i].type;
        if (strcmp(types[i].word, word) == 0) return STATUS_OK;
    }
    return status_fail(error, STATUS_INPUT, "--dtype %s: expected float32, float16 or bfloat16", word);
}

static Status parse_ssl_heads(const Options *options, Request *request, Error *error)
{
    const char *word = options_get(options, "ssl-heads");
    request->ssl_heads = word ? strcmp(word, "keep") == 0 : !request->writes_safetensors;
    if (word && !request->ssl_heads && strcmp(word, "drop") != 0)
        return status_fail(error, STATUS_INPUT, "--ssl-heads %s: expected keep or drop", word);
    if (!request->writes_safetensors || !request->ssl_heads || request->naming == VIT_NAMES_REFERENCE)
        return STATUS_OK;
    return status_fail(error, STATUS_INPUT,
                       "--ssl-heads keep: %s has no names for them, --names reference has",
                       vit_names_word(request->naming));
}

static Status parse(const Options *options, Request *request, Error *error)
{
    const char *names = options_get(options, "names"), *which = options_get(options, "which");
    const char *type = options_get(options, "dtype");
    *request = (Request){.from = options->words[0], .to = options->words[1]};
    request->writes_safetensors = ends_with(request->to, ".safetensors");
    if (!request->writes_safetensors && !ends_with(request->to, ".h5"))
        return status_fail(error, STATUS_INPUT, "%s: expected FILE.safetensors or FILE.h5 to write",
                           request->to);
    TRY(parse_number(options, "heads", &request->heads, error));
    TRY(parse_number(options, "image-size", &request->image_size, error));
    if (!request->writes_safetensors && (names || which || type))
        return status_fail(error, STATUS_INPUT, "--%s is for writing FILE.safetensors",
                           names   ? "names"
                           : which ? "which"
                                   : "dtype");
    if (request->writes_safetensors && request->heads)
        return status_fail(error, STATUS_INPUT, "--heads is for reading FILE.safetensors");
    TRY(vit_names_parse(&request->naming, names, error));
    TRY(parse_type(type, &request->type, error));
    TRY(parse_ssl_heads(options, request, error));
    return eval_model_role(&request->role, which, error);
}

/* A network's parameters, with the heads of `config` unless that is NULL; network_fini. */
static void network_build(Network *network, const VitConfig *vit, const Config *config)
{
    DinoHead dino, ibot;
    param_table_init(&network->table);
    vit_build(&network->vit, vit, &network->table);
    if (config) ssl_build_heads(config, vit->embed_dim, &dino, &ibot, &network->table);
}

static void network_fini(Network *network)
{
    if (network->vit.blocks) {
        vit_fini(&network->vit);
        param_table_fini(&network->table);
    }
    memory_free(network->flat);
    *network = (Network){0};
}

/* --- another grid --- */

static Status check_grid(const Vit *vit, int64_t image_size, Error *error)
{
    int64_t patch = vit->config.patch_size;
    if (image_size % patch == 0 && image_size / patch <= VIT_WEIGHTS_GRID_MAX) return STATUS_OK;
    return status_fail(error, STATUS_INPUT,
                       "--image-size %lld: expected a multiple of the patch size %lld, up to %lld",
                       (long long)image_size, (long long)patch, (long long)patch * VIT_WEIGHTS_GRID_MAX);
}

/* *network becomes the same one, with the heads of `config` unless that is NULL, for pictures of that side.
 */
static Status resample(Network *network, const Config *config, int64_t image_size, Error *error)
{
    Network other = {0};
    VitConfig vit = network->vit.config;
    if (image_size == vit.img_size) return STATUS_OK;
    TRY(check_grid(&network->vit, image_size, error));
    vit.img_size = image_size;
    network_build(&other, &vit, config);
    other.flat = memory_alloc_array((size_t)other.table.flat_count, sizeof *other.flat);
    Device *host = device_open_host();
    Ops *ops = ops_create(host, &(OpsLimits){.max_seqlen = VIT_WEIGHTS_GRID_MAX}, &(OpsOptions){0});
    vit_weights_resample(&network->vit, &network->table, network->flat, &other.vit, &other.table, other.flat,
                         ops);
    ops_destroy(ops);
    device_close(host);
    network_fini(network);
    *network = other;
    return STATUS_OK;
}

/* --- telling --- */

/* Prototypes of a network's head; 0: it has none. */
static int64_t prototypes(const Network *network, ParamModule module)
{
    int id = param_table_find(&network->table, module, "last_layer.weight_g");
    return id < 0 ? 0 : network->table.params[id].shape[0];
}

static void print_result(const JobContext *context, const Request *request, const Network *network,
                         VitNaming naming)
{
    if (comm_rank(context->comm) != 0) return;
    const VitConfig *v = &network->vit.config;
    const char *names = vit_names_word(naming), *layer = v->swiglu ? "swiglufused" : "mlp";
    int64_t dino = prototypes(network, PARAM_DINO_HEAD), ibot = prototypes(network, PARAM_IBOT_HEAD);
    if (!context->json) {
        char heads[96] = "";
        if (dino) snprintf(heads, sizeof heads, ", a DINO head of %lld prototypes", (long long)dino);
        size_t used = strlen(heads);
        if (ibot) snprintf(heads + used, sizeof heads - used, ", an iBOT head of %lld", (long long)ibot);
        printf("%s: %lld blocks of %lld, %lld heads, %s, patches of %lld, %lld registers, native at %lld "
               "pixels%s; %s names in the safetensors file\n",
               request->to, (long long)v->depth, (long long)v->embed_dim, (long long)v->num_heads, layer,
               (long long)v->patch_size, (long long)v->num_register_tokens, (long long)v->img_size, heads,
               names);
        return;
    }
    cJSON *tree = cJSON_CreateObject();
    cJSON_AddStringToObject(tree, "job", "convert");
    cJSON_AddStringToObject(tree, "output", request->to);
    cJSON_AddStringToObject(tree, "names", names);
    cJSON_AddNumberToObject(tree, "depth", (double)v->depth);
    cJSON_AddNumberToObject(tree, "embed_dim", (double)v->embed_dim);
    cJSON_AddNumberToObject(tree, "num_heads", (double)v->num_heads);
    cJSON_AddStringToObject(tree, "ffn_layer", layer);
    cJSON_AddNumberToObject(tree, "patch_size", (double)v->patch_size);
    cJSON_AddNumberToObject(tree, "registers", (double)v->num_register_tokens);
    cJSON_AddNumberToObject(tree, "image_size", (double)v->img_size);
    cJSON_AddNumberToObject(tree, "dino_prototypes", (double)dino);
    cJSON_AddNumberToObject(tree, "ibot_prototypes", (double)ibot);
    char *text = cJSON_PrintUnformatted(tree);
    puts(text);
    cJSON_free(text);
    cJSON_Delete(tree);
}

/* --- out --- */

/* All of a role's tensors; what training saves is finite, and safetensors files have to be. Collective over
 * COMM. */
static Status load_with_heads(const JobContext *context, const EvalModel *model, Network *network,
                              Error *error)
{
    ShardMap map;
    uint64_t digest;
    network_build(network, &model->vit.config, &model->config);
    network->flat = memory_alloc_array((size_t)network->table.flat_count, sizeof *network->flat);
    shard_map_init_whole(&map, &network->table, context->comm);
    Status status =
        checkpoint_load_network(model->path, model->role, &map, network->flat, &digest, context->comm, error);
    shard_map_fini(&map);
    for (int64_t i = 0; status == STATUS_OK && i < network->table.flat_count; i++)
        if (!isfinite(network->flat[i]))
            status = status_fail(error, STATUS_INPUT, "%s: the weights are not finite", model->path);
    return status;
}

/* The backbone that the model has, which it loses. */
static Network take_backbone(EvalModel *model)
{
    Network network = {.vit = model->vit, .table = model->table, .flat = model->flat};
    model->vit = (Vit){0};
    model->table = (ParamTable){0};
    model->flat = NULL;
    return network;
}

/* Rank 0 writes. Collective over COMM. */
static Status write_safetensors(const JobContext *context, const Request *request, const Network *network,
                                Error *error)
{
    const VitConfig *vit = &network->vit.config;
    Status status = STATUS_OK;
    if (comm_rank(context->comm) == 0) {
        status = vit_weights_save(request->to, request->naming, request->type, &network->table, network->flat,
                                  error);
        if (status == STATUS_OK && request->naming == VIT_NAMES_HUGGINGFACE)
            status = job_convert_huggingface_write(request->to, vit, request->type, context->log, error);
    }
    status = comm_agree(context->comm, status, error);
    if (status == STATUS_OK) print_result(context, request, network, request->naming);
    return status;
}

static Status export_checkpoint(const JobContext *context, const Request *request, Error *error)
{
    EvalModel model;
    Network network = {0};
    Status status = eval_model_load(&model, request->from, request->role, context->options, context->comm,
                                    context->log, error);
    if (status == STATUS_OK && request->ssl_heads)
        status = load_with_heads(context, &model, &network, error);
    else if (status == STATUS_OK)
        network = take_backbone(&model);
    if (status == STATUS_OK && request->image_size)
        status = resample(&network, request->ssl_heads ? &model.config : NULL, request->image_size, error);
    if (status == STATUS_OK) status = write_safetensors(context, request, &network, error);
    network_fini(&network);
    eval_model_fini(&model);
    return status;
}

/* --- in --- */

static Status import_descriptor(const JobContext *context, const Request *request,
                                const SafetensorsFile *file, const ResnetConfig *config, Error *error)
{
    PixelNorm norm = pixel_levels_imagenet();
    DescriptorMeta meta = {.config = *config};
    for (int c = 0; c < 3; c++) {
        meta.mean[c] = norm.mean[c];
        meta.std[c] = norm.std[c];
    }
    const char *name = strrchr(request->from, '/');
    snprintf(meta.source, sizeof meta.source, "%s", name ? name + 1 : request->from);
    Resnet resnet;
    ParamTable table;
    float *flat;
    param_table_init(&table);
    resnet_build(&resnet, config, &table);
    Status status = comm_agree(context->comm, descriptor_weights_load(file, &table, &flat, error), error);
    if (status == STATUS_OK)
        status = descriptor_file_save(request->to, &meta, &table, flat, context->comm, error);
    if (status == STATUS_OK && comm_rank(context->comm) == 0)
        printf("%s: %s, %lld numbers\n", request->to, descriptor_file_arch(config->arch),
               (long long)config->dims);
    memory_free(flat);
    param_table_fini(&table);
    return status;
}

static void tell_heads(Log *log, const SafetensorsFile *file, const VitNames *names, bool with_heads)
{
    char text[512];
    int64_t count = vit_weights_left_out(file, names, with_heads, text, sizeof text);
    if (count > 0)
        log_info(log, "%s: %lld tensors of heads are left out: %s", file->path, (long long)count, text);
}

/* Every rank for itself: the weights of the file, under the configuration that they make. */
static Status read_network(const JobContext *context, const Request *request, const SafetensorsFile *file,
                           Network *network, Config *config, VitNaming *naming, Error *error)
{
    VitNames names;
    VitConfig found;
    HeadWeights heads;
    TRY(vit_names_detect(&names, file, error));
    *naming = names.naming;
    bool with_heads = request->ssl_heads && head_weights_there(file, &names);
    tell_heads(context->log, file, &names, with_heads);
    TRY(vit_weights_describe(file, &names, &found, error));
    TRY(job_convert_heads(&found, request->heads, file->path, error));
    if (with_heads) TRY(head_weights_describe(file, &heads, error));
    TRY(job_convert_config(config, &found, with_heads ? &heads : NULL, context->options, &found, error));
    network_build(network, &found, with_heads ? config : NULL);
    TRY(vit_weights_load(file, &names, &network->table, &network->flat, error));
    if (!request->image_size || request->image_size == found.img_size) return STATUS_OK;
    TRY(resample(network, with_heads ? config : NULL, request->image_size, error));
    return job_convert_image_size(config, request->image_size, error);
}

/* Collective over COMM. */
static Status save_network(const JobContext *context, const Request *request, const Network *network,
                           const Config *config, Error *error)
{
    char *text = config_dump(config);
    ShardMap map;
    shard_map_init_whole(&map, &network->table, context->comm);
    CheckpointState state = {.map = &map, .model_ema = network->flat};
    job_convert_meta(&state.meta, config, &network->vit.config, text);
    Status status = checkpoint_save_model_ema(request->to, &state, context->comm, error);
    shard_map_fini(&map);
    memory_free(text);
    return status;
}

static Status import_network(const JobContext *context, const Request *request, const SafetensorsFile *file,
                             Error *error)
{
    Network network = {0};
    Config config;
    VitNaming naming = VIT_NAMES_REFERENCE;
    config_init(&config);
    Status status = read_network(context, request, file, &network, &config, &naming, error);
    status = comm_agree(context->comm, status, error);
    if (status == STATUS_OK) status = save_network(context, request, &network, &config, error);
    if (status == STATUS_OK) print_result(context, request, &network, naming);
    network_fini(&network);
    config_fini(&config);
    return status;
}

/* The file or index, which in a folder has the name that from_pretrained knows it by. */
static Status open_safetensors(SafetensorsFile *file, const char *from, Error *error)
{
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json"};
    char path[CHECKPOINT_PATH_MAX];
    struct stat facts;
    if (stat(from, &facts) != 0 || !S_ISDIR(facts.st_mode)) return safetensors_open(file, from, error);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if ((size_t)snprintf(path, sizeof path, "%s/%s", from, names[i]) >= sizeof path) break;
        if (stat(path, &facts) == 0) return safetensors_open(file, path, error);
    }
    *file = (SafetensorsFile){.fd = -1};
    return status_fail(error, STATUS_INPUT, "%s: there is neither %s nor %s in it", from, names[0], names[1]);
}

static Status import_safetensors(const JobContext *context, const Request *request, Error *error)
{
    SafetensorsFile file;
    ResnetConfig config;
    Status status = comm_agree(context->comm, open_safetensors(&file, request->from, error), error);
    if (status == STATUS_OK && descriptor_weights_detect(&file, &config))
        status = import_descriptor(context, request, &file, &config, error);
    else if (status == STATUS_OK)
        status = import_network(context, request, &file, error);
    safetensors_close(&file);
    return status;
}

Status job_convert(JobContext *context, Error *error)
{
    Request request;
    TRY(parse(context->options, &request, error));
    return request.writes_safetensors ? export_checkpoint(context, &request, error)
                                      : import_safetensors(context, &request, error);
}
