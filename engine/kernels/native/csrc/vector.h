/* Vectors of 16 floats, by the compiler's vector extension: one AVX-512 register, two of AVX2, four of
 * NEON or SSE. Every kernel includes this. What the extension lacks is done by intrinsics where the
 * processor has them, else in plain C. */

#ifndef TIDEMILL_VECTOR_H
#define TIDEMILL_VECTOR_H

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline, unused))
#define UNROLL _Pragma("GCC unroll 16")
#define LANES 16

typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef uint32_t vu __attribute__((vector_size(64)));
typedef uint16_t vh __attribute__((vector_size(32)));
typedef uint8_t vb __attribute__((vector_size(16)));
typedef vf uvf __attribute__((aligned(4), may_alias));
typedef vi uvi __attribute__((aligned(4), may_alias));
typedef vh uvh __attribute__((aligned(2), may_alias));
typedef vb uvb __attribute__((aligned(1), may_alias));

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t ceiling(int64_t a, int64_t b) { return (a + b - 1) / b; }

INLINE vf splat(float x) { return (vf){} + x; }
INLINE vf pick(vi where, vf yes, vf no) { return (vf)(((vi)yes & where) | ((vi)no & ~where)); }
/* Each lane's number. */
static const vi NUMBERS = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

INLINE vf larger(vf a, vf b) { return pick(a > b, a, b); }
INLINE vf smaller(vf a, vf b) { return pick(a < b, a, b); }

/* Combine halves by `op` until one lane is left. */
#define REDUCE(x, op)                                                     \
    float half[8], quarter[4];                                            \
    for (int i = 0; i < 8; i++) half[i] = op(x[i], x[i + 8]);             \
    for (int i = 0; i < 4; i++) quarter[i] = op(half[i], half[i + 4]);    \
    float a = op(quarter[0], quarter[2]), b = op(quarter[1], quarter[3]); \
    return op(a, b);

INLINE float sum(vf x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)x);
#else
#define ADD(a, b) ((a) + (b))
    REDUCE(x, ADD)
#endif
}

INLINE float max_lane(vf x) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)x);
#else
#define MAX(a, b) ((a) > (b) ? (a) : (b))
    REDUCE(x, MAX)
#endif
}

/* Bit i is set if lane i is not 0. */
INLINE uint32_t bits_of(vi where) {
#if defined(__AVX512F__)
    return _mm512_test_epi32_mask((__m512i)where, (__m512i)where);
#else
    uint32_t bits = 0;
    for (int i = 0; i < LANES; i++) bits |= (uint32_t)(where[i] != 0) << i;
    return bits;
#endif
}

/* To the nearest whole number, ties to even, for |x| < 2^22: the addition rounds. */
INLINE vf rounded(vf x) { return x + 12582912.0f - 12582912.0f; }

/* 2^t for t <= 126: a power of two by its whole part, times a polynomial on [-1/2, 1/2] for the rest.
 * The relative error is below 8e-5, 3e-6 and 8e-8 for degrees 3, 4 and 5 (minimax fits). */
