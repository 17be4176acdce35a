/* Single kernels, floats in and floats out: for tests and measurements. */

#include "attention.h"
#include "product.h"

typedef struct {
    const float *x;
    const rows *room;
    const product *p;
} linear_job;

static void run_linear(const void *job, team *all, int64_t me) {
    const linear_job *j = job;
    FOR_CLAIMED(t, j->p->tokens, all, 0) encode(j->room, t, j->x + t * j->room->width);
    wait_for(all, 0, j->p->tokens);
    multiply(j->p, all, 1, me);
}

/* out = x weight^T + bias. x [tokens, inputs] is encoded into `room` first. */
void linear(const float *x, const rows *room, const weight *w, int64_t tokens, int64_t end,
            float *out, int64_t threads) {
    int64_t stride = end == END_GATE ? w->outputs / 2 : w->outputs;
    product p = {room, w, tokens, end, out, stride, NULL};
    linear_job job = {x, room, &p};
    region(run_linear, &job, threads);
}

typedef struct {
    const step *s;
    const cache *c;
    const segment_list *list;
    const float *queries;
    float *keys, *values;
    uint8_t *encoded;
    float *out;
} attention_job;

INLINE void store_token(const attention_job *j, int64_t t) {
    const step *s = j->s;
    const cache *c = j->c;
    const int32_t *table = s->tables + s->slots[s->owners[t]] * s->stride;
    int64_t at = s->positions[t];
    for (int64_t h = 0; h < c->heads; h++)
        encode_query(c->kind, j->encoded + (t * c->heads + h) * c->query_bytes,
                     j->queries + (t * c->heads + h) * c->width, c->width);
    for (int64_t h = 0; h < c->kv_heads; h++)
        store(c, tile_at(c, table, at / TILE, h), at % TILE,
              j->keys + (t * c->kv_heads + h) * c->width,
              j->values + (t * c->kv_heads + h) * c->width);
}

static void run_attention(const void *job, team *all, int64_t me) {
    const attention_job *j = job;
    int64_t tokens = j->s->tokens, width = j->c->heads * j->c->width;
    (void)me;
    FOR_CLAIMED(t, tokens, all, 0) store_token(j, t);
    wait_for(all, 0, tokens);
    attend_step(j->list, j->s, j->c, j->encoded, all, 1);
    FOR_CLAIMED(t, tokens, all, 2) merge(j->list, j->c, t, j->out + t * width);
}

/* Store a step's keys and values [tokens, kv_heads, width], then compute attention of its queries
 * [tokens, heads, width], which are scaled by log2(e) times attention's scale. Keys and values that are
 * not finite become 0, also in the arguments. `encoded`: memory for the encoded queries. */
void attention(const step *s, const cache *c, const segment_list *list, const float *queries,
               float *keys, float *values, uint8_t *encoded, float *out, int64_t threads) {
    attention_job job = {s, c, list, queries, keys, values, encoded, out};
    region(run_attention, &job, threads);
}
