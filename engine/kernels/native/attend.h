/* Attention of a few query rows over a range of one head's keys, a tile of four areas at a time.
 *
 * For each tile: scores of every row, softened to weights (online softmax, Milakov and Gimelshein
 * 2018; base 2, the queries being scaled for it), and the values mixed by them. Up to six rows share
 * each key and value in registers, up to MAX_ROWS in the first-level cache. Each step exists once an
 * element type. */

#ifndef TIDEMILL_ATTEND_H
#define TIDEMILL_ATTEND_H

#include "cache.h"

#define KEYS 64     /* of a tile */
#define AREAS 4     /* of a tile */
#define MAX_ROWS 24 /* query rows of a call */
#define SHARED 6    /* rows that go through registers together */
#define HIDDEN -1e30f
#define NOTHING -1e20f /* the greatest score of a row that has seen no key */

typedef struct {
    const uint8_t *query[MAX_ROWS];          /* encoded, scaled by log2(e) / sqrt(width) or the like */
    int64_t low[MAX_ROWS], high[MAX_ROWS];   /* keys that a row sees */
    float top[MAX_ROWS], total[MAX_ROWS];    /* greatest score, and the weights' sum relative to it */
    float *out[MAX_ROWS];                    /* [width]: weighted sum of values, not divided yet */
    float scores[MAX_ROWS][KEYS];
    uint8_t weights[MAX_ROWS][4 * KEYS];     /* as the values' kind multiplies them */
    float unit[MAX_ROWS], shrink[MAX_ROWS];  /* what a weight of 1 stands for; factor of the old sum */
} __attribute__((aligned(64))) attending;

/* Queries, encoded. Of bytes: values, their scale, and KEY_ZERO times their sum. */

INLINE void encode_query(const int kind, uint8_t *to, const float *x, int64_t width) {
    if (kind == KIND_F32) {
        memcpy(to, x, width * sizeof *x);
    } else if (kind == KIND_BF16) {
        for (int64_t d = 0; d < width; d += LANES) put_bf16((uint16_t *)to + d, load_f32(x + d));
    } else {
        vf q[MAX_WIDTH / LANES], total = splat(0);
        float scale = quantise(x, width, q);
        for (int64_t d = 0; d < width; d += LANES) {
            put_u8(to + d, q[d / LANES]);
            total += q[d / LANES];
        }
        int32_t zero = KEY_ZERO * (int32_t)sum(total);
        memcpy(to + width, &scale, 4);
        memcpy(to + width + 4, &zero, 4);
    }
}

/* Scores of R rows with the keys of AREAS areas. */

INLINE void scores_f32(const int R, attending *a, int r, uint8_t *const *area, int64_t width) {
    vf acc[R][AREAS];
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int j = 0; j < AREAS; j++) acc[i][j] = splat(0);
    for (int64_t d = 0; d < width; d++)
        UNROLL for (int i = 0; i < R; i++) {
            float q = ((const float *)a->query[r + i])[d];
            UNROLL for (int j = 0; j < AREAS; j++)
                acc[i][j] += q * load_f32((const float *)area[j] + d * AREA);
        }
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int j = 0; j < AREAS; j++)
        put_f32(a->scores[r + i] + AREA * j, acc[i][j]);
}

INLINE void scores_bf16(const int R, attending *a, int r, uint8_t *const *area, int64_t width) {
    vf acc[R][AREAS];
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int j = 0; j < AREAS; j++) acc[i][j] = splat(0);
    for (int64_t d = 0; d < width; d += 2)
        UNROLL for (int i = 0; i < R; i++) {
            vi q = broadcast(a->query[r + i] + 2 * d);
            UNROLL for (int j = 0; j < AREAS; j++)
                acc[i][j] = dot_halves(acc[i][j], load_i32(area[j] + d * 2 * AREA), q);
        }
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int j = 0; j < AREAS; j++)
        put_f32(a->scores[r + i] + AREA * j, acc[i][j]);
}

INLINE void scores_int8(const int R, attending *a, int r, uint8_t *const *area, int64_t width) {
    vi acc[R][AREAS];
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int j = 0; j < AREAS; j++) acc[i][j] = (vi){};
    for (int64_t d = 0; d < width; d += 4)
        UNROLL for (int i = 0; i < R; i++) {
            vi q = broadcast(a->query[r + i] + d);
            UNROLL for (int j = 0; j < AREAS; j++)
                acc[i][j] = dot_bytes(acc[i][j], load_i32(area[j] + d * AREA), q);
        }
    UNROLL for (int i = 0; i < R; i++) {
        float scale;
        int32_t zero;
        memcpy(&scale, a->query[r + i] + width, 4);
        memcpy(&zero, a->query[r + i] + width + 4, 4);
        UNROLL for (int j = 0; j < AREAS; j++) {
            vf keys = load_f32((const float *)(area[j] + 2 * AREA * width));
            vf exact = __builtin_convertvector(acc[i][j] - zero, vf);
            put_f32(a->scores[r + i] + AREA * j, exact * (keys * scale));
        }
    }
}

