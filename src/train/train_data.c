/* train_data.c - from configuration keys to augmentation and loader. */
#include "train/train_data.h"

#include "train/train_state.h"

AugmentParams train_data_augment(const Config *config)
{
    AugmentParams p = augment_params_default();
    AugmentView view = {.size = config->crops.global_crops_size,
                        .scale_min = config->crops.global_crops_scale[0],
                        .scale_max = config->crops.global_crops_scale[1],
                        .ratio_min = config->crops.aspect_ratio[0],
                        .ratio_max = config->crops.aspect_ratio[1],
                        .flip = config->crops.flip_probability,
                        .jitter = config->crops.jitter_probability,
                        .grayscale = config->crops.grayscale_probability};
    p.global[0] = p.global[1] = p.local = view;
    p.global[0].blur = config->crops.blur_probability_global1;
    p.global[1].blur = config->crops.blur_probability_global2;
    p.global[1].solarize = config->crops.solarize_probability_global2;
    p.local.size = config->crops.local_crops_size;
    p.local.scale_min = config->crops.local_crops_scale[0];
    p.local.scale_max = config->crops.local_crops_scale[1];
    p.local.blur = config->crops.blur_probability_local;
    p.local_count = config->crops.local_crops_number;
    p.strength[AUGMENT_BRIGHTNESS] = config->crops.jitter_brightness;
    p.strength[AUGMENT_CONTRAST] = config->crops.jitter_contrast;
    p.strength[AUGMENT_SATURATION] = config->crops.jitter_saturation;
    p.strength[AUGMENT_HUE] = config->crops.jitter_hue;
    p.blur_sigma_min = config->crops.blur_sigma[0];
    p.blur_sigma_max = config->crops.blur_sigma[1];
    p.solarize_threshold = (int)config->crops.solarize_threshold;
    return p;
}

LoaderParams train_data_loader(const Config *config, const SslGroups *groups, Device *device,
                               int64_t first_step)
{
    bool masks = config->ibot.loss_weight > 0, gpu = device_kind(device) != DEVICE_CPU;
    return (LoaderParams){.augment = train_data_augment(config),
                          .scaled_decode = config->data.decode == CONFIG_DECODE_SCALED,
                          .patch_size = config->student.patch_size,
                          .mask_probability = masks ? config->ibot.mask_sample_probability : 0.0,
                          .mask_ratio_min = config->ibot.mask_ratio_min_max[0],
                          .mask_ratio_max = config->ibot.mask_ratio_min_max[1],
                          .mask_all = masks && *config->distillation.checkpoint_path,
                          .seed = (uint64_t)config->train.seed,
                          .group_size = groups->group_size,
                          .total_groups = groups->total_groups,
                          .first_group = groups->first_group,
                          .groups = groups->groups,
                          .first_step = first_step,
                          .num_workers = (int)config->train.num_workers,
                          .prefetch = config->data.prefetch,
                          .in_use = gpu ? TRAIN_SUBMISSIONS : 1,
                          .device = gpu ? device : NULL};
}
