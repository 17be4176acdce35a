/* Attention of a few query rows over a range of one head's keys, a strip of four tiles at a time.
 *
 * For each strip: the scores of every row; from them weights (online softmax, Milakov and Gimelshein
 * 2018; of base 2, for which the queries are scaled); and the sum of the values by these weights. Up to
 * six rows share each key and value in registers, up to MAX_ROWS in the first-level cache. There is one
 * version for each element type of the cache. */

#ifndef TIDEMILL_ATTEND_H
#define TIDEMILL_ATTEND_H

#include "cache.h"

#define KEYS 64        /* tokens of a strip */
#define STRIP 4        /* tiles of a strip */
#define MAX_ROWS 24    /* query rows of a call */
#define ROOM 32        /* MAX_ROWS, rounded up to whole vectors */
#define SHARED 6       /* rows that share registers */
#define HIDDEN -1e30f  /* the score of a key that a row does not see */
#define NOTHING -1e20f /* the maximum score of a row that has seen no key */

typedef struct {
    float top[ROOM], total[MAX_ROWS][LANES]; /* maximum score; sums of the weights relative to it */
    float peak[ROOM], shrink[ROOM];          /* the strip's maximum; factor for earlier results */
    float unit[ROOM];                        /* int8: what a stored weight of 1 stands for */
    float scores[MAX_ROWS][KEYS];
    uint8_t weights[MAX_ROWS][4 * KEYS]; /* in the element type of the values */
    const uint8_t *query[MAX_ROWS];      /* encoded; scaled by log2(e) times attention's scale */
    float *out[MAX_ROWS]; /* [width]: weighted sum of values, not divided by `total` */
    int64_t low[MAX_ROWS], high[MAX_ROWS]; /* each row sees keys [low, high) */
} __attribute__((aligned(64))) attending;

/* Encode a query as the cache's element type. Of int8: values, their scale, KEY_ZERO times their sum. */

INLINE void encode_query(const int kind, uint8_t *to, const float *x, int64_t width) {
    if (kind == KIND_F32) {
        memcpy(to, x, width * sizeof *x);
    } else if (kind == KIND_BF16) {
        for (int64_t d = 0; d < width; d += LANES) put_bf16((uint16_t *)to + d, load_f32(x + d));
    } else {
        vf q[MAX_WIDTH / LANES], total = splat(0);
        float scale = quantize(x, width, q);
        for (int64_t d = 0; d < width; d += LANES) {
            put_u8(to + d, q[d / LANES]);
            total += q[d / LANES];
        }
        int32_t zero = KEY_ZERO * (int32_t)sum(total);
        memcpy(to + width, &scale, 4);
        memcpy(to + width + 4, &zero, 4);
    }
}

/* Scores of R rows with the keys of a strip. */

INLINE void scores_f32(const int R, attending *a, int r, uint8_t *const *tile, int64_t width) {
    vf acc[R][STRIP];
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int j = 0; j < STRIP; j++) acc[i][j] = splat(0);
    for (int64_t d = 0; d < width; d++)
        UNROLL for (int i = 0; i < R; i++) {
            float q = ((const float *)a->query[r + i])[d];
            UNROLL for (int j = 0; j < STRIP; j++)
                acc[i][j] += q * load_f32((const float *)tile[j] + d * TILE);
        }
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int j = 0; j < STRIP; j++)
        put_f32(a->scores[r + i] + TILE * j, acc[i][j]);
}

INLINE void scores_bf16(const int R, attending *a, int r, uint8_t *const *tile, int64_t width) {
    vf acc[R][STRIP];
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int j = 0; j < STRIP; j++) acc[i][j] = splat(0);
    for (int64_t d = 0; d < width; d += 2)
        UNROLL for (int i = 0; i < R; i++) {
            vi q = broadcast(a->query[r + i] + 2 * d);
            UNROLL for (int j = 0; j < STRIP; j++)
                acc[i][j] = dot_halves(acc[i][j], load_i32(tile[j] + d * 2 * TILE), q);
        }
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int j = 0; j < STRIP; j++)
        put_f32(a->scores[r + i] + TILE * j, acc[i][j]);
}

