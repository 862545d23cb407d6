/* augment_part.c - see augment_part.h. */
#include "data/augment_part.h"

AugmentPart augment_part_of(const AugmentParams *params, Rng rng)
{
    return (AugmentPart){.params = params, .rng = rng};
}

/* The smallest scale at which the crop has at least size x size pixels, or 8. */
static int eighths_for(const AugmentDraw *draw, int64_t size)
{
    int64_t shorter = draw->width < draw->height ? draw->width : draw->height;
    int eighths = 1;
    while (eighths < 8 && shorter * eighths < size * 8)
        eighths *= 2;
    return eighths;
}

ImagePart augment_part_choose_all(void *context, int64_t width, int64_t height)
{
    AugmentPart *plan = context;
    augment_draw_all(plan->params, width, height, plan->rng, plan->draws);
    return (ImagePart){.eighths = 8, .width = width, .height = height};
}

ImagePart augment_part_choose(void *context, int64_t width, int64_t height)
{
    AugmentPart *plan = context;
    const AugmentParams *params = plan->params;
    augment_draw_all(params, width, height, plan->rng, plan->draws);
    int64_t left = width, top = height, right = 0, bottom = 0;
    int eighths = 1;
    for (int64_t i = 0; i < AUGMENT_GLOBAL_CROPS + params->local_count; i++) {
        const AugmentDraw *draw = &plan->draws[i];
        int64_t size = i < AUGMENT_GLOBAL_CROPS ? params->global[i].size : params->local.size;
        int needed = eighths_for(draw, size);
        if (needed > eighths) eighths = needed;
        if (draw->left < left) left = draw->left;
        if (draw->top < top) top = draw->top;
        if (draw->left + draw->width > right) right = draw->left + draw->width;
        if (draw->top + draw->height > bottom) bottom = draw->top + draw->height;
    }
    return (ImagePart){
        .eighths = eighths, .left = left, .top = top, .width = right - left, .height = bottom - top};
}
