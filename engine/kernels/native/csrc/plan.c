/* Cuts a step into the segments that attention works on; see attention.h. */

#include <stdlib.h>

#include "attention.h"

#define MIN_SAVED 16    /* areas that sharing must save reading, or it is not worth a merge */
#define MIN_PIECE 8     /* areas: shorter pieces cost more to merge than they spread */
#define UNITS_A_THREAD 4

/* `*memory` holds at least `want` items afterwards. */
static int grow(void *memory, int64_t *room, int64_t want, size_t item) {
    void **array = memory;
    if (want <= *room) return 1;
    int64_t wider = want + want / 2 + 64;
    void *moved = realloc(*array, wider * item);
    if (!moved) return 0;
    *array = moved;
    *room = wider;
    return 1;
}

typedef struct {
    plan *p;
    const step *s;
    const cache *c;
    int last_only; /* whether each sequence's last token is the only one */
    int64_t piece_work; /* areas times tokens that one segment should not exceed by far */
} planning;

static const int32_t *table_of(const step *s, int64_t sequence) {
    return s->tables + s->slots[sequence] * s->stride;
}

static int64_t first_token(const planning *w, int64_t sequence) {
    return w->last_only ? w->s->query_start[sequence + 1] - 1 : w->s->query_start[sequence];
}

static int64_t num_tokens(const planning *w, int64_t sequence) {
    return w->s->query_start[sequence + 1] - first_token(w, sequence);
}

/* One or more segments for tokens that see all areas [first, last), or those that they see of it. */
static void add(planning *w, int64_t sequence, int64_t first, int64_t last, const int32_t *tokens,
                int64_t token, int64_t count) {
    plan *p = w->p;
    if (first >= last) return;
    int64_t areas = last - first, piece = w->piece_work / count;
    piece = piece < MIN_PIECE ? MIN_PIECE : piece;
    int64_t pieces = areas > piece + piece / 2 ? ceiling(areas, piece) : 1;
    if (!grow(&p->segments, &p->room, p->num_segments + pieces, sizeof(segment)) ||
        !grow(&p->members, &p->member_room, p->num_members + pieces * count, sizeof(int32_t))) {
        p->failed = 1;
        return;
    }
    for (int64_t i = 0; i < pieces; i++) {
        p->segments[p->num_segments++] = (segment){
            table_of(w->s, sequence), first + areas * i / pieces, first + areas * (i + 1) / pieces,
            p->num_members, count};
        for (int64_t m = 0; m < count; m++)
            p->members[p->num_members++] = tokens ? first_token(w, tokens[m]) : token + m;
    }
}

/* A sequence's own tokens, a tile at a time. */
static void add_tiles(planning *w, int64_t sequence) {
    const step *s = w->s;
    int64_t group = w->c->heads / w->c->kv_heads, tile = group < MAX_ROWS ? MAX_ROWS / group : 1;
    int64_t end = s->query_start[sequence + 1];
    for (int64_t t = first_token(w, sequence); t < end; t += tile) {
        int64_t count = least(tile, end - t);
        int64_t before = s->positions[t] + 1 - w->p->window;
        int64_t first = w->p->window && before > 0 ? before / AREA : 0;
        add(w, sequence, first, ceiling(s->positions[t + count - 1] + 1, AREA), NULL, t, count);
    }
}

static int64_t whole_areas(const step *s, int64_t sequence) {
    return s->contexts[sequence] / AREA; /* its one token sees all of them */
}

static int64_t areas_in_common(planning *w, int64_t a, int64_t b) {
    const int32_t *x = table_of(w->s, a), *y = table_of(w->s, b);
    int64_t most = least(whole_areas(w->s, a), whole_areas(w->s, b)), block = 0;
    while (block * w->c->areas < most && x[block] == y[block]) block++;
    return least(block * w->c->areas, most);
}

static int before(planning *w, int64_t a, int64_t b) {
    const int32_t *x = table_of(w->s, a), *y = table_of(w->s, b);
    int64_t blocks = least(ceiling(w->s->contexts[a], AREA * w->c->areas),
                           ceiling(w->s->contexts[b], AREA * w->c->areas));
    for (int64_t i = 0; i < blocks; i++)
        if (x[i] != y[i]) return x[i] < y[i];
    return w->s->contexts[a] < w->s->contexts[b];
}

/* Merge sort by table; `spare` is as long as `order`. */
static void sort(planning *w, int32_t *order, int32_t *spare, int64_t count) {
    if (count < 2) return;
    int64_t half = count / 2, a = 0, b = half, n = 0;
    sort(w, order, spare, half);
    sort(w, order + half, spare, count - half);
    while (a < half && b < count)
        spare[n++] = before(w, order[b], order[a]) ? order[b++] : order[a++];
    while (a < half) spare[n++] = order[a++];
    memcpy(order, spare, n * sizeof *order);
}

