/*
 * Runs a program of the Linux kernel's tools/virtio/ringtest, whose own `main` and calls of `write` are renamed when it
 * is compiled, and prints how long it took and how often its threads notified each other. What it simulates of the cost
 * of leaving and entering a virtual machine is off: its command line can only switch it on.
 */
#undef main
#undef write

#include <stdbool.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

extern bool do_exit;
int ringtest_main(int argc, char **argv);
ssize_t counted_write(int fd, const void *bytes, size_t count);

static unsigned long notifications;

ssize_t counted_write(int fd, const void *bytes, size_t count)
{
	__atomic_fetch_add(&notifications, 1, __ATOMIC_RELAXED);
	return write(fd, bytes, count);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e9 + time.tv_nsec;
}

int main(int argc, char **argv)
{
	double start;
	int result;

	do_exit = false;
	start = now();
	result = ringtest_main(argc, argv);
	printf("{\"ns\":%.0f,\"notifications\":%lu}\n", now() - start, notifications);
	return result;
}
