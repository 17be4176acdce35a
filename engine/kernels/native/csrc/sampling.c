/* Draws a token from each row of logits. Called through `sampling.py`.
 *
 * A row's weights are e^((logit - maximum) / temperature). Sort the row by weight and, where weights are
 * equal, by token: top-k and top-p (nucleus, Holtzman et al. 2020) keep the beginning of it. Nothing is
 * sorted for that: a histogram finds the last token that is kept. Then the draw inverts the cumulative
 * sum of the kept weights, in the order of tokens, at one uniform number (Devroye 1986, section II.2). */

#include <stdlib.h>

#include "team.h"

#define BUCKETS 0x3f81 /* upper halves of the floats from 0 to 1 */
#define RUN 1024       /* tokens that are summed in float at a time; a multiple of LANES */

typedef struct {
    float temperature, top_p, min_p, uniform; /* temperature 0: argmax */
    int32_t top_k;                            /* 0: all */
} draw;

typedef struct {
    float value;
    int32_t token;
} candidate;

/* Memory to work in, for one thread's row. */
typedef struct {
    float *weights;      /* [vocab], padded with zeros to whole runs */
    candidate *boundary; /* [vocab] */
    int32_t counts[BUCKETS];
    double masses[BUCKETS];
} room;

/* What is kept: all up to `last` in sorted order, and weights of at least `least` (min-p). */
typedef struct {
    candidate last;
    float least;
} keep;

static int64_t argmax(const float *x, int64_t count) {
    vf top = splat(-INFINITY);
    int64_t whole = count / LANES * LANES;
    for (int64_t i = 0; i < whole; i += LANES) top = larger(load_f32(x + i), top); /* not NaN */
    float value = max_lane(top);
    for (int64_t i = whole; i < count; i++) value = x[i] > value ? x[i] : value;
    for (int64_t i = 0; i < whole; i += LANES) {
        uint32_t bits = bits_of(load_f32(x + i) == value);
        if (bits) return i + __builtin_ctz(bits);
    }
    int64_t at = whole < count ? whole : 0;
    while (at + 1 < count && x[at] != value) at++;
    return at;
}

/* Write a row's weights to `w`, padded with zeros. Returns their sum. */
static double weigh(const float *logits, int64_t vocab, float temperature, float *w) {
    float peak = logits[argmax(logits, vocab)], factor = 1.44269504f / temperature;
    int64_t padded = ceiling(vocab, RUN) * RUN;
    memcpy(w, logits, vocab * sizeof *w);
    for (int64_t i = vocab; i < padded; i++) w[i] = -INFINITY;
    double total = 0;
    for (int64_t start = 0; start < padded; start += RUN) {
        vf sums = splat(0);
        for (int64_t i = start; i < start + RUN; i += LANES) {
            vf t = (load_f32(w + i) - peak) * factor;
            vf e = pick(t > -126.0f, power_of_two(5, larger(t, splat(-126.0f))), splat(0));
            put_f32(w + i, e);
            sums += e;
        }
        total += sum(sums);
    }
    return total;
}

static int bucket_of(float weight) { /* weight: from 0 to 1, but for rounding */
    uint32_t bits;
    memcpy(&bits, &weight, 4);
    return least(bits >> 16, BUCKETS - 1);
}

static int before(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->value != y->value) return x->value > y->value ? -1 : 1;
    return x->token - y->token;
}

/* How many weights are at least `least`, and their sum. */
static int64_t above(const float *w, int64_t vocab, float least, double *mass) {
    int64_t tokens = 0;
    vf sums = splat(0);
    for (int64_t i = 0; i < vocab; i += LANES) {
        vf x = load_f32(w + i);
        tokens += __builtin_popcount(bits_of(x >= least));
        sums += pick(x >= least, x, splat(0));
    }
    *mass = sum(sums);
    return tokens;
}

/* Fill the histogram with the weights that are at least `least` and not 0. */
static void count(room *r, int64_t vocab, float least) {
    memset(r->counts, 0, sizeof r->counts);
    memset(r->masses, 0, sizeof r->masses);
    for (int64_t i = 0; i < vocab; i += LANES) {
        vf x = load_f32(r->weights + i);
        for (uint32_t bits = bits_of((x >= least) & (x > 0)); bits; bits &= bits - 1) {
            float weight = r->weights[i + __builtin_ctz(bits)];
            int b = bucket_of(weight);
            r->counts[b]++;
            r->masses[b] += weight;
        }
    }
}

/* Go through the counted weights in descending order until there are `most_tokens` or their sum is at
 * least `most_mass`. Returns whether it came to that, and then the last token and the sum. */
static int walk(room *r, int64_t vocab, int64_t most_tokens, double most_mass, candidate *last,
                double *mass) {
    int64_t tokens = 0;
    int b = BUCKETS - 1;
    *mass = 0;
    for (; b >= 0; b--) {
        if (tokens + r->counts[b] >= most_tokens || *mass + r->masses[b] >= most_mass) break;
        tokens += r->counts[b];
        *mass += r->masses[b];
    }
    if (b < 0) return 0;
    int64_t found = 0;
    for (int64_t i = 0; i < vocab; i += LANES)
        for (uint32_t bits = bits_of((load_i32(r->weights + i) >> 16) == b); bits;
             bits &= bits - 1) {
            int64_t j = i + __builtin_ctz(bits);
            r->boundary[found++] = (candidate){r->weights[j], j};
        }
    qsort(r->boundary, found, sizeof(candidate), before);
    for (int64_t i = 0; i < found; i++) {
        *last = r->boundary[i];
        *mass += last->value;
        if (++tokens >= most_tokens || *mass >= most_mass) return 1;
    }
    return 0;
}

