/* step_flops.c - the formula. */
#include "ssl/step_flops.h"

#include <string.h>

const char *step_flops_part_name(StepPart part)
{
    static const char *const names[STEP_PART_COUNT] = {
        [STEP_TEACHER_EMBED] = "teacher, embeddings",
        [STEP_TEACHER_BLOCKS] = "teacher, blocks",
        [STEP_TEACHER_HEADS] = "teacher, heads",
        [STEP_TARGETS] = "targets",
        [STEP_STUDENT_EMBED] = "student, embeddings",
        [STEP_STUDENT_BLOCKS] = "student, blocks",
        [STEP_STUDENT_HEADS] = "student, heads",
        [STEP_LOSSES] = "losses, both ways",
        [STEP_BACKWARD_HEADS] = "backward, heads",
        [STEP_BACKWARD_BLOCKS] = "backward, blocks",
        [STEP_BACKWARD_EMBED] = "backward, embeddings",
        [STEP_NORMS] = "final norms",
        [STEP_OPTIMIZER] = "clipping and AdamW",
        [STEP_AVERAGE] = "teacher's average, casts",
        [STEP_OTHER] = "other",
    };
    return names[part];
}

/* Crops of one size on this rank. */
typedef struct {
    double per_group; /* sequences */
    double tokens;    /* of one sequence */
    double patches;   /* of one sequence */
} CropSet;

static CropSet crop_set(const SslMetaArch *ssl, int64_t per_sample, int64_t side)
{
    double patches = (double)vit_patches(&ssl->student.vit, side, side);
    return (CropSet){.per_group = (double)(ssl->groups.group_size * per_sample),
                     .tokens = patches + 1 + (double)ssl->student.vit.config.num_register_tokens,
                     .patches = patches};
}

static double embed(const SslMetaArch *ssl, CropSet set)
{
    const VitConfig *v = &ssl->student.vit.config;
    double inputs = VIT_IMAGE_CHANNELS * (double)(v->patch_size * v->patch_size);
    return 2 * (double)ssl->groups.groups * set.per_group * set.patches * inputs * (double)v->embed_dim;
}

static double drop_rate(const VitConfig *v, int64_t block)
{
    if (v->drop_path_uniform) return v->drop_path_rate;
    return v->depth > 1 ? v->drop_path_rate * (double)block / (double)(v->depth - 1) : 0;
}

/* Forward of all blocks over one crop set. */
static double blocks(const SslMetaArch *ssl, CropSet set, bool drop_path)
{
    const VitConfig *v = &ssl->student.vit.config;
    double D = (double)v->embed_dim, hidden = (double)ssl->student.vit.blocks[0].hidden;
    double per_token = 2 * (4 * D * D + (v->swiglu ? 3 : 2) * D * hidden);
    double per_sequence = set.tokens * per_token + 4 * set.tokens * set.tokens * D, sum = 0;
    for (int64_t i = 0; i < v->depth; i++) {
        double rate = drop_path ? drop_rate(v, i) : 0;
        double kept = rate > 0 ? (double)drop_path_kept((int64_t)set.per_group, rate) : set.per_group;
        sum += (double)ssl->groups.groups * kept * per_sequence;
    }
    return sum;
}

static double head(const DinoHead *h, double rows)
{
    const DinoHeadConfig *c = &h->config;
    double in = (double)c->in_dim, hidden = (double)c->hidden_dim, out = (double)c->bottleneck_dim;
    if (c->nlayers == 1) return 2 * rows * in * out;
    return 2 * rows * (in * hidden + (double)(c->nlayers - 2) * hidden * hidden + hidden * out);
}

static double prototypes(const DinoHead *h, double rows)
{
    return 2 * rows * (double)(h->config.prototypes * h->config.bottleneck_dim);
}

static double koleo(const SslMetaArch *ssl)
{
    if (!ssl->do_koleo) return 0;
    const SslGroups *g = &ssl->groups;
    double rows = (double)(g->group_size * (ssl->koleo.global_scope ? g->total_groups : 1));
    double calls = 2.0 * (double)(ssl->koleo.global_scope ? 1 : g->groups);
    return calls * 2 * rows * rows * (double)ssl->student.vit.config.embed_dim;
}

/* Both heads and their prototypes: rows through each. */
static void add_heads(const SslMetaArch *ssl, double student, double teacher, double masked,
                      double flops[STEP_PART_COUNT])
{
    const DinoHead *dino = &ssl->student.dino_head,
                   *ibot = ssl->student.shared_head ? dino : &ssl->student.ibot_head;
    if (!ssl->do_ibot) ibot = dino; /* with no rows */
    flops[STEP_TEACHER_HEADS] = head(dino, teacher) + head(ibot, masked);
    flops[STEP_STUDENT_HEADS] = head(dino, student) + head(ibot, masked);
    flops[STEP_BACKWARD_HEADS] = 2 * flops[STEP_STUDENT_HEADS];
    flops[STEP_TARGETS] = prototypes(dino, teacher) + prototypes(ibot, masked);
    flops[STEP_LOSSES] = 3 * (prototypes(dino, student) + prototypes(ibot, masked)) + koleo(ssl);
}

double step_flops_count(const SslMetaArch *ssl, double masked, double flops[STEP_PART_COUNT])
{
    memset(flops, 0, STEP_PART_COUNT * sizeof *flops);
    int64_t L = ssl->do_dino ? ssl->config->crops.local_crops_number : 0;
    double samples = (double)(ssl->groups.groups * ssl->groups.group_size);
    CropSet global = crop_set(ssl, 2, ssl->student.vit.config.img_size);
    CropSet local = crop_set(ssl, L, ssl->config->crops.local_crops_size);
    if (!ssl->do_ibot) masked = 0;

    flops[STEP_TEACHER_EMBED] = embed(ssl, global);
    flops[STEP_TEACHER_BLOCKS] = blocks(ssl, global, false);
    flops[STEP_STUDENT_EMBED] = embed(ssl, global);
    flops[STEP_STUDENT_BLOCKS] = blocks(ssl, global, true);
    if (L > 0) {
        flops[STEP_STUDENT_EMBED] += embed(ssl, local);
        flops[STEP_STUDENT_BLOCKS] += blocks(ssl, local, true);
    }
    flops[STEP_BACKWARD_EMBED] = flops[STEP_STUDENT_EMBED]; /* pictures get no gradient */
    flops[STEP_BACKWARD_BLOCKS] = 2 * flops[STEP_STUDENT_BLOCKS];
    add_heads(ssl, ssl->do_dino ? samples * (double)(2 + L) : 0, ssl->do_dino ? samples * 2 : 0, masked,
              flops);
    double sum = 0;
    for (int i = 0; i < STEP_PART_COUNT; i++)
        sum += flops[i];
    return sum;
}
