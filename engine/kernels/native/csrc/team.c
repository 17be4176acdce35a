/* See team.h. */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* RUSAGE_THREAD */
#endif
#include "team.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

/* Nanoseconds that a thread spins before it sleeps. To sleep and be woken takes some 50 microseconds: too
 * much between two stages of a small step. But a thread that spins while the one it waits for has no
 * processor takes time from both. So spins are short for `WARY` regions, a few steps, after one in which
 * a thread lost its processor and another waited long. */
#define LONG_SPIN 1000000
#define SHORT_SPIN 20000
#define WARY 400

/* Where threads sleep until a counter changes. */
typedef struct {
    _Alignas(64) atomic_long sleeping;
    pthread_cond_t changed;
} gate;

typedef struct {
    _Alignas(64) atomic_long claimed;
    _Alignas(64) atomic_long finished;
} stage_units;

struct team {
    int64_t threads; /* of this region */
    body *run;
    const void *job;
    int64_t helpers, wary;
    _Alignas(64) atomic_long region; /* odd: open. Each is opened and closed by the next number */
    _Alignas(64) atomic_long inside; /* helpers that are in a region */
    atomic_long numbers;             /* of helpers, given out so far */
    _Alignas(64) atomic_long spin;   /* nanoseconds */
    atomic_long waited,
        preempted; /* long waits, and losses of a processor, since the last region */
    atomic_int ends;
    pthread_mutex_t lock;
    gate entry, stage; /* for the next region; for units, and for helpers to leave */
    pthread_t *ids;
    long preempted_before; /* of the calling thread */
    stage_units stages[STAGES];
};

typedef enum { AT_LEAST, OTHER_THAN } relation;

INLINE int holds(atomic_long *word, relation is, long value) {
    long now = atomic_load(word);
    return is == AT_LEAST ? now >= value : now != value;
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

INLINE void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb");
#endif
}

static void wait_until(team *all, gate *at, atomic_long *word, relation is, long value) {
    if (holds(word, is, value)) return;
    int64_t since = now(), until = since + atomic_load(&all->spin);
    while (now() < until)
        for (int i = 0; i < 32; i++) {
            if (holds(word, is, value)) return;
            relax();
        }
    pthread_mutex_lock(&all->lock);
    atomic_fetch_add(&at->sleeping, 1);
    while (!holds(word, is, value)) pthread_cond_wait(&at->changed, &all->lock);
    atomic_fetch_sub(&at->sleeping, 1);
    pthread_mutex_unlock(&all->lock);
    if (at == &all->stage && now() - since > LONG_SPIN) atomic_fetch_add(&all->waited, 1);
}

/* To be called after a change that threads may sleep for. */
static void wake(team *all, gate *at) {
    if (!atomic_load(&at->sleeping)) return;
    pthread_mutex_lock(&all->lock);
    pthread_cond_broadcast(&at->changed);
    pthread_mutex_unlock(&all->lock);
}

/* Count how often this thread lost its processor to another since `before`. */
static void count_preempted(team *all, long *before) {
#ifdef RUSAGE_THREAD
    struct rusage use;
    getrusage(RUSAGE_THREAD, &use);
    if (use.ru_nivcsw != *before) atomic_fetch_add(&all->preempted, 1);
    *before = use.ru_nivcsw;
#else
    (void)before;
    atomic_fetch_add(&all->preempted, 1); /* unknown */
#endif
}

int64_t team_threads(const team *all) { return all->threads; }

int64_t claim(team *all, int stage, int64_t count) {
    return atomic_fetch_add(&all->stages[stage].claimed, count);
}

void finish(team *all, int stage, int64_t count, int64_t total) {
    if (atomic_fetch_add(&all->stages[stage].finished, count) + count == total)
        wake(all, &all->stage);
}

void wait_for(team *all, int stage, int64_t total) {
    wait_until(all, &all->stage, &all->stages[stage].finished, AT_LEAST, total);
}

