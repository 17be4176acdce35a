/* A decoder layer, the embedding before all of them and the head after, each in one call. */

#ifndef TIDEMILL_DECODER_H
#define TIDEMILL_DECODER_H

#include "attention.h"
#include "product.h"

typedef struct {
    int64_t hidden, inner, mixed; /* mixed: inner activations that `mix` runs over, 1 for none */
    const float *cosines, *sines; /* [positions, width / 2] */
    float eps, scale;             /* scale: of the scores */
} shape;

typedef struct {
    const float *attention_norm, *feed_forward_norm; /* [hidden] */
    const float *query_norm, *key_norm;              /* [width], or NULL */
    weight qkv, output, gate_up, down;
    cache kv;
} layer;

/* What a layer does, in this order, and the head. Between them all threads meet. */
enum { NORM, QKV, CACHE, ATTENTION, MERGE, OUTPUT, NORM_2, GATE_UP, MIX, DOWN, HEAD, PASSES };

/* What a step is computed in, for as many tokens as a step may have. */
typedef struct {
    float *residual; /* [tokens, hidden] */
    float *last;     /* the same of the tokens whose scores are wanted, from the last layer on */
    float *wide;     /* [tokens, the fused projection's outputs] and [tokens, inner] in turn */
    uint8_t *queries;
    rows hidden, mixed, inner; /* the inputs of qkv and gate_up, of output, and of down */
    rows final;                /* the input of the head, of as many tokens as it is wanted for */
    double *seconds;           /* [PASSES]: spent so far, as the first thread saw it */
} buffers;

#endif
