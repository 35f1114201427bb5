/* A pool of threads that sleep when there is nothing to do: see thread_pool.c. */
#ifndef ONEBIT_THREAD_POOL_H
#define ONEBIT_THREAD_POOL_H

#include <stdint.h>

typedef void (*onebit_task)(const void *job, int64_t task);

/* Run task(job, 0) ... task(job, tasks - 1), each once, on up to `threads` threads. */
void onebit_run_tasks(int threads, int64_t tasks, onebit_task task, const void *job);

#endif
