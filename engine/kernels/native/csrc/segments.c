/* Cuts a step into segments of attention; see attention.h. */

#include <stdlib.h>

#include "attention.h"

#define MIN_SAVED 16 /* tiles: sharing that saves reading fewer costs more in merging */
#define MIN_PIECE 8  /* tiles: shorter pieces cost more in merging than the threads gain */
#define UNITS_A_THREAD 4

/* Make room for at least `want` items in `*memory`. Returns whether there is memory. */
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
    segment_list *list;
    const step *s;
    const cache *c;
    int last_only;      /* whether only each sequence's last token is computed */
    int64_t piece_work; /* tiles times tokens that a segment should have at most, roughly */
} building;

static const int32_t *table_of(const step *s, int64_t sequence) {
    return s->tables + s->slots[sequence] * s->stride;
}

static int64_t first_token(const building *w, int64_t sequence) {
    return w->last_only ? w->s->query_start[sequence + 1] - 1 : w->s->query_start[sequence];
}

static int64_t num_tokens(const building *w, int64_t sequence) {
    return w->s->query_start[sequence + 1] - first_token(w, sequence);
}

/* Add one or more segments over tiles [first, last): for the last tokens of the sequences tokens[count],
 * or, if `tokens` is NULL, for the tokens [token, token + count). Each token sees as many of the keys
 * as come before it. */
static void add(building *w, int64_t sequence, int64_t first, int64_t last, const int32_t *tokens,
                int64_t token, int64_t count) {
    segment_list *list = w->list;
    if (first >= last) return;
    int64_t tiles = last - first, piece = w->piece_work / count;
    piece = piece < MIN_PIECE ? MIN_PIECE : piece;
    int64_t pieces = tiles > piece + piece / 2 ? ceiling(tiles, piece) : 1;
    if (!grow(&list->segments, &list->room, list->num_segments + pieces, sizeof(segment)) ||
        !grow(&list->members, &list->member_room, list->num_members + pieces * count,
              sizeof(int32_t))) {
        list->failed = 1;
        return;
    }
    for (int64_t i = 0; i < pieces; i++) {
        list->segments[list->num_segments++] = (segment){
            table_of(w->s, sequence), first + tiles * i / pieces, first + tiles * (i + 1) / pieces,
            list->num_members, count};
        for (int64_t m = 0; m < count; m++)
            list->members[list->num_members++] = tokens ? first_token(w, tokens[m]) : token + m;
    }
}

/* Add a sequence's tokens, as many to a segment as one call of `attend` takes. */
static void add_own(building *w, int64_t sequence) {
    const step *s = w->s;
    int64_t group = w->c->heads / w->c->kv_heads, most = group < MAX_ROWS ? MAX_ROWS / group : 1;
    int64_t end = s->query_start[sequence + 1];
    for (int64_t t = first_token(w, sequence); t < end; t += most) {
        int64_t count = least(most, end - t);
        int64_t before = s->positions[t] + 1 - w->list->window;
        int64_t first = w->list->window && before > 0 ? before / TILE : 0;
        add(w, sequence, first, ceiling(s->positions[t + count - 1] + 1, TILE), NULL, t, count);
    }
}

static int64_t whole_tiles(const step *s, int64_t sequence) {
    return s->contexts[sequence] / TILE; /* the sequence's only token sees all of them */
}

static int64_t tiles_in_common(building *w, int64_t a, int64_t b) {
    const int32_t *x = table_of(w->s, a), *y = table_of(w->s, b);
    int64_t most = least(whole_tiles(w->s, a), whole_tiles(w->s, b)), block = 0;
    while (block * w->c->tiles < most && x[block] == y[block]) block++;
    return least(block * w->c->tiles, most);
}

static int before(building *w, int64_t a, int64_t b) {
    const int32_t *x = table_of(w->s, a), *y = table_of(w->s, b);
    int64_t blocks = least(ceiling(w->s->contexts[a], TILE * w->c->tiles),
                           ceiling(w->s->contexts[b], TILE * w->c->tiles));
    for (int64_t i = 0; i < blocks; i++)
        if (x[i] != y[i]) return x[i] < y[i];
    return w->s->contexts[a] < w->s->contexts[b];
}

/* Merge sort by block table; `spare` is as long as `order`. */
static void sort(building *w, int32_t *order, int32_t *spare, int64_t count) {
    if (count < 2) return;
    int64_t half = count / 2, a = 0, b = half, n = 0;
    sort(w, order, spare, half);
    sort(w, order + half, spare, count - half);
    while (a < half && b < count)
        spare[n++] = before(w, order[b], order[a]) ? order[b++] : order[a++];
    while (a < half) spare[n++] = order[a++];
    memcpy(order, spare, n * sizeof *order);
}

