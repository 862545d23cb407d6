/* test_schedules.c - the edges of the schedules: warm-up, freeze, past the end; the scaled learning rate. */
#include "optim/cosine_schedule.h"

#include <criterion/criterion.h>
#include <math.h>

Test(schedules, warm_up_holds_both_ends_and_the_peak_comes_twice)
{
    CosineSchedule s = {
        .base = 0.8, .final = 0.1, .start_warmup = 0, .total_iterations = 20, .warmup_iterations = 5};
    cr_expect_eq(cosine_schedule_at(&s, 0), 0);
    cr_expect_float_eq(cosine_schedule_at(&s, 1), 0.2, 1e-15);
    cr_expect_eq(cosine_schedule_at(&s, 4), 0.8);
    cr_expect_eq(cosine_schedule_at(&s, 5), 0.8);
    cr_expect(cosine_schedule_at(&s, 6) < 0.8);
    cr_expect_float_eq(cosine_schedule_at(&s, 12), 0.1 + 0.35 * (1 + cos(M_PI * 7 / 15)), 1e-15);
}

Test(schedules, the_final_value_is_only_reached_past_the_end)
{
    CosineSchedule s = {.base = 1, .final = 0.25, .total_iterations = 8};
    cr_expect_eq(cosine_schedule_at(&s, 0), 1);
    cr_expect_float_eq(cosine_schedule_at(&s, 4), 0.625, 1e-15);
    cr_expect(cosine_schedule_at(&s, 7) > 0.25);
    cr_expect_eq(cosine_schedule_at(&s, 8), 0.25);
    cr_expect_eq(cosine_schedule_at(&s, 1000000), 0.25);
}

Test(schedules, odd_lengths)
{
    CosineSchedule one = {
        .base = 1, .final = 0.5, .start_warmup = 0.2, .total_iterations = 3, .warmup_iterations = 1};
    cr_expect_eq(cosine_schedule_at(&one, 0), 0.2); /* linspace of one value is its start */
    cr_expect_eq(cosine_schedule_at(&one, 1), 1);
    CosineSchedule all = {.base = 1, .final = 0.5, .total_iterations = 4, .warmup_iterations = 4};
    cr_expect_eq(cosine_schedule_at(&all, 3), 1);
    cr_expect_eq(cosine_schedule_at(&all, 4), 0.5);
    CosineSchedule none = {.base = 1, .final = 0.5};
    cr_expect_eq(cosine_schedule_at(&none, 0), 0.5);
    CosineSchedule frozen = {
        .base = 1, .final = 0.5, .total_iterations = 6, .warmup_iterations = 2, .freeze_iterations = 2};
    cr_expect_eq(cosine_schedule_at(&frozen, 1), 0);
    cr_expect_eq(cosine_schedule_at(&frozen, 2), 0);
    cr_expect_eq(cosine_schedule_at(&frozen, 3), 1);
    cr_expect_eq(cosine_schedule_at(&frozen, 4), 1);
    cr_expect_float_eq(cosine_schedule_at(&frozen, 5), 0.75, 1e-15);
}

Test(schedules, the_five_of_a_configuration)
{
    Config c;
    config_init(&c);
    c.train.OFFICIAL_EPOCH_LENGTH = 10;
    c.optim.epochs = 8;
    c.optim.warmup_epochs = 2;
    c.optim.base_lr = 0.004;
    c.optim.min_lr = 1e-6;
    c.optim.freeze_last_layer_epochs = 3;
    c.optim.weight_decay = 0.04;
    c.optim.weight_decay_end = 0.4;
    c.teacher.momentum_teacher = 0.99;
    c.teacher.final_momentum_teacher = 1;
    c.teacher.warmup_teacher_temp = 0.04;
    c.teacher.teacher_temp = 0.07;
    c.teacher.warmup_teacher_temp_epochs = 4;
    double lr = cosine_schedule_scaled_lr(&c, 256);
    cr_expect_float_eq(lr, 0.002, 1e-18);
    TrainSchedules s = train_schedules(&c, lr);
    TrainScheduleValues start = train_schedules_at(&s, 0), later = train_schedules_at(&s, 29),
                        thawed = train_schedules_at(&s, 30), end = train_schedules_at(&s, 80);
    cr_expect(start.lr == 0 && start.momentum == 0.99 && start.teacher_temp == 0.04);
    cr_expect_float_eq(start.weight_decay, 0.04, 1e-15);
    cr_expect(later.last_layer_lr == 0 && later.lr > 0 && thawed.last_layer_lr == thawed.lr);
    cr_expect_eq(train_schedules_at(&s, 39).teacher_temp, 0.07);
    cr_expect_eq(train_schedules_at(&s, 40).teacher_temp, 0.07);
    cr_expect(end.lr == 1e-6 && end.weight_decay == 0.4 && end.momentum == 1 && end.teacher_temp == 0.07);
    cr_expect(later.backbone_lr == later.lr && end.backbone_lr == end.lr);
    c.optim.freeze_backbone_epochs = 2; /* of 10 iterations */
    c.optim.warmup_backbone_epochs = 1;
    s = train_schedules(&c, lr);
    for (int64_t i = 0; i < 40; i++) {
        TrainScheduleValues v = train_schedules_at(&s, i);
        double share = i < 20 ? 0 : i < 30 ? (double)(i - 19) / 10 : 1;
        cr_expect_float_eq(v.backbone_lr, share * v.lr, 1e-15);
    }
    c.teacher.warmup_teacher_temp_epochs = 0;
    s = train_schedules(&c, lr);
    cr_expect_eq(train_schedules_at(&s, 0).teacher_temp, 0.07);
    config_fini(&c);
}
