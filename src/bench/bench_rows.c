/* bench_rows.c - the list of measurements. */
#include "bench/bench_rows.h"

#include "base/check.h"
#include "base/memory.h"

#include <stdarg.h>
#include <stdio.h>

void bench_rows_fini(BenchRows *rows)
{
    memory_free(rows->rows);
    *rows = (BenchRows){0};
}

void bench_rows_add(BenchRows *rows, const char *section, BenchUnit unit, double work, BenchTimes times,
                    const char *format, ...)
{
    size_t old = (size_t)rows->count * sizeof *rows->rows;
    rows->rows = memory_grow(rows->rows, old, old + sizeof *rows->rows);
    BenchRow *row = &rows->rows[rows->count++];
    *row = (BenchRow){.section = section, .unit = unit, .work = work, .times = times};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(row->name, sizeof row->name, format, arguments);
    va_end(arguments);
}

void bench_rows_take_limit(BenchRows *rows)
{
    CHECK(rows->count > 0);
    const BenchRow *row = &rows->rows[rows->count - 1];
    double best = row->work / row->times.minimum;
    if (best > rows->limit[row->unit]) rows->limit[row->unit] = best;
}

double bench_rows_rate(const BenchRow *row)
{
    return row->work / row->times.median;
}

double bench_rows_share(const BenchRows *rows, const BenchRow *row)
{
    double limit = rows->limit[row->unit];
    return limit > 0 ? bench_rows_rate(row) / limit : 0;
}
