/* The thread pool's place where there is one thread: a page's worker does every task itself. */
#include "thread_pool.h"

void onebit_run_tasks(int threads, int64_t tasks, onebit_task task, const void *job) {
    (void)threads;
    for (int64_t i = 0; i < tasks; i++) task(job, i);
}

void onebit_run_tasks_turning(int threads, int64_t tasks, onebit_task task, const void *job) {
    onebit_run_tasks(threads, tasks, task, job);
}