/* Add the sequences order[low .. high), whose first `depth` tiles are common and added already. */
static void add_tree(building *w, int64_t low, int64_t high, int64_t depth) {
    segment_list *list = w->list;
    if (high - low == 1) {
        int64_t sequence = list->order[low];
        add(w, sequence, depth, ceiling(w->s->contexts[sequence], TILE), NULL,
            first_token(w, sequence), 1);
        return;
    }
    int32_t shared = list->common[low + 1];
    for (int64_t i = low + 2; i < high; i++) shared = least(shared, list->common[i]);
    if ((shared - depth) * (high - low - 1) >= MIN_SAVED) {
        add(w, list->order[low], depth, shared, list->order + low, 0, high - low);
        depth = shared;
    }
    for (int64_t begin = low, i = low + 1; i <= high; i++)
        if (i == high || list->common[i] == shared) {
            add_tree(w, begin, i, depth);
            begin = i;
        }
}

static int longer(const void *a, const void *b) {
    const segment *x = a, *y = b;
    int64_t work = (y->last - y->first) * y->count - (x->last - x->first) * x->count;
    if (!work) work = x->member - y->member; /* the order must not depend on qsort */
    return work > 0 ? 1 : work < 0 ? -1 : 0;
}

/* Note where each token's partial results go, and make room for all of them. Returns whether there is
 * memory. */
static int place_partials(segment_list *list, const step *s, const cache *c) {
    int64_t heads = list->num_members * c->heads;
    if (!grow(&list->partial_start, &list->token_room, s->tokens + 1, sizeof(int32_t)) ||
        !grow(&list->partials, &list->partials_room, list->num_members, sizeof(int32_t)))
        return 0;
    if (heads > list->result_room) {
        int64_t rooms[3] = {0, 0, 0}, want = heads + heads / 4;
        list->result_room = 0;
        if (!grow(&list->out, rooms, want * c->width, sizeof(float)) ||
            !grow(&list->top, rooms + 1, want, sizeof(float)) ||
            !grow(&list->total, rooms + 2, want, sizeof(float)))
            return 0;
        list->result_room = want;
    }
    memset(list->partial_start, 0, (s->tokens + 1) * sizeof(int32_t));
    for (int64_t m = 0; m < list->num_members; m++) list->partial_start[list->members[m] + 1]++;
    for (int64_t t = 0; t < s->tokens; t++) list->partial_start[t + 1] += list->partial_start[t];
    for (int64_t m = list->num_members - 1; m >= 0;
         m--) /* backwards: each token's end moves to its start */
        list->partials[--list->partial_start[list->members[m] + 1]] = m;
    for (int64_t t = 0; t < s->tokens; t++) list->partial_start[t] = list->partial_start[t + 1];
    list->partial_start[s->tokens] = list->num_members;
    return 1;
}

int segments_build(segment_list *list, const step *s, const cache *c, const int32_t *picked,
                   int64_t count, int64_t share, int64_t threads) {
    building w = {list, s, c, picked != NULL, 0};
    int64_t lone = 0, work = 0, units = ceiling(UNITS_A_THREAD * threads, c->kv_heads);
    int64_t sequences = picked ? count : s->sequences, orders = list->order_room;
    list->num_segments = list->num_members = list->failed = 0;
    if (!grow(&list->order, &orders, 2 * sequences, sizeof(int32_t)) ||
        !grow(&list->common, &list->order_room, 2 * sequences, sizeof(int32_t)))
        return -1;
    for (int64_t i = 0; i < sequences; i++) {
        int64_t q = picked ? picked[i] : i;
        work += ceiling(s->contexts[q], TILE) * num_tokens(&w, q);
    }
    w.piece_work = work / units;
    for (int64_t i = 0; i < sequences; i++) {
        int64_t q = picked ? picked[i] : i;
        if (share && !list->window && num_tokens(&w, q) == 1)
            list->order[lone++] = q;
        else
            add_own(&w, q);
    }
    sort(&w, list->order, list->order + sequences, lone);
    for (int64_t i = 1; i < lone; i++)
        list->common[i] = tiles_in_common(&w, list->order[i - 1], list->order[i]);
    if (lone) add_tree(&w, 0, lone, 0);
    if (list->failed || !place_partials(list, s, c)) return -1;
    if (list->num_segments) qsort(list->segments, list->num_segments, sizeof(segment), longer);
    return 0;
}

/* An empty list, or NULL if there is no memory. */
segment_list *segments_new(int64_t window) {
    segment_list *list = calloc(1, sizeof *list);
    if (list) list->window = window;
    return list;
}

void segments_free(segment_list *list) {
    void *const held[] = {list->segments, list->members, list->partials, list->partial_start,
                          list->order,    list->common,  list->out,      list->top,
                          list->total,    list};
    for (size_t i = 0; i < sizeof held / sizeof *held; i++) free(held[i]);
}
