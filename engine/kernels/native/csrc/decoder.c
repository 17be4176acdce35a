/* See decoder.h. A function runs one parallel region, in which every pass is a stage. */

#include "decoder.h"

#include <time.h>

#define LOG2_E 1.44269504f
#define MAX_HIDDEN 16384 /* floats of a row on the stack */

/* Row `t` of `to` = the norm of `x`; `row` is memory for it as floats. */
INLINE void normalized(const float *x, const float *weight, const rows *to, int64_t t, float eps,
                       float *row) {
    rms_norm(x, weight, row, to->width, eps);
    encode(to, t, row);
}

/* Rotate each pair of a head's halves by its angle (RoPE, Su et al. 2021). */
INLINE void apply_rope(float *x, const float *cosines, const float *sines, int64_t width) {
    int64_t half = width / 2, d = 0;
    for (; d + LANES <= half; d += LANES) {
        vf a = load_f32(x + d), b = load_f32(x + half + d);
        vf c = load_f32(cosines + d), s = load_f32(sines + d);
        put_f32(x + d, a * c - b * s);
        put_f32(x + half + d, b * c + a * s);
    }
    for (; d < half; d++) {
        float a = x[d], b = x[half + d];
        x[d] = a * cosines[d] - b * sines[d];
        x[half + d] = b * cosines[d] + a * sines[d];
    }
}

/* Norm, if there is one, and rotary embedding of one head. */
INLINE void place(float *x, const float *norm, const shape *m, const cache *c, int64_t position) {
    if (norm) rms_norm(x, norm, x, c->width, m->eps);
    apply_rope(x, m->cosines + position * c->width / 2, m->sines + position * c->width / 2,
               c->width);
}

INLINE const int32_t *table_of(const step *s, int64_t t) {
    return s->tables + s->slots[s->owners[t]] * s->stride;
}

/* From one token's row [queries | keys | values]: encode the queries, store keys and values. */
INLINE void deal(const shape *m, const layer *l, const step *s, const buffers *b, int64_t t) {
    const cache *c = &l->kv;
    int64_t width = c->width, position = s->positions[t];
    float *query = b->wide + t * l->qkv.outputs, *key = query + c->heads * width;
    float *value = key + c->kv_heads * width, factor = m->scale * LOG2_E;
    uint8_t *encoded = b->queries + t * c->heads * c->query_bytes;
    for (int64_t h = 0; h < c->heads; h++, query += width, encoded += c->query_bytes) {
        place(query, l->query_norm, m, c, position);
        for (int64_t d = 0; d < width; d += LANES) put_f32(query + d, load_f32(query + d) * factor);
        encode_query(c->kind, encoded, query, width);
    }
    const int32_t *table = table_of(s, t);
    for (int64_t h = 0; h < c->kv_heads; h++, key += width, value += width) {
        place(key, l->key_norm, m, c, position);
        store(c, tile_at(c, table, position / TILE, h), position % TILE, key, value);
    }
}

/* Note how long a pass took, in the calling thread. */
INLINE void timed(const buffers *b, int pass, int64_t me, double *since) {
    if (me) return;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    double now = t.tv_sec + t.tv_nsec * 1e-9;
    if (*since) b->seconds[pass] += now - *since;
    *since = now;
}

/* End a pass of `count` units that threads claim one by one. */
INLINE void done(const buffers *b, team *all, int pass, int64_t count, int64_t me, double *since) {
    wait_for(all, pass, count);
    timed(b, pass, me, since);
}

typedef struct {
    const shape *m;
    const layer *l;
    const step *s;
    const segment_list *list;
    const buffers *b;
    const int64_t *picked;
    int64_t count;
} layer_job;