static void *help(void *argument) {
    team *all = argument;
    long me = atomic_fetch_add(&all->numbers, 1) + 1, seen = 0, before = 0;
    for (;;) {
        wait_until(all, &all->entry, &all->region, OTHER_THAN, seen);
        if (atomic_load(&all->ends)) return NULL;
        seen = atomic_load(&all->region);
        if (seen % 2 == 0) continue;
        /* Counted first: who closes the region sees it inside, or it sees that the region is closed. */
        atomic_fetch_add(&all->inside, -1);
        if (atomic_load(&all->region) == seen && me < all->threads) {
            all->run(all->job, all, me);
            count_preempted(all, &before);
        }
        if (atomic_fetch_add(&all->inside, 1) == -1) wake(all, &all->stage);
    }
}

static void end(void *argument) {
    team *all = argument;
    atomic_store(&all->ends, 1);
    atomic_fetch_add(&all->region, 1);
    wake(all, &all->entry);
    for (int64_t i = 0; i < all->helpers; i++) pthread_join(all->ids[i], NULL);
    pthread_cond_destroy(&all->entry.changed);
    pthread_cond_destroy(&all->stage.changed);
    pthread_mutex_destroy(&all->lock);
    free(all->ids);
    free(all);
}

static pthread_key_t own;
static pthread_once_t made = PTHREAD_ONCE_INIT;

static void make_key(void) { pthread_key_create(&own, end); }

/* The calling thread's team; NULL if there is no memory. It ends with the thread. */
static team *own_team(void) {
    pthread_once(&made, make_key);
    team *all = pthread_getspecific(own);
    if (all) return all;
    all = aligned_alloc(64, ceiling(sizeof *all, 64) * 64);
    if (!all) return NULL;
    memset(all, 0, sizeof *all);
    atomic_store(&all->spin, LONG_SPIN);
    pthread_mutex_init(&all->lock, NULL);
    pthread_cond_init(&all->entry.changed, NULL);
    pthread_cond_init(&all->stage.changed, NULL);
    pthread_setspecific(own, all);
    return all;
}

/* Have `count` helpers, or as many as can be had. Signals are for the process's other threads. */
static void grow(team *all, int64_t count) {
    if (all->helpers >= count) return;
    pthread_t *ids = realloc(all->ids, count * sizeof *ids);
    if (!ids) return;
    all->ids = ids;
    sigset_t every, before;
    sigfillset(&every);
    pthread_sigmask(SIG_SETMASK, &every, &before);
    while (all->helpers < count && !pthread_create(ids + all->helpers, NULL, help, all))
        all->helpers++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void adapt(team *all) {
    count_preempted(all, &all->preempted_before);
    long waited = atomic_exchange(&all->waited, 0), preempted = atomic_exchange(&all->preempted, 0);
    if (waited && preempted)
        all->wary = WARY;
    else if (all->wary)
        all->wary--;
    atomic_store(&all->spin, all->wary ? SHORT_SPIN : LONG_SPIN);
}

/* Without memory for a team, this thread does all of the work. */
static void run_alone(body *run, const void *job) {
    team alone;
    memset(&alone, 0, sizeof alone);
    alone.threads = 1;
    run(job, &alone, 0);
}

void region(body *run, const void *job, int64_t threads) {
    team *all = threads > 1 ? own_team() : NULL;
    if (!all) {
        run_alone(run, job);
        return;
    }
    grow(all, threads - 1);
    adapt(all);
    all->threads = threads;
    all->run = run;
    all->job = job;
    for (int i = 0; i < STAGES; i++) {
        atomic_store_explicit(&all->stages[i].claimed, 0, memory_order_relaxed);
        atomic_store_explicit(&all->stages[i].finished, 0, memory_order_relaxed);
    }
    atomic_fetch_add(&all->region, 1);
    wake(all, &all->entry);
    run(job, all, 0);
    atomic_fetch_add(&all->region, 1);
    wait_until(all, &all->stage, &all->inside, AT_LEAST, 0);
}
