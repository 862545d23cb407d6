/* average_precision.c - see average_precision.h. */
#include "eval/average_precision.h"

#include "base/check.h"

double average_precision_mean(const int64_t *places, int64_t n)
{
    CHECK(n >= 1);
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)(i + 1) / (double)(places[i] + 1);
    return sum / (double)n;
}

double average_precision_trapezoid(const int64_t *places, int64_t n)
{
    CHECK(n >= 1);
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        double before = places[i] == 0 ? 1.0 : (double)i / (double)places[i];
        sum += 0.5 * (before + (double)(i + 1) / (double)(places[i] + 1));
    }
    return sum / (double)n;
}

double average_precision_at(const int64_t *places, int64_t n, int64_t k)
{
    CHECK(n >= 1 && k >= 1);
    int64_t last = places[n - 1] + 1, found = 0;
    if (last < k) k = last;
    while (found < n && places[found] < k)
        found++;
    return (double)found / (double)k;
}
