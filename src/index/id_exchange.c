/* id_exchange.c - see id_exchange.h. */
#include "index/id_exchange.h"

#include "base/memory.h"
#include "index/index_rows.h"

void id_exchange_init(IdExchange *exchange, const int64_t *records, int64_t n, int64_t width, int64_t total,
                      Comm *comm)
{
    size_t size = (size_t)comm_size(comm);
    *exchange = (IdExchange){.comm = comm,
                             .total = total,
                             .width = width,
                             .sent = memory_alloc_array(size, sizeof(int64_t)),
                             .come = memory_alloc_array(size, sizeof(int64_t))};
    for (int64_t i = 0; i < n; i++)
        exchange->sent[index_range_owner(total, records[i * width], (int)size)] += width;
    int64_t numbers = comm_exchange_counts(comm, exchange->come, exchange->sent);
    exchange->count = numbers / width;
    exchange->taken = memory_alloc_array((size_t)numbers, sizeof *exchange->taken);
    comm_all_to_all(comm, exchange->taken, exchange->come, records, exchange->sent, DTYPE_I64);
}

void id_exchange_answer(const IdExchange *exchange, int64_t *out, const int64_t *answers)
{
    size_t size = (size_t)comm_size(exchange->comm);
    int64_t *counts = memory_alloc_array(2 * size, sizeof *counts);
    for (size_t r = 0; r < size; r++) {
        counts[r] = exchange->sent[r] / exchange->width;
        counts[size + r] = exchange->come[r] / exchange->width;
    }
    comm_all_to_all(exchange->comm, out, counts, answers, counts + size, DTYPE_I64);
    memory_free(counts);
}

void id_exchange_fini(IdExchange *exchange)
{
    memory_free(exchange->sent);
    memory_free(exchange->come);
    memory_free(exchange->taken);
    *exchange = (IdExchange){0};
}