INLINE void scores_int8(const int R, attending *a, int r, uint8_t *const *tile, int64_t width) {
    vi acc[R][STRIP];
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int j = 0; j < STRIP; j++) acc[i][j] = (vi){};
    for (int64_t d = 0; d < width; d += 4)
        UNROLL for (int i = 0; i < R; i++) {
            vi q = broadcast(a->query[r + i] + d);
            UNROLL for (int j = 0; j < STRIP; j++)
                acc[i][j] = dot_bytes(acc[i][j], load_i32(tile[j] + d * TILE), q);
        }
    UNROLL for (int i = 0; i < R; i++) {
        float scale;
        int32_t zero;
        memcpy(&scale, a->query[r + i] + width, 4);
        memcpy(&zero, a->query[r + i] + width + 4, 4);
        UNROLL for (int j = 0; j < STRIP; j++) {
            vf keys = load_f32((const float *)(tile[j] + 2 * TILE * width));
            vf exact = __builtin_convertvector(acc[i][j] - zero, vf);
            put_f32(a->scores[r + i] + TILE * j, exact * (keys * scale));
        }
    }
}

/* Set one row's scores of the strip to HIDDEN where it does not see the key. */
INLINE void hide(attending *a, int r, int64_t start) {
    int32_t low = a->low[r] - start > 0 ? least(a->low[r] - start, KEYS) : 0;
    int32_t high = a->high[r] - start > 0 ? least(a->high[r] - start, KEYS) : 0;
    UNROLL for (int j = 0; j < STRIP; j++) {
        vf s = load_f32(a->scores[r] + TILE * j);
        vi seen = (NUMBERS + TILE * j >= low) & (NUMBERS + TILE * j < high);
        put_f32(a->scores[r] + TILE * j, pick(seen, s, splat(HIDDEN)));
    }
}

/* The scales of a strip's values, stretched so that their maximum is 255. Returns what 1 stands for.
 * Only the first `seen` keys count: the rest of the strip holds old data. */
INLINE float stretch(uint8_t *const *tile, int64_t width, int64_t seen, vf *scales) {
    int32_t end = least(seen, KEYS);
    vf maximum = splat(1e-30f);
    UNROLL for (int j = 0; j < STRIP; j++) {
        scales[j] = load_f32((const float *)(tile[j] + 2 * TILE * width) + TILE);
        scales[j] = pick(NUMBERS + TILE * j < end, scales[j], splat(0));
        maximum = larger(maximum, scales[j]);
    }
    float unit = max_lane(maximum) / 255;
    UNROLL for (int j = 0; j < STRIP; j++) scales[j] *= 1 / unit;
    return unit;
}

/* Turn the scores of all rows to weights. `start`: position of the strip's first key; `end`: past the
 * last key that any row sees.
 *
 * Weights are relative to each row's maximum score so far. Those of int8 are relative to the strip's
 * maximum and include the values' scales, so that they use all of a byte's 256 steps. */