/* Scores to weights, of one row. `start`: position of the tile's first key. */
INLINE void soften(const int kind, attending *a, int r, int64_t start, uint8_t *const *area,
                   int64_t width) {
    vf s[AREAS], peak = splat(NOTHING);
    UNROLL for (int j = 0; j < AREAS; j++) s[j] = load_f32(a->scores[r] + AREA * j);
    if (start < a->low[r] || start + KEYS > a->high[r]) {
        const vi lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        int32_t low = a->low[r] - start > 0 ? least(a->low[r] - start, KEYS) : 0;
        int32_t high = a->high[r] - start > 0 ? least(a->high[r] - start, KEYS) : 0;
        UNROLL for (int j = 0; j < AREAS; j++)
            s[j] = pick((lane + AREA * j >= low) & (lane + AREA * j < high), s[j], splat(HIDDEN));
    }
    UNROLL for (int j = 0; j < AREAS; j++) peak = larger(peak, s[j]);
    float now = most(peak), shrink = 1;
    if (now > a->top[r]) {
        float old = a->top[r] - now;
        shrink = old < -126 ? 0 : exp2f(old);
        a->top[r] = now;
    }
    vf total = splat(0);
    UNROLL for (int j = 0; j < AREAS; j++) {
        s[j] = power_of_two(s[j] - a->top[r]);
        total += s[j];
    }
    a->total[r] = a->total[r] * shrink + sum(total);
    a->shrink[r] = shrink;
    if (kind == KIND_F32) {
        UNROLL for (int j = 0; j < AREAS; j++) put_f32((float *)a->weights[r] + AREA * j, s[j]);
    } else if (kind == KIND_BF16) {
        UNROLL for (int j = 0; j < AREAS; j++) put_bf16((uint16_t *)a->weights[r] + AREA * j, s[j]);
    } else { /* to bytes, with the values' scales among them */
        vf greatest = splat(1e-30f);
        UNROLL for (int j = 0; j < AREAS; j++) {
            s[j] *= load_f32((const float *)(area[j] + 2 * AREA * width) + AREA);
            greatest = larger(greatest, s[j]);
        }
        float unit = most(greatest) / 255, inverse = 1 / unit;
        UNROLL for (int j = 0; j < AREAS; j++)
            put_u8(a->weights[r] + AREA * j, rounded(s[j] * inverse));
        a->unit[r] = unit;
    }
}

/* N vectors of R rows' output, from vector `v` on: the values of `count` areas, weighted. */

INLINE void mix_f32(const int R, const int N, attending *a, int r, uint8_t *const *area, int count,
                    int64_t width, int64_t v) {
    vf acc[R][N];
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int n = 0; n < N; n++)
        acc[i][n] = load_f32(a->out[r + i] + LANES * (v + n)) * a->shrink[r + i];
    for (int j = 0; j < count; j++) {
        const float *values = (const float *)area[j] + AREA * width + LANES * v;
        for (int64_t at = 0; at < AREA; at++, values += width)
            UNROLL for (int i = 0; i < R; i++) {
                float w = ((const float *)a->weights[r + i])[j * AREA + at];
                UNROLL for (int n = 0; n < N; n++) acc[i][n] += w * load_f32(values + LANES * n);
            }
    }
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int n = 0; n < N; n++)
        put_f32(a->out[r + i] + LANES * (v + n), acc[i][n]);
}

INLINE void mix_bf16(const int R, const int N, attending *a, int r, uint8_t *const *area, int count,
                     int64_t width, int64_t v) {
    vf acc[R][N];
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int n = 0; n < N; n++)
        acc[i][n] = load_f32(a->out[r + i] + LANES * (v + n)) * a->shrink[r + i];
    for (int j = 0; j < count; j++) {
        const uint16_t *values = (const uint16_t *)area[j] + AREA * width + 2 * LANES * v;
        for (int64_t at = 0; at < AREA; at += 2, values += 2 * width)
            UNROLL for (int i = 0; i < R; i++) {
                vi w = broadcast((const uint16_t *)a->weights[r + i] + j * AREA + at);
                UNROLL for (int n = 0; n < N; n++)
                    acc[i][n] = dot_halves(acc[i][n], load_i32(values + 2 * LANES * n), w);
            }
    }
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int n = 0; n < N; n++)
        put_f32(a->out[r + i] + LANES * (v + n), acc[i][n]);
}

INLINE void mix_int8(const int R, const int N, attending *a, int r, uint8_t *const *area, int count,
                     int64_t width, int64_t v) {
    vi acc[R][N];
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int n = 0; n < N; n++) acc[i][n] = (vi){};
    for (int j = 0; j < count; j++) {
        const uint8_t *values = area[j] + AREA * width + 4 * LANES * v;
        for (int64_t at = 0; at < AREA; at += 4, values += 4 * width)
            UNROLL for (int i = 0; i < R; i++) {
                vi w = broadcast(a->weights[r + i] + j * AREA + at);
                UNROLL for (int n = 0; n < N; n++)
                    acc[i][n] = dot_bytes(acc[i][n], w, load_i32(values + 4 * LANES * n));
            }
    }
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int n = 0; n < N; n++) {
        float *out = a->out[r + i] + LANES * (v + n);
        put_f32(out, load_f32(out) * a->shrink[r + i] +
                         __builtin_convertvector(acc[i][n], vf) * a->unit[r + i]);
    }
}

#endif
