/* golden_schedules.c - schedules.h5: the five schedules, every iteration and some past the end. */
#include "golden.h"

#include "optim/cosine_schedule.h"

#include <math.h>
#include <string.h>

static const char *const NAMES[] = {"lr", "wd", "momentum", "teacher_temp", "last_layer_lr"};

static bool is_schedule(const char *path)
{
    const char *slash = strrchr(path, '/');
    for (size_t i = 0; slash && i < sizeof NAMES / sizeof *NAMES; i++)
        if (strcmp(slash + 1, NAMES[i]) == 0) return true;
    return false;
}

static double value_of(const TrainScheduleValues *values, int which)
{
    const double all[] = {values->lr, values->weight_decay, values->momentum, values->teacher_temp,
                          values->last_layer_lr};
    return all[which];
}

static void read_config(Golden *golden, const char *name, Config *config)
{
    config->train.OFFICIAL_EPOCH_LENGTH = (int64_t)golden_attr(golden, "epoch_length", "%s", name);
    config->optim.epochs = (int64_t)golden_attr(golden, "epochs", "%s", name);
    config->optim.base_lr = golden_attr(golden, "base_lr", "%s", name);
    config->optim.min_lr = golden_attr(golden, "min_lr", "%s", name);
    config->optim.warmup_epochs = (int64_t)golden_attr(golden, "warmup_epochs", "%s", name);
    config->optim.weight_decay = golden_attr(golden, "weight_decay", "%s", name);
    config->optim.weight_decay_end = golden_attr(golden, "weight_decay_end", "%s", name);
    config->optim.freeze_last_layer_epochs =
        (int64_t)golden_attr(golden, "freeze_last_layer_epochs", "%s", name);
    config->teacher.momentum_teacher = golden_attr(golden, "momentum_teacher", "%s", name);
    config->teacher.final_momentum_teacher = golden_attr(golden, "final_momentum_teacher", "%s", name);
    config->teacher.teacher_temp = golden_attr(golden, "teacher_temp", "%s", name);
    config->teacher.warmup_teacher_temp = golden_attr(golden, "warmup_teacher_temp", "%s", name);
    config->teacher.warmup_teacher_temp_epochs =
        (int64_t)golden_attr(golden, "warmup_teacher_temp_epochs", "%s", name);
}

void golden_schedules(Golden *golden)
{
    static const double RELATIVE = 1e-13; /* the arithmetic is the same, in double; its order may differ */
    golden_require(golden, is_schedule);
    for (const char *const *name = golden_members(golden, NULL, "/"); *name; name++) {
        Config config;
        config_init(&config);
        read_config(golden, *name, &config);
        double batch = golden_attr(golden, "batch_size_per_gpu", "%s", *name) *
                       golden_attr(golden, "world_size", "%s", *name);
        double lr = cosine_schedule_scaled_lr(&config, (int64_t)batch);
        double stored_lr = golden_attr(golden, "lr", "%s", *name);
        if (fabs(lr - stored_lr) > RELATIVE * stored_lr)
            golden_fail(golden, "%s: scaled learning rate %.17g, stored %.17g", *name, lr, stored_lr);
        TrainSchedules schedules = train_schedules(&config, lr);
        for (int i = 0; i < (int)(sizeof NAMES / sizeof *NAMES); i++) {
            GoldenShape shape;
            const double *stored = golden_f64(golden, &shape, "%s/%s", *name, NAMES[i]);
            double worst = 0, most = 0;
            for (int64_t t = 0; t < shape.count; t++) {
                TrainScheduleValues values = train_schedules_at(&schedules, t);
                double error = fabs(value_of(&values, i) - stored[t]);
                if (!(error <= worst)) worst = error;
                most = fmax(most, fabs(stored[t]));
            }
            golden_judge(golden, worst == 0.0 ? 0.0 : worst / (RELATIVE * most), "%s/%s", *name, NAMES[i]);
        }
        config_fini(&config);
    }
}