/* The last token that top-k and top-p keep of a row. `total`: the sum of its weights. */
static candidate filter(room *r, int64_t vocab, const draw *d, double total) {
    /* Counting is slow: count only the weights above a bound, the first one that surely is enough. */
    static const float bounds[] = {0x1p-6f, 0x1p-10f, 0x1p-14f, 0x1p-18f, 0};
    candidate last = {0, INT32_MAX};
    int64_t tokens = d->top_k > 0 && d->top_k < vocab ? d->top_k : INT64_MAX;
    double mass = tokens == INT64_MAX ? d->top_p * total : INFINITY, reached;
    for (int i = 0; i < 5; i++) {
        double there;
        if (above(r->weights, vocab, bounds[i], &there) < tokens && there < mass && bounds[i] > 0)
            continue;
        count(r, vocab, bounds[i]);
        if (!walk(r, vocab, tokens, mass, &last, &reached)) continue;
        if (tokens == INT64_MAX || d->top_p >= 1) return last;
        if (walk(r, vocab, tokens, d->top_p * reached, &last, &reached)) return last;
    }
    if (tokens == INT64_MAX || d->top_p >= 1) return (candidate){0, INT32_MAX}; /* all */
    draw wider = *d; /* fewer than top-k tokens have a weight above 0 */
    wider.top_k = 0;
    return filter(r, vocab, &wider, total);
}

INLINE vi kept(const keep *k, vf w, int64_t first) {
    vi equal = (w == k->last.value) & (NUMBERS + (int32_t)first <= k->last.token);
    return ((w > k->last.value) | equal) & (w >= k->least) & (w > 0);
}

/* The first token at which the cumulative sum of the kept weights passes `uniform` times the total. */
static int64_t invert(const float *w, int64_t vocab, const keep *k, float uniform) {
    int64_t padded = ceiling(vocab, RUN) * RUN, found = 0;
    double total = 0, sum_before = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int64_t start = 0; start < padded; start += RUN) {
            vf sums = splat(0);
            for (int64_t i = start; i < start + RUN; i += LANES) {
                vf x = load_f32(w + i);
                sums += pick(kept(k, x, i), x, splat(0));
            }
            double more = sum(sums);
            if (pass == 0) {
                total += more;
                continue;
            }
            if (sum_before + more <= uniform * total) {
                sum_before += more;
                continue;
            }
            for (int64_t i = start; i < least(start + RUN, vocab); i++) {
                vi yes = kept(k, splat(w[i]), i);
                if (!yes[0]) continue;
                found = i; /* if rounding leaves the sum short, the last one is drawn */
                sum_before += w[i];
                if (sum_before > uniform * total) return i;
            }
            return found;
        }
    return found;
}

static int64_t draw_row(const float *logits, int64_t vocab, const draw *d, room *r) {
    if (d->temperature == 0) return argmax(logits, vocab);
    double total = weigh(logits, vocab, d->temperature, r->weights);
    if (!(total > 0)) return argmax(logits, vocab); /* there are infinite logits */
    keep k = {{0, INT32_MAX}, d->min_p};
    if (d->top_k > 0 || d->top_p < 1) k.last = filter(r, vocab, d, total);
    int64_t found = invert(r->weights, vocab, &k, d->uniform);
    return logits[found] > -INFINITY ? found : argmax(logits, vocab);
}

/* Bytes that one thread needs to work in; a multiple of a cache line. */
int64_t sample_room(int64_t vocab) {
    int64_t weights = ceiling(vocab, RUN) * RUN * sizeof(float);
    return ceiling(sizeof(room) + weights + vocab * sizeof(candidate), 64) * 64;
}

typedef struct {
    const float *logits;
    int64_t rows, vocab;
    const draw *draws;
    uint8_t *space;
    int64_t *tokens;
} sample_job;

static void run_sample(const void *job, team *all, int64_t me) {
    const sample_job *j = job;
    int64_t vocab = j->vocab;
    room *r = (room *)(j->space + me * sample_room(vocab));
    r->weights = (float *)(r + 1);
    r->boundary = (candidate *)(r->weights + ceiling(vocab, RUN) * RUN);
    FOR_CLAIMED(row, j->rows, all, 0)
    j->tokens[row] = draw_row(j->logits + row * vocab, vocab, j->draws + row, r);
}

/* Draw a token from each row of logits [rows, vocab] to tokens [rows]. space: [threads, sample_room]. */
void sample(const float *logits, int64_t rows, int64_t vocab, const draw *draws, uint8_t *space,
            int64_t *tokens, int64_t threads) {
    sample_job job = {logits, rows, vocab, draws, space, tokens};
    region(run_sample, &job, threads);
}
