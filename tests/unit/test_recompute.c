/* test_recompute.c - train.checkpoint_activations: block gives the same bits in less memory.
 */
#include "../support/ssl_support.h"

#include "base/memory.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { TEXT = 300, STEPS = 2 };

/* The same steps with kept and with recomputed activations. `share`: the planned memory is at most this of
 * what it is without. */
static void expect_same_bits(const char *overrides, double share)
{
    char text[TEXT];
    snprintf(text, sizeof text, "%s train.checkpoint_activations=block", overrides);
    SslFixture *kept = ssl_support_create(overrides, 31), *again = ssl_support_create(text, 31);
    size_t bytes = (size_t)kept->ssl.student.table.flat_count * sizeof(float);
    for (int64_t step = 0; step < STEPS; step++) {
        SslFigures a, b;
        ssl_support_fill_batch(kept, 32, step);
        ssl_support_fill_batch(again, 32, step);
        a = ssl_support_step(kept, 0.1);
        b = ssl_support_step(again, 0.1);
        cr_expect(isfinite(a.total_loss) && memcmp(&a, &b, sizeof a) == 0, "%s: %.17g and %.17g", overrides,
                  a.total_loss, b.total_loss);
        cr_expect_eq(memcmp(kept->ssl.gradients.local, again->ssl.gradients.local, bytes), 0,
                     "%s: gradients differ by %g", overrides,
                     ssl_support_difference(again->ssl.gradients.local, kept->ssl.gradients.local,
                                            kept->ssl.student.table.flat_count));
    }
    double planned = (double)again->ssl.step.capacity / (double)kept->ssl.step.capacity;
    cr_log_info("%s: %.2f of %zu bytes", overrides, planned, kept->ssl.step.capacity);
    cr_expect_leq(planned, share, "%s", overrides);
    cr_expect_leq(again->ssl.step.peak, again->ssl.step.capacity);
    ssl_support_destroy(kept);
    ssl_support_destroy(again);
}

Test(recompute, the_same_bits_in_less_memory, .timeout = 60)
{
    expect_same_bits("student.drop_path_rate=0.3", 0.8);
    expect_same_bits("student.depth=8 student.drop_path_rate=0.3 student.drop_path_uniform=true", 0.5);
    expect_same_bits("student.depth=8 student.drop_path_rate=0.4 student.drop_path_uniform=false "
                     "student.ffn_layer=swiglu student.num_register_tokens=3 student.block_chunks=2",
                     0.5);
}

Test(recompute, with_micro_batches_and_bf16_too, .timeout = 60)
{
    expect_same_bits("student.depth=6 student.drop_path_rate=0.3 train.micro_batch_size=5", 0.75);
    expect_same_bits("student.depth=6 student.drop_path_rate=0.3 "
                     "compute_precision.student.backbone.mixed_precision.param_dtype=bf16",
                     0.75);
    expect_same_bits("student.depth=1 student.drop_path_rate=0", 1.01);
}
