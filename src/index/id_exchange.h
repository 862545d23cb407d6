/* id_exchange.h - sends records to the ranks that own their ids, and answers back.
 *
 * Ids of 0 .. total - 1 belong to ranks by index_range_owner. A record is a few int64 numbers of which the
 * first is an id.
 */
#ifndef DINOBATCH_INDEX_ID_EXCHANGE_H
#define DINOBATCH_INDEX_ID_EXCHANGE_H

#include "comm/comm.h"

typedef struct {
    Comm *comm; /* borrowed */
    int64_t total;
    int64_t width;  /* numbers of a record */
    int64_t *sent;  /* [size] numbers that go to each rank; owned */
    int64_t *come;  /* [size] numbers that come from each; owned */
    int64_t *taken; /* [count, width] the records that came, in rank order; owned */
    int64_t count;
} IdExchange;

/* Sends records[n, width], ascending by id. Released by id_exchange_fini. Collective over COMM. */
void id_exchange_init(IdExchange *exchange, const int64_t *records, int64_t n, int64_t width, int64_t total,
                      Comm *comm);

/* out[n] = one answer for each record sent, in the order in which they were; answers[count] belong to the
 * records taken. Collective over COMM. */
void id_exchange_answer(const IdExchange *exchange, int64_t *out, const int64_t *answers);

void id_exchange_fini(IdExchange *exchange);

#endif
