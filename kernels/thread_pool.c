/* A pool of threads that sleep when there is nothing to do.
 *
 * An OpenMP runtime lets its threads spin between two parallel loops, since waking one takes
 * microseconds. On a machine with few cores the spinning thread takes the core from whoever has
 * work, and a process that forks after using OpenMP may hang. This pool
 *
 *   - sleeps on a condition variable: an idle pool costs nothing;
 *   - lets the caller work too, so that `threads` = 1 never touches the pool;
 *   - hands out tasks through one atomic counter, so that a slow thread holds up one task only;
 *   - serves one caller at a time: whoever finds it taken does its tasks alone, which on a busy
 *     machine is the quickest anyway, and cannot deadlock;
 *   - starts anew in a forked child, where only the forking thread lives on.
 */
#define _POSIX_C_SOURCE 200809L /* C11 alone hides the signal masks */
#include "thread_pool.h"

#if defined(__wasm__) || defined(ONEBIT_NO_THREADS)

void onebit_run_tasks(int threads, int64_t tasks, onebit_task task, const void *job) {
    (void)threads;
    for (int64_t i = 0; i < tasks; i++) task(job, i);
}

#else

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

enum { MOST_WORKERS = 255 };

static pthread_mutex_t caller_lock = PTHREAD_MUTEX_INITIALIZER; /* held while a job runs */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;        /* guards all that follows */
static pthread_cond_t work_came = PTHREAD_COND_INITIALIZER;
static pthread_cond_t work_done = PTHREAD_COND_INITIALIZER;
static int workers;           /* threads alive */
static int wanted;            /* workers that may still join the job */
static int busy;              /* workers inside the job */
static onebit_task job_task;
static const void *job_data;
static int64_t job_tasks;
static _Atomic int64_t next_task;

static void do_tasks(onebit_task task, const void *job, int64_t tasks) {
    for (;;) {
        int64_t i = atomic_fetch_add_explicit(&next_task, 1, memory_order_relaxed);
        if (i >= tasks) return;
        task(job, i);
    }
}

static void *work(void *unused) {
    (void)unused;
    pthread_mutex_lock(&lock);
    for (;;) {
        while (wanted == 0) pthread_cond_wait(&work_came, &lock);
        wanted--;
        busy++;
        onebit_task task = job_task;
        const void *job = job_data;
        int64_t tasks = job_tasks;
        pthread_mutex_unlock(&lock);
        do_tasks(task, job, tasks);
        pthread_mutex_lock(&lock);
        if (--busy == 0) pthread_cond_signal(&work_done);
    }
    return 0;
}

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
    workers = wanted = busy = 0;
    /* The sleepers that a copied condition variable counts do not exist here. */
    pthread_cond_init(&work_came, 0);
    pthread_cond_init(&work_done, 0);
    pthread_mutex_init(&lock, 0);
    pthread_mutex_init(&caller_lock, 0);
}

static void watch_forks(void) {
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* Called with the lock held. Signals belong to the caller's threads, so workers block them all. */
static void start_workers(int count) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    if (count > MOST_WORKERS) count = MOST_WORKERS;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 1 << 20); /* musl's default of 128 KiB is too little */
    while (workers < count) {
        pthread_t thread;
        if (pthread_create(&thread, &attributes, work, 0) != 0) break; /* fewer will do */
        workers++;
    }
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, 0);
}

void onebit_run_tasks(int threads, int64_t tasks, onebit_task task, const void *job) {
    if (threads > tasks) threads = (int)tasks;
    if (threads <= 1 || pthread_mutex_trylock(&caller_lock) != 0) {
        for (int64_t i = 0; i < tasks; i++) task(job, i);
        return;
    }
    pthread_mutex_lock(&lock);
    start_workers(threads - 1);
    job_task = task;
    job_data = job;
    job_tasks = tasks;
    atomic_store_explicit(&next_task, 0, memory_order_relaxed);
    wanted = threads - 1 < workers ? threads - 1 : workers;
    for (int i = 0; i < wanted; i++) pthread_cond_signal(&work_came);
    pthread_mutex_unlock(&lock);

    do_tasks(task, job, tasks);

    pthread_mutex_lock(&lock);
    wanted = 0; /* who has not woken by now need not */
    while (busy > 0) pthread_cond_wait(&work_done, &lock);
    pthread_mutex_unlock(&lock);
    pthread_mutex_unlock(&caller_lock);
}

#endif
