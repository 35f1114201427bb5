/* A pool of threads that sleep when there is nothing to do, and doze for a moment before.
 *
 * Waking a sleeping thread takes 30 to 80 microseconds on a virtual machine, in which time one core
 * multiplies 32 x 1024 x 1024 by itself. An OpenMP runtime therefore lets its threads spin between
 * two parallel loops, and keeps a core from whoever has work; and a process that forks after using
 * OpenMP may hang. This pool
 *
 *   - dozes: a thread without work watches for more during 80 microseconds, what waking it would
 *     cost, and only then sleeps on a condition variable. Calls from Python, whose own code a large
 *     product has driven from the cache, come 20 microseconds apart. An idle pool costs nothing;
 *   - lets the caller work too, so that `threads` = 1 never touches the pool;
 *   - gives each thread the same share of the tasks every time, so that its part of the weights is
 *     still in its own cache (a matrix-vector product on two cores: twice as fast), and lets who
 *     has finished take over what others have not begun, so that a slow thread holds up one task;
 *   - serves one caller at a time: whoever finds it taken does its tasks alone, which on a busy
 *     machine is the quickest anyway, and cannot deadlock;
 *   - starts anew in a forked child, where only the forking thread lives on.
 */
#define _POSIX_C_SOURCE 200809L /* C11 alone hides the signal masks */
#include "thread_pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

enum { MOST_THREADS = 256, DOZE = 80000 /* nanoseconds */ };

/* ---- the job: written by the caller while no worker may look ------------------------------------ */

struct share {
    _Atomic int64_t next;
    int64_t end;
    char own_cache_line[48];
};

static onebit_task job_task;
static const void *job_data;
static struct share shares[MOST_THREADS];

/* One word says it all, so that a worker can join in a single step, or not at all:
 *
 *     63 ... 32 | 31 ... 20 | 19 ... 8 | 0
 *     number    | threads   | inside   | open
 *
 * the job's number, how many threads share it, how many workers are inside, whether more may come. */
static _Atomic uint64_t job_state;
enum { OPEN = 1, INSIDE = 1 << 8, THREADS = 1 << 20 };

static int inside(uint64_t state) { return (int)(state / INSIDE % (THREADS / INSIDE)); }
static int sharers(uint64_t state) { return (int)(state / THREADS % 4096); }
static uint32_t number(uint64_t state) { return (uint32_t)(state >> 32); }

/* ---- sleeping and waking: whoever means to sleep says so before looking a last time ------------- */

static pthread_mutex_t caller_lock = PTHREAD_MUTEX_INITIALIZER; /* held while a job runs */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;        /* held to sleep, wake and start */
static pthread_cond_t work_came = PTHREAD_COND_INITIALIZER;
static pthread_cond_t work_done = PTHREAD_COND_INITIALIZER;
static _Atomic int sleepers, caller_sleeps;
static int workers; /* threads alive */

static inline void pause_a_moment(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb"); /* YIELD returns at once on most cores */
#endif
}

static int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void wake(pthread_cond_t *whom) {
    pthread_mutex_lock(&lock);
    pthread_cond_broadcast(whom);
    pthread_mutex_unlock(&lock);
}

/* ---- working ------------------------------------------------------------------------------------ */

/* First the own share, then what is left of the others'. */
static void do_tasks(onebit_task task, const void *job, int self, int threads) {
    for (int t = 0; t < threads; t++) {
        struct share *share = &shares[(self + t) % threads];
        for (;;) {
            int64_t i = atomic_fetch_add_explicit(&share->next, 1, memory_order_relaxed);
            if (i >= share->end) break;
            task(job, i);
        }
    }
}

/* Return the state of an open job after number `seen` that has a share for worker `self`, once
 * joined; 0 if there is none. */
static uint64_t join_job(uint32_t seen, int self) {
    uint64_t state = atomic_load(&job_state);
    while ((state & OPEN) && number(state) != seen && self < sharers(state))
        if (atomic_compare_exchange_weak(&job_state, &state, state + INSIDE)) return state;
    return 0;
}

static uint64_t wait_for_job(uint32_t seen, int self) {
    uint64_t state;
    for (int64_t end = nanoseconds() + DOZE; nanoseconds() < end;) {
        if ((state = join_job(seen, self))) return state;
        pause_a_moment();
    }
    pthread_mutex_lock(&lock);
    atomic_fetch_add(&sleepers, 1);
    while (!(state = join_job(seen, self))) pthread_cond_wait(&work_came, &lock);
    atomic_fetch_sub(&sleepers, 1);
    pthread_mutex_unlock(&lock);
    return state;
}

