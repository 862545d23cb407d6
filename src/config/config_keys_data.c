/* config_keys_data.c - rows of crops, data and evaluation.
 *
 * Names and defaults: dinov2/configs/ssl_default_config.yaml of the reference, where a row is not marked
 * `ours`. The defaults of our augmentation keys are what dinov2/data/augmentations.py and transforms.py
 * really do. There, GaussianBlur(p) blurs with probability 1 - p: the first global crop (p = 1.0) never, the
 * second (p = 0.1) with 0.9, local crops (p = 0.5) with 0.5. Our keys are the probabilities that take effect.
 */
#include "config/config_keys.h"

#define PIXELS_MAX 16384.0

const ConfigKey CONFIG_KEYS_DATA[] = {
    {CONFIG_KEY(crops.global_crops_scale, "[0.32, 1.0]", "area of a global crop, share of the picture"),
     .low = 1e-4, .high = 1},
    {CONFIG_KEY(crops.local_crops_number, "8", "local crops of a sample"), .low = 0, .high = 64},
    {CONFIG_KEY(crops.local_crops_scale, "[0.05, 0.32]", "area of a local crop, share of the picture"),
     .low = 1e-4, .high = 1},
    {CONFIG_KEY(crops.global_crops_size, "224",
                "edge of a global crop in pixels, a multiple of the patch size"),
     .low = 1, .high = PIXELS_MAX},
    {CONFIG_KEY(crops.local_crops_size, "96", "edge of a local crop in pixels, a multiple of the patch size"),
     .low = 1, .high = PIXELS_MAX},
    {CONFIG_KEY(crops.aspect_ratio, "[0.75, 1.3333333333333333]", "width over height of a crop, log-uniform"),
     .low = 0.01, .high = 100, .ours = true},
    {CONFIG_KEY(crops.flip_probability, "0.5", "horizontal flip, every crop"), .low = 0, .high = 1,
     .ours = true},
    {CONFIG_KEY(crops.jitter_probability, "0.8", "colour jitter, every crop"), .low = 0, .high = 1,
     .ours = true},
    {CONFIG_KEY(crops.jitter_brightness, "0.4", "brightness factor in 1 - x .. 1 + x"), .low = 0, .high = 10,
     .ours = true},
    {CONFIG_KEY(crops.jitter_contrast, "0.4", "contrast factor in 1 - x .. 1 + x"), .low = 0, .high = 10,
     .ours = true},
    {CONFIG_KEY(crops.jitter_saturation, "0.2", "saturation factor in 1 - x .. 1 + x"), .low = 0, .high = 10,
     .ours = true},
    {CONFIG_KEY(crops.jitter_hue, "0.1", "hue shift in -x .. x of a full turn"), .low = 0, .high = 0.5,
     .ours = true},
    {CONFIG_KEY(crops.grayscale_probability, "0.2", "conversion to grey, every crop"), .low = 0, .high = 1,
     .ours = true},
    {CONFIG_KEY(crops.blur_probability_global1, "0.0",
                "Gaussian blur of the first global crop, as it takes effect"),
     .low = 0, .high = 1, .ours = true},
    {CONFIG_KEY(crops.blur_probability_global2, "0.9", "Gaussian blur of the second global crop"), .low = 0,
     .high = 1, .ours = true},
    {CONFIG_KEY(crops.blur_probability_local, "0.5", "Gaussian blur of a local crop"), .low = 0, .high = 1,
     .ours = true},
    {CONFIG_KEY(crops.blur_sigma, "[0.1, 2.0]",
                "standard deviation of the blur in pixels, uniform; kernel 9 x 9"),
     .low = 1e-3, .high = 100, .ours = true},
    {CONFIG_KEY(crops.solarize_probability_global2, "0.2", "solarisation of the second global crop"),
     .low = 0, .high = 1, .ours = true},
    {CONFIG_KEY(crops.solarize_threshold, "128", "values from here on are inverted by solarisation"),
     .low = 0, .high = 256, .ours = true},

    {CONFIG_KEY(data.decode, "exact",
                "exact = the full picture is decoded; scaled = JPEGs only around the crops, and at 1/2, 1/4 "
                "or 1/8 of their size where no crop has to be enlarged"),
     .choices = "exact|scaled", .ours = true},
    {CONFIG_KEY(data.prefetch, "2", "batches that the loader of a rank makes ahead of the step"), .low = 1,
     .high = 64, .may_change = true, .ours = true},

    {CONFIG_KEY(evaluation.eval_period_iterations, "12500", "iterations between evaluations; 0 = never"),
     .low = 0, .high = 1e12, .may_change = true},
    {CONFIG_KEY(
         evaluation.train_dataset_path, "",
         "labelled images that vote, as a data set spec; empty = none; ;offset=K, ;stride=K, ;limit=N, "
         ";per_class=N or ;spread=N behind it select a part"),
     .may_change = true, .ours = true},
    {CONFIG_KEY(evaluation.val_dataset_path, "", "labelled images that are classified; empty = none"),
     .may_change = true, .ours = true},
    {CONFIG_KEY(evaluation.knn_k, "[10, 20, 100, 200]", "numbers of neighbours that vote, a figure for each"),
     .low = 1, .high = 1e6, .may_change = true, .ours = true},
    {CONFIG_KEY(evaluation.knn_temperature, "0.07", "temperature of the weights of the votes"), .low = 1e-3,
     .high = 100, .may_change = true, .ours = true},
    {CONFIG_KEY(evaluation.batch_size, "256", "images of one pass when features are extracted"), .low = 1,
     .high = 65536, .may_change = true, .ours = true},
    {CONFIG_KEY(evaluation.resize_size, "256",
                "shorter side before the centre crop; 0 = 256/224 of the crop, rounded"),
     .low = 0, .high = PIXELS_MAX, .may_change = true, .ours = true},
    {CONFIG_KEY(evaluation.crop_size, "224", "edge of the centre crop; 0 = crops.global_crops_size"),
     .low = 0, .high = PIXELS_MAX, .may_change = true, .ours = true},
    {CONFIG_KEY(evaluation.limit, "0", "images of each data set that are used; 0 = all"), .low = 0,
     .high = 1e12, .may_change = true, .ours = true},
};

const int CONFIG_KEYS_DATA_COUNT = sizeof CONFIG_KEYS_DATA / sizeof *CONFIG_KEYS_DATA;
