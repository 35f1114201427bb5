/* A pool of threads that sleep when there is nothing to do: see thread_pool.c. */
#ifndef ONEBIT_THREAD_POOL_H
#define ONEBIT_THREAD_POOL_H

#include <stdint.h>

typedef void (*onebit_task)(const void *job, int64_t task);

/* Run task(job, 0) ... task(job, tasks - 1), each once, on up to `threads` threads. */
void onebit_run_tasks(int threads, int64_t tasks, onebit_task task, const void *job);

/* The same, but every other call takes each thread's share from its end backwards.
 *
 * Weights somewhat larger than a cache, read again and again, are always thrown out just before
 * they are read next, unless one turns round at the end: what was read last is still there, and now
 * comes first. On a core with 1.25 MiB of cache a matrix-vector product over 2 MiB of weights takes
 * 39 microseconds instead of 58. */
void onebit_run_tasks_turning(int threads, int64_t tasks, onebit_task task, const void *job);

enum { TURNING_TASKS = 16 }; /* a thread: enough to come back to what is still there */

#endif
