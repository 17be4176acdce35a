/* The embedding, one decoder layer, and the head: each is one call. */

#ifndef TIDEMILL_DECODER_H
#define TIDEMILL_DECODER_H

#include "attention.h"
#include "product.h"

typedef struct {
    int64_t hidden, inner, hadamard; /* hadamard: the `count` of rows.h's transform, 1 for none */
    const float *cosines, *sines;    /* [positions, width / 2] */
    float eps, scale;                /* scale: of the scores */
} shape;

typedef struct {
    const float *attention_norm, *feed_forward_norm; /* [hidden] */
    const float *query_norm, *key_norm;              /* [width], or NULL */
    weight qkv, output, gate_up, down;
    cache kv;
} layer;

/* The passes of a layer, in order, and the head. Each is a stage of a region. */
enum { NORM, QKV, CACHE, ATTENTION, MERGE, OUTPUT, NORM_2, GATE_UP, HADAMARD, DOWN, HEAD, PASSES };

/* Memory that a step is computed in, for as many tokens as a step may have. */
typedef struct {
    float *residual; /* [tokens, hidden] */
    float *last; /* the residual of the tokens whose scores are wanted, from the last layer on */
    float *wide; /* [tokens, outputs of qkv], then [tokens, inner] */
    uint8_t *queries;
    rows hidden, attn_output, inner; /* inputs of qkv and gate_up; of output; of down */
    rows final;      /* input of the head, for as many tokens as one call of it takes */
    double *seconds; /* [PASSES]: spent so far, as the calling thread measures */
} buffers;

#endif