static void *work(void *self_as_pointer) {
    int self = (int)(intptr_t)self_as_pointer;
    uint32_t seen = 0;
    for (;;) {
        uint64_t state = wait_for_job(seen, self);
        seen = number(state);
        do_tasks(job_task, job_data, self, sharers(state));
        state = atomic_fetch_sub(&job_state, INSIDE) - INSIDE;
        if (!(state & OPEN) && inside(state) == 0 && atomic_load(&caller_sleeps)) wake(&work_done);
    }
    return 0;
}

static void wait_for_workers(void) {
    for (int64_t end = nanoseconds() + DOZE; nanoseconds() < end;) {
        if (inside(atomic_load(&job_state)) == 0) return;
        pause_a_moment();
    }
    pthread_mutex_lock(&lock);
    atomic_store(&caller_sleeps, 1);
    while (inside(atomic_load(&job_state)) > 0) pthread_cond_wait(&work_done, &lock);
    atomic_store(&caller_sleeps, 0);
    pthread_mutex_unlock(&lock);
}

/* ---- starting, also after a fork ---------------------------------------------------------------- */

/* A fork copies the locks in whatever state other threads had them, and none of the workers. */
static void before_fork(void) {
    pthread_mutex_lock(&caller_lock);
    pthread_mutex_lock(&lock);
}

static void after_fork_in_parent(void) {
    pthread_mutex_unlock(&lock);
    pthread_mutex_unlock(&caller_lock);
}

static void after_fork_in_child(void) {
    workers = 0;
    atomic_store(&sleepers, 0);
    /* The sleepers that a copied condition variable counts do not exist here. */
    pthread_cond_init(&work_came, 0);
    pthread_cond_init(&work_done, 0);
    pthread_mutex_init(&lock, 0);
    pthread_mutex_init(&caller_lock, 0);
}

static void watch_forks(void) {
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* Signals belong to the caller's threads, so workers block them all. */
static void start_workers(int count) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 1 << 20); /* musl's default of 128 KiB is too little */
    while (workers < count) {
        pthread_t thread;
        void *self = (void *)(intptr_t)(workers + 1);
        if (pthread_create(&thread, &attributes, work, self) != 0) break; /* fewer will do */
        workers++;
    }
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, 0);
}

/* ---- the caller --------------------------------------------------------------------------------- */

static void open_job(int threads, int64_t tasks, onebit_task task, const void *job) {
    job_task = task;
    job_data = job;
    for (int t = 0; t < threads; t++) {
        atomic_store_explicit(&shares[t].next, tasks * t / threads, memory_order_relaxed);
        shares[t].end = tasks * (t + 1) / threads;
    }
    uint32_t next = number(atomic_load(&job_state)) + 1;
    if (next == 0) next = 1; /* a new worker has seen number 0 */
    atomic_store(&job_state, (uint64_t)next << 32 | (uint64_t)threads * THREADS | OPEN);
    if (atomic_load(&sleepers) > 0) wake(&work_came);
}

void onebit_run_tasks(int threads, int64_t tasks, onebit_task task, const void *job) {
    if (threads > tasks) threads = (int)tasks;
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    if (threads <= 1 || pthread_mutex_trylock(&caller_lock) != 0) {
        for (int64_t i = 0; i < tasks; i++) task(job, i);
        return;
    }
    if (workers < threads - 1) start_workers(threads - 1);
    if (workers < threads - 1) threads = workers + 1;
    open_job(threads, tasks, task, job);
    do_tasks(task, job, 0, threads);
    atomic_fetch_and(&job_state, ~(uint64_t)OPEN); /* who has not come by now need not */
    wait_for_workers();
    pthread_mutex_unlock(&caller_lock);
}

struct turned {
    onebit_task task;
    const void *job;
    int64_t share;
};

static void do_turned(const void *data, int64_t task) {
    const struct turned *t = data;
    t->task(t->job, task + t->share - 1 - 2 * (task % t->share));
}

void onebit_run_tasks_turning(int threads, int64_t tasks, onebit_task task, const void *job) {
    static _Atomic unsigned calls;
    struct turned turned = {task, job, tasks / threads};
    int backwards = atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed) % 2;
    if (backwards && tasks % threads == 0 && tasks > threads)
        onebit_run_tasks(threads, tasks, do_turned, &turned);
    else
        onebit_run_tasks(threads, tasks, task, job);
}