/* Sequences order[low .. high), which have `depth` areas behind them that are dealt with. */
static void add_tree(planning *w, int64_t low, int64_t high, int64_t depth) {
    plan *p = w->p;
    if (high - low == 1) {
        int64_t sequence = p->order[low];
        add(w, sequence, depth, ceiling(w->s->contexts[sequence], AREA), NULL,
            first_token(w, sequence), 1);
        return;
    }
    int32_t shared = p->common[low + 1];
    for (int64_t i = low + 2; i < high; i++) shared = least(shared, p->common[i]);
    if ((shared - depth) * (high - low - 1) >= MIN_SAVED) {
        add(w, p->order[low], depth, shared, p->order + low, 0, high - low);
        depth = shared;
    }
    for (int64_t begin = low, i = low + 1; i <= high; i++)
        if (i == high || p->common[i] == shared) {
            add_tree(w, begin, i, depth);
            begin = i;
        }
}

static int longer(const void *a, const void *b) {
    const segment *x = a, *y = b;
    int64_t work = (y->last - y->first) * y->count - (x->last - x->first) * x->count;
    if (!work) work = x->member - y->member; /* so that the order is always the same */
    return work > 0 ? 1 : work < 0 ? -1 : 0;
}

/* Where each token's partial results are, and room for all of them. */
static int place_parts(plan *p, const step *s, const cache *c) {
    int64_t heads = p->num_members * c->heads;
    if (!grow(&p->part_start, &p->token_room, s->tokens + 1, sizeof(int32_t)) ||
        !grow(&p->parts, &p->part_room, p->num_members, sizeof(int32_t)))
        return 0;
    if (heads > p->partial_room) {
        int64_t rooms[3] = {0, 0, 0}, want = heads + heads / 4;
        p->partial_room = 0;
        if (!grow(&p->out, rooms, want * c->width, sizeof(float)) ||
            !grow(&p->top, rooms + 1, want, sizeof(float)) ||
            !grow(&p->total, rooms + 2, want, sizeof(float)))
            return 0;
        p->partial_room = want;
    }
    memset(p->part_start, 0, (s->tokens + 1) * sizeof(int32_t));
    for (int64_t m = 0; m < p->num_members; m++) p->part_start[p->members[m] + 1]++;
    for (int64_t t = 0; t < s->tokens; t++) p->part_start[t + 1] += p->part_start[t];
    for (int64_t m = p->num_members - 1; m >= 0; m--) /* from each token's end to its start */
        p->parts[--p->part_start[p->members[m] + 1]] = m;
    for (int64_t t = 0; t < s->tokens; t++) p->part_start[t] = p->part_start[t + 1];
    p->part_start[s->tokens] = p->num_members;
    return 1;
}

int plan_step(plan *p, const step *s, const cache *c, const int32_t *picked, int64_t count,
              int64_t share, int64_t threads) {
    planning w = {p, s, c, picked != NULL, 0};
    int64_t lone = 0, work = 0, units = ceiling(UNITS_A_THREAD * threads, c->kv_heads);
    int64_t sequences = picked ? count : s->sequences, orders = p->order_room;
    p->num_segments = p->num_members = p->failed = 0;
    if (!grow(&p->order, &orders, 2 * sequences, sizeof(int32_t)) ||
        !grow(&p->common, &p->order_room, 2 * sequences, sizeof(int32_t)))
        return -1;
    for (int64_t i = 0; i < sequences; i++) {
        int64_t q = picked ? picked[i] : i;
        work += ceiling(s->contexts[q], AREA) * num_tokens(&w, q);
    }
    w.piece_work = work / units;
    for (int64_t i = 0; i < sequences; i++) {
        int64_t q = picked ? picked[i] : i;
        if (share && !p->window && num_tokens(&w, q) == 1)
            p->order[lone++] = q;
        else
            add_tiles(&w, q);
    }
    sort(&w, p->order, p->order + sequences, lone);
    for (int64_t i = 1; i < lone; i++)
        p->common[i] = areas_in_common(&w, p->order[i - 1], p->order[i]);
    if (lone) add_tree(&w, 0, lone, 0);
    if (p->failed || !place_parts(p, s, c)) return -1;
    if (p->num_segments) qsort(p->segments, p->num_segments, sizeof(segment), longer);
    return 0;
}

/* An empty plan, or NULL where there is no memory. */
plan *plan_new(int64_t window) {
    plan *p = calloc(1, sizeof *p);
    if (p) p->window = window;
    return p;
}

void plan_free(plan *p) {
    void *const held[] = {p->segments, p->members, p->parts, p->part_start, p->order,
                          p->common,   p->out,     p->top,   p->total,      p};
    for (size_t i = 0; i < sizeof held / sizeof *held; i++) free(held[i]);
}