INLINE vf power_of_two(const int degree, vf t) {
    static const float fits[3][6] = {
        {0.99992807f, 0.69326100f, 0.24261111f, 0.05517157f, 0, 0},
        {0.99999926f, 0.69312181f, 0.24024745f, 0.05591786f, 0.00957009f, 0},
        {1.00000007f, 0.69314697f, 0.24022120f, 0.05550713f, 0.00967554f, 0.00132765f}};
    const float *fit = fits[degree - 3];
#if defined(__AVX512F__)
    vf n = (vf)_mm512_roundscale_ps((__m512)t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    t = larger(t, splat(-126.0f));
    vf n = rounded(t);
#endif
    vf f = t - n, p = splat(fit[degree]);
    UNROLL for (int i = degree - 1; i >= 0; i--) p = p * f + fit[i];
#if defined(__AVX512F__)
    return (vf)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
    return p * (vf)((__builtin_convertvector(n, vi) + 127) << 23);
#endif
}

/* x / (1 + e^-x) (SiLU, Elfwing et al. 2017). `rough`: to 2e-4, enough ahead of rounding. */
INLINE vf silu(const int rough, vf x) {
    vf e = power_of_two(rough ? 3 : 5, smaller(x * -1.44269504f, splat(126.0f))) + 1;
#if defined(__AVX512F__)
    if (rough) return x * (vf)_mm512_rcp14_ps((__m512)e);
#endif
    return x / e;
}

INLINE vf load_f32(const float *p) { return *(const uvf *)p; }
INLINE void put_f32(float *p, vf x) { *(uvf *)p = x; }
INLINE vi load_i32(const void *p) { return *(const uvi *)p; }

INLINE vf load_bf16(const uint16_t *p) {
    return (vf)(__builtin_convertvector(*(const uvh *)p, vu) << 16);
}

INLINE void put_bf16(uint16_t *p, vf x) { /* to nearest, ties to even */
#if defined(__AVX512BF16__)
    __m256bh narrow = _mm512_cvtneps_pbh((__m512)x);
    memcpy(p, &narrow, 32);
#else
    vu bits = (vu)x;
    *(uvh *)p = __builtin_convertvector((bits + 0x7fff + (bits >> 16 & 1)) >> 16, vh);
#endif
}

/* Whole numbers in floats to bytes. */
INLINE void put_u8(uint8_t *p, vf x) {
    vb bytes = __builtin_convertvector(__builtin_convertvector(x, vi), vb);
    memcpy(p, &bytes, LANES);
}

/* Floats from 0 to 255 to the nearest bytes. */
INLINE void put_rounded_u8(uint8_t *p, vf x) {
#if defined(__AVX512F__)
    _mm_storeu_si128((__m128i *)p, _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32((__m512)x)));
#else
    put_u8(p, rounded(x));
#endif
}

/* acc += u8 x s8: in each lane, four neighbouring products, exactly. */
INLINE vi dot_bytes(vi acc, vi u8, vi s8) {
#if defined(__AVX512VNNI__)
    return (vi)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)u8, (__m512i)s8);
#elif defined(__AVX2__)
    /* Widened to 16 bits, even and odd bytes apart: the products of maddubs would saturate. */
    __m256i a[2], b[2], c[2];
    memcpy(a, &u8, 64), memcpy(b, &s8, 64), memcpy(c, &acc, 64);
    for (int half = 0; half < 2; half++) {
        __m256i low = _mm256_set1_epi32(0x00ff00ff);
        __m256i even = _mm256_madd_epi16(_mm256_and_si256(a[half], low),
                                         _mm256_srai_epi16(_mm256_slli_epi16(b[half], 8), 8));
        __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(a[half], 8),
                                        _mm256_srai_epi16(b[half], 8));
        c[half] = _mm256_add_epi32(c[half], _mm256_add_epi32(even, odd));
    }
    memcpy(&acc, c, 64);
    return acc;
#else
    for (int i = 0; i < 4; i++) /* byte i of each lane, the first lowest */
        acc += (vi)((vu)u8 << (24 - 8 * i) >> 24) * (s8 << (24 - 8 * i) >> 24);
    return acc;
#endif
}

/* acc += bf16 x bf16: in each lane, two neighbouring products. */
INLINE vf dot_halves(vf acc, vi a, vi b) {
#if defined(__AVX512BF16__)
    return (vf)_mm512_dpbf16_ps((__m512)acc, (__m512bh)a, (__m512bh)b);
#else
    acc += (vf)(a << 16) * (vf)(b << 16);
    return acc + (vf)(a & (int32_t)0xffff0000) * (vf)(b & (int32_t)0xffff0000);
#endif
}

/* The four bytes at p, in every lane. */
INLINE vi broadcast(const void *p) {
    int32_t four;
    memcpy(&four, p, 4);
    return (vi){} + four;
}

#endif
