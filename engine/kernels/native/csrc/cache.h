/* The paged KV cache of one layer, in the order in which attention multiplies it.
 *
 * Memory is [block][layer][area of the block][key head], so that a block is one piece of memory. An
 * area holds 16 tokens of a head: their keys, their values, and, of bytes, their scales. As many
 * dimensions (of keys) or tokens (of values) lie side by side as one instruction multiplies, n = 1, 2
 * and 4 for float, bf16 and bytes:
 *     keys [width / n][token][n], values [token / n][width][n], scales of keys [16], of values [16].
 * So a key's products with a query need no sum across a vector. A block of 16 m tokens is m areas. */

#ifndef TIDEMILL_CACHE_H
#define TIDEMILL_CACHE_H

#include "rows.h"

#define AREA LANES /* tokens of an area */
#define MAX_WIDTH 256
#define KEY_ZERO 128 /* keys are kept as unsigned bytes, k = scale (q - 128) */

typedef struct {
    int64_t kind; /* of its elements: KIND_F32, KIND_BF16 or KIND_INT8 */
    int64_t heads, kv_heads, width, areas; /* areas: of a block */
    int64_t area_bytes, block_bytes, query_bytes; /* block_bytes: from block to block */
    uint8_t *memory;                              /* this layer's part of the first block */
} cache;

INLINE uint8_t *area_of(const cache *c, const int32_t *table, int64_t area, int64_t kv_head) {
    return c->memory + table[area / c->areas] * c->block_bytes +
           (area % c->areas * c->kv_heads + kv_head) * c->area_bytes;
}

INLINE float *key_scales(const cache *c, uint8_t *area) {
    return (float *)(area + 2 * AREA * c->width);
}

INLINE void store_f32(const cache *c, uint8_t *area, int64_t at, const float *k, const float *v) {
    float *keys = (float *)area, *values = keys + AREA * c->width;
    for (int64_t d = 0; d < c->width; d++) keys[d * AREA + at] = k[d];
    memcpy(values + at * c->width, v, c->width * sizeof *v);
}

INLINE void store_bf16(const cache *c, uint8_t *area, int64_t at, const float *k, const float *v) {
    uint16_t *keys = (uint16_t *)area, *values = keys + AREA * c->width, narrow[MAX_WIDTH];
    for (int64_t d = 0; d < c->width; d += LANES) put_bf16(narrow + d, load_f32(k + d));
    for (int64_t d = 0; d < c->width; d += 2) memcpy(keys + d * AREA + at * 2, narrow + d, 4);
    for (int64_t d = 0; d < c->width; d += LANES) put_bf16(narrow + d, load_f32(v + d));
    values += at / 2 * c->width * 2 + at % 2;
    for (int64_t d = 0; d < c->width; d++) values[d * 2] = narrow[d];
}

/* A vector of `width` floats to whole numbers from -127 to 127; returns what 1 stands for. */
INLINE float quantize(const float *x, int64_t width, vf *q) {
    float scale = greatest_of(x, width) / 127, inverse = scale > 0 ? 1 / scale : 0;
    for (int64_t d = 0; d < width; d += LANES)
        q[d / LANES] = rounded(load_f32(x + d) * inverse);
    return scale;
}

INLINE void store_int8(const cache *c, uint8_t *area, int64_t at, const float *k, const float *v) {
    vf q[MAX_WIDTH / LANES];
    uint8_t bytes[MAX_WIDTH], *values = area + AREA * c->width + at / 4 * c->width * 4;
    float *scales = key_scales(c, area);
    scales[at] = quantize(k, c->width, q);
    for (int64_t d = 0; d < c->width; d += LANES) put_u8(bytes + d, q[d / LANES] + KEY_ZERO);
    for (int64_t d = 0; d < c->width; d += 4) memcpy(area + d * AREA + at * 4, bytes + d, 4);
    scales[AREA + at] = quantize(v, c->width, q);
    for (int64_t d = 0; d < c->width; d += LANES) put_u8(bytes + d, q[d / LANES]);
    /* Byte by byte: another thread may be at this token's neighbours. */
    for (int64_t d = 0; d < c->width; d++) values[d * 4 + at % 4] = bytes[d];
}

INLINE void mend(float *x, int64_t width) {
    for (int64_t d = 0; d < width; d += LANES) {
        vf y = load_f32(x + d);
        put_f32(x + d, pick(larger(y, -y) <= 3e38f, y, splat(0)));
    }
}

/* Keep one token's key and value [width] of one head. What is no number becomes 0, here and in them:
 * a block outlives its sequence, and the next one multiplies what it does not see by 0. */
INLINE void store(const cache *c, uint8_t *area, int64_t at, float *k, float *v) {
    mend(k, c->width);
    mend(v, c->width);
    switch (c->kind) {
    case KIND_F32: store_f32(c, area, at, k, v); break;
    case KIND_BF16: store_bf16(c, area, at, k, v); break;
    default: store_int8(c, area, at, k, v);
    }
}

#endif
