/* cosine_schedule.h - learning rate, weight decay, momentum and temperature over the iterations.
 *
 * Source: dinov2/utils/utils.py CosineScheduler and train.py build_schedulers; golden README trap 23. A
 * schedule is a pure function of the iteration, so a resumed run reads what the first would have.
 */
#ifndef DINOBATCH_OPTIM_COSINE_SCHEDULE_H
#define DINOBATCH_OPTIM_COSINE_SCHEDULE_H

#include "config/config.h"

#include <stdint.h>

/* freeze iterations at 0, then a linear warm-up from start_warmup to base (both ends included), then a half
 * cosine towards final, which is reached only past the end. */
typedef struct {
    double base, final, start_warmup;
    int64_t total_iterations, warmup_iterations, freeze_iterations;
} CosineSchedule;

double cosine_schedule_at(const CosineSchedule *schedule, int64_t iteration);

/* The five schedules of a pretraining. */
typedef struct {
    CosineSchedule lr, weight_decay, momentum, teacher_temp;
    int64_t last_layer_frozen; /* iterations during which the last layers' learning rate is 0 */
    int64_t backbone_frozen;   /* the same of the backbone, */
    int64_t backbone_warmup;   /* and those in which its rate then rises to the others' */
} TrainSchedules;

/* Values of one iteration. */
typedef struct {
    double lr, weight_decay, momentum, teacher_temp;
    double last_layer_lr, backbone_lr; /* lr, but for the iterations in which those are frozen */
} TrainScheduleValues;

/* base_lr * sqrt(global_batch_size / 1024): the reference's scaling rule. */
double cosine_schedule_scaled_lr(const Config *config, int64_t global_batch_size);

/* From optim.*, teacher.* and train.OFFICIAL_EPOCH_LENGTH; lr is the scaled peak. */
TrainSchedules train_schedules(const Config *config, double lr);

TrainScheduleValues train_schedules_at(const TrainSchedules *schedules, int64_t iteration);

#endif
