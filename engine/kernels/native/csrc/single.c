/* Single kernels, floats in and floats out: for tests and measurements. */

#include "attention.h"
#include "product.h"

/* out = x weight^T + bias. x [tokens, inputs] is encoded into `room` first. */
void linear(const float *x, const rows *room, const weight *w, int64_t tokens, int64_t end,
            float *out, int64_t threads) {
    team all = {threads, {0}};
    int64_t stride = end == END_GATE ? w->outputs / 2 : w->outputs;
    product p = {room, w, tokens, end, out, stride, NULL};
#pragma omp parallel num_threads((int)threads)
    {
        int64_t me = omp_get_thread_num();
        FOR_SHARE(t, tokens, me) encode(room, t, x + t * room->width);
        together();
        multiply(&p, &all, 0, me);
    }
}

/* Store a step's keys and values [tokens, kv_heads, width], then compute attention of its queries
 * [tokens, heads, width], which are scaled by log2(e) times attention's scale. Keys and values that are
 * not finite become 0, also in the arguments. `encoded`: memory for the encoded queries. */
void attention(const step *s, const cache *c, const segment_list *list, const float *queries,
               float *keys, float *values, uint8_t *encoded, float *out, int64_t threads) {
    team all = {threads, {0}};
#pragma omp parallel num_threads((int)threads)
    {
        int64_t me = omp_get_thread_num();
        FOR_SHARE(t, s->tokens, me) {
            const int32_t *table = s->tables + s->slots[s->owners[t]] * s->stride;
            int64_t at = s->positions[t];
            for (int64_t h = 0; h < c->heads; h++)
                encode_query(c->kind, encoded + (t * c->heads + h) * c->query_bytes,
                             queries + (t * c->heads + h) * c->width, c->width);
            for (int64_t h = 0; h < c->kv_heads; h++)
                store(c, tile_at(c, table, at / TILE, h), at % TILE,
                      keys + (t * c->kv_heads + h) * c->width,
                      values + (t * c->kv_heads + h) * c->width);
        }
        together();
        attend_step(list, s, c, encoded, &all, 0);
        together();
        FOR_SHARE(t, s->tokens, me) merge(list, c, t, out + t * c->heads * c->width);
    }
}
