/* cosine_schedule.c - the schedules of a training run. */
#include "optim/cosine_schedule.h"

#include <math.h>

double cosine_schedule_at(const CosineSchedule *s, int64_t iteration)
{
    if (iteration >= s->total_iterations) return s->final;
    if (iteration < s->freeze_iterations) return 0.0;
    int64_t i = iteration - s->freeze_iterations;
    if (i < s->warmup_iterations) {
        if (s->warmup_iterations == 1) return s->start_warmup;
        double step = (s->base - s->start_warmup) / (double)(s->warmup_iterations - 1);
        return i == s->warmup_iterations - 1 ? s->base : s->start_warmup + (double)i * step;
    }
    double length = (double)(s->total_iterations - s->warmup_iterations - s->freeze_iterations);
    double progress = (double)(i - s->warmup_iterations) / length;
    return s->final + 0.5 * (s->base - s->final) * (1.0 + cos(M_PI * progress));
}

double cosine_schedule_scaled_lr(const Config *config, int64_t global_batch_size)
{
    return config->optim.base_lr * sqrt((double)global_batch_size / 1024.0);
}

TrainSchedules train_schedules(const Config *config, double lr)
{
    int64_t epoch = config->train.OFFICIAL_EPOCH_LENGTH;
    int64_t total = config->optim.epochs * epoch;
    int64_t warmup_temp = config->teacher.warmup_teacher_temp_epochs * epoch;
    TrainSchedules s = {.last_layer_frozen = config->optim.freeze_last_layer_epochs * epoch,
                        .backbone_frozen = config->optim.freeze_backbone_epochs * epoch,
                        .backbone_warmup = config->optim.warmup_backbone_epochs * epoch};
    s.lr = (CosineSchedule){.base = lr,
                            .final = config->optim.min_lr,
                            .total_iterations = total,
                            .warmup_iterations = config->optim.warmup_epochs * epoch};
    s.weight_decay = (CosineSchedule){.base = config->optim.weight_decay,
                                      .final = config->optim.weight_decay_end,
                                      .total_iterations = total};
    s.momentum = (CosineSchedule){.base = config->teacher.momentum_teacher,
                                  .final = config->teacher.final_momentum_teacher,
                                  .total_iterations = total};
    /* A warm-up that is the whole schedule: afterwards the final value, which is the peak. */
    s.teacher_temp = (CosineSchedule){.base = config->teacher.teacher_temp,
                                      .final = config->teacher.teacher_temp,
                                      .start_warmup = config->teacher.warmup_teacher_temp,
                                      .total_iterations = warmup_temp,
                                      .warmup_iterations = warmup_temp};
    return s;
}

TrainScheduleValues train_schedules_at(const TrainSchedules *s, int64_t iteration)
{
    TrainScheduleValues v = {.lr = cosine_schedule_at(&s->lr, iteration),
                             .weight_decay = cosine_schedule_at(&s->weight_decay, iteration),
                             .momentum = cosine_schedule_at(&s->momentum, iteration),
                             .teacher_temp = cosine_schedule_at(&s->teacher_temp, iteration)};
    v.last_layer_lr = iteration < s->last_layer_frozen ? 0.0 : v.lr;
    int64_t thawed = iteration - s->backbone_frozen;
    v.backbone_lr = thawed < 0 ? 0.0 : v.lr;
    if (thawed >= 0 && thawed < s->backbone_warmup)
        v.backbone_lr = v.lr * (double)(thawed + 1) / (double)s->backbone_warmup;
    return v;
}