static void run_layer(const void *job, team *all, int64_t me) {
    const layer_job *j = job;
    const shape *m = j->m;
    const layer *l = j->l;
    const step *s = j->s;
    const segment_list *list = j->list;
    const buffers *b = j->b;
    const int64_t *picked = j->picked;
    int64_t tokens = s->tokens, hidden = m->hidden, left = picked ? j->count : tokens;
    float *residual = picked ? b->last : b->residual;
    product qkv = {&b->hidden, &l->qkv, tokens, END_PUT, b->wide, l->qkv.outputs, NULL};
    product output = {&b->attn_output, &l->output, left, END_ADD, residual, hidden, NULL};
    product gate_up = {&b->hidden, &l->gate_up, left, END_GATE, b->wide, m->inner, NULL};
    product down = {&b->inner, &l->down, left, END_ADD, residual, hidden, NULL};
    float row[MAX_HIDDEN];
    double since = 0;
    timed(b, NORM, me, &since);
    FOR_CLAIMED(t, tokens, all, NORM)
    normalized(b->residual + t * hidden, l->attention_norm, &b->hidden, t, m->eps, row);
    done(b, all, NORM, tokens, me, &since);
    multiply(&qkv, all, QKV, me);
    timed(b, QKV, me, &since);
    FOR_CLAIMED(t, tokens, all, CACHE) deal(m, l, s, b, t);
    done(b, all, CACHE, tokens, me, &since);
    attend_step(list, s, &l->kv, b->queries, all, ATTENTION);
    timed(b, ATTENTION, me, &since);
    FOR_CLAIMED(i, left, all, MERGE) {
        int64_t t = picked ? picked[i] : i;
        if (picked) memcpy(b->last + i * hidden, b->residual + t * hidden, hidden * sizeof *row);
        merge(list, &l->kv, t, row);
        encode(&b->attn_output, i, row);
    }
    done(b, all, MERGE, left, me, &since);
    multiply(&output, all, OUTPUT, me);
    timed(b, OUTPUT, me, &since);
    FOR_CLAIMED(t, left, all, NORM_2)
    normalized(residual + t * hidden, l->feed_forward_norm, &b->hidden, t, m->eps, row);
    done(b, all, NORM_2, left, me, &since);
    multiply(&gate_up, all, GATE_UP, me);
    timed(b, GATE_UP, me, &since);
    FOR_CLAIMED(t, left, all, HADAMARD) {
        hadamard(b->wide + t * m->inner, m->inner, m->hadamard);
        encode(&b->inner, t, b->wide + t * m->inner);
    }
    done(b, all, HADAMARD, left, me, &since);
    multiply(&down, all, DOWN, me);
    timed(b, DOWN, me, &since);
}

/* One layer. picked [count]: in the last layer, the tokens whose scores are wanted. Only their rows are
 * computed after keys and values are stored; they move to `last`. NULL in every other layer. */
void decoder_layer(const shape *m, const layer *l, const step *s, const segment_list *list,
                   const buffers *b, const int64_t *picked, int64_t count, int64_t threads) {
    layer_job job = {m, l, s, list, b, picked, count};
    region(run_layer, &job, threads);
}

/* residual = the tokens' rows of the embedding, a table of floats or bf16. */
void decoder_embed(const shape *m, const void *table, int64_t kind, const step *s,
                   const buffers *b) {
    for (int64_t t = 0; t < s->tokens; t++) {
        float *to = b->residual + t * m->hidden;
        const uint8_t *from = table;
        from += s->token_ids[t] * m->hidden * (kind == KIND_F32 ? 4 : 2);
        if (kind == KIND_F32)
            memcpy(to, from, m->hidden * sizeof *to);
        else
            for (int64_t d = 0; d < m->hidden; d += LANES)
                put_f32(to + d, load_bf16((const uint16_t *)from + d));
    }
}

typedef struct {
    const shape *m;
    const float *norm;
    const buffers *b;
    int64_t first, count;
    const product *scores;
} head_job;

static void run_head(const void *job, team *all, int64_t me) {
    const head_job *j = job;
    const buffers *b = j->b;
    int64_t hidden = j->m->hidden;
    float row[MAX_HIDDEN];
    double since = 0;
    timed(b, HEAD, me, &since);
    FOR_CLAIMED(i, j->count, all, NORM)
    normalized(b->last + (j->first + i) * hidden, j->norm, &b->final, i, j->m->eps, row);
    wait_for(all, NORM, j->count);
    multiply(j->scores, all, HEAD, me);
    timed(b, HEAD, me, &since);
}

/* Scores of the vocabulary for rows [first, first + count) of `last`, and the argmax of each row.
 *
 * argmaxes [threads * count]: memory to work in. chosen [count]. logits [count, outputs], or NULL if
 * nobody reads them. */
void decoder_head(const shape *m, const float *norm, const weight *head, const buffers *b,
                  int64_t first, int64_t count, argmax *argmaxes, int64_t *chosen, float *logits,
                  int64_t threads) {
    product scores = {&b->final, head, count, END_ARGMAX, logits, head->outputs, argmaxes};
    head_job job = {m, norm, b, first, count, &scores};
    for (int64_t i = 0; i < threads * count; i++) argmaxes[i] = (argmax){-INFINITY, 0};
    region(run_head, &job, threads);
    for (int64_t i = 0; i < count; i++) {
        argmax found = argmaxes[i];
        for (int64_t thread = 1; thread < threads; thread++) {
            argmax other = argmaxes[thread * count + i];
            int earlier = other.value == found.value && other.channel < found.channel;
            if (other.value > found.value || earlier) found = other;
        }
        chosen[i] = found.channel;
    }
}

/* Sizes of the structs that a caller fills, to compare with its own declarations. */
void struct_sizes(int64_t *sizes) {
    const int64_t own[] = {sizeof(rows),  sizeof(weight), sizeof(cache),   sizeof(step),
                           sizeof(shape), sizeof(layer),  sizeof(buffers), sizeof(argmax)};
    memcpy(sizes, own, sizeof own);
}