INLINE void online_softmax(const int kind, attending *a, int rows, int64_t start, int64_t end,
                   uint8_t *const *tile, int64_t width) {
    const int degree = kind == KIND_F32 ? 5 : kind == KIND_BF16 ? 4 : 3;
    vf scales[STRIP];
    float unit = kind == KIND_INT8 ? stretch(tile, width, end - start, scales) : 0;
    for (int r = 0; r < rows; r++) {
        if (start < a->low[r] || start + KEYS > a->high[r]) hide(a, r, start);
        vf peak = splat(NOTHING);
        UNROLL for (int j = 0; j < STRIP; j++)
            peak = larger(peak, load_f32(a->scores[r] + TILE * j));
        a->peak[r] = max_lane(peak);
    }
    for (int r = 0; r < rows; r += LANES) {
        vf peak = load_f32(a->peak + r), old = load_f32(a->top + r), top = larger(old, peak);
        put_f32(a->shrink + r, power_of_two(5, old - top));
        put_f32(a->unit + r, power_of_two(5, peak - top) * unit);
        put_f32(a->top + r, top);
    }
    for (int r = 0; r < rows; r++) {
        float base = kind == KIND_INT8 ? a->peak[r] : a->top[r];
        float weigh = kind == KIND_INT8 ? a->unit[r] / unit : 1;
        vf sum = splat(0);
        UNROLL for (int j = 0; j < STRIP; j++) {
            vf w = power_of_two(degree, load_f32(a->scores[r] + TILE * j) - base);
            sum += w;
            if (kind == KIND_F32)
                put_f32((float *)a->weights[r] + TILE * j, w);
            else if (kind == KIND_BF16)
                put_bf16((uint16_t *)a->weights[r] + TILE * j, w);
            else
                put_rounded_u8(a->weights[r] + TILE * j, w * scales[j]);
        }
        put_f32(a->total[r], load_f32(a->total[r]) * a->shrink[r] + sum * weigh);
    }
}

/* Add the weighted values of `count` tiles to the output of R rows: N vectors of it, from vector `v`. */

INLINE void accumulate_f32(const int R, const int N, attending *a, int r, uint8_t *const *tile, int count,
                    int64_t width, int64_t v) {
    vf acc[R][N];
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int n = 0; n < N; n++)
        acc[i][n] = load_f32(a->out[r + i] + LANES * (v + n)) * a->shrink[r + i];
    for (int j = 0; j < count; j++) {
        const float *values = (const float *)tile[j] + TILE * width + LANES * v;
        for (int64_t at = 0; at < TILE; at++, values += width)
            UNROLL for (int i = 0; i < R; i++) {
                float w = ((const float *)a->weights[r + i])[j * TILE + at];
                UNROLL for (int n = 0; n < N; n++) acc[i][n] += w * load_f32(values + LANES * n);
            }
    }
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int n = 0; n < N; n++)
        put_f32(a->out[r + i] + LANES * (v + n), acc[i][n]);
}

INLINE void accumulate_bf16(const int R, const int N, attending *a, int r, uint8_t *const *tile, int count,
                     int64_t width, int64_t v) {
    vf acc[R][N];
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int n = 0; n < N; n++)
        acc[i][n] = load_f32(a->out[r + i] + LANES * (v + n)) * a->shrink[r + i];
    for (int j = 0; j < count; j++) {
        const uint16_t *values = (const uint16_t *)tile[j] + TILE * width + 2 * LANES * v;
        for (int64_t at = 0; at < TILE; at += 2, values += 2 * width)
            UNROLL for (int i = 0; i < R; i++) {
                vi w = broadcast((const uint16_t *)a->weights[r + i] + j * TILE + at);
                UNROLL for (int n = 0; n < N; n++)
                    acc[i][n] = dot_halves(acc[i][n], load_i32(values + 2 * LANES * n), w);
            }
    }
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int n = 0; n < N; n++)
        put_f32(a->out[r + i] + LANES * (v + n), acc[i][n]);
}

INLINE void accumulate_int8(const int R, const int N, attending *a, int r, uint8_t *const *tile, int count,
                     int64_t width, int64_t v) {
    vi acc[R][N];
    UNROLL for (int i = 0; i < R; i++) UNROLL for (int n = 0; n < N; n++) acc[i][n] = (vi){};
    for (int j = 0; j < count; j++) {
        const uint8_t *values = tile[j] + TILE * width + 4 * LANES * v;
        for (int64_t at = 0; at < TILE; at += 4, values += 4 * width)
            UNROLL for (int i = 0; i < R; i++) {
                vi w = broadcast(a->weights[r + i] + j * TILE + at);
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
