/* SPDX-License-Identifier: BSD-3-Clause */
#include "fuse/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <syslog.h>
#include <time.h>

/* A process has one standard error and one name in the system's log, and this is how it uses them. */
static struct {
	pthread_mutex_t lock; /* protects what follows */
	bool syslog;
	time_t second; /* monotonic; what `said` and `dropped` are about */
	unsigned said, dropped;
} sink = {.lock = PTHREAD_MUTEX_INITIALIZER};

void log_to_syslog(void)
{
	pthread_mutex_lock(&sink.lock);
	openlog("platter", LOG_PID, LOG_DAEMON);
	sink.syslog = true;
	pthread_mutex_unlock(&sink.lock);
}

/* Under the lock. */
__attribute__((format(printf, 1, 0))) static void print(const char *format, va_list arguments)
{
	if (sink.syslog) {
		vsyslog(LOG_ERR, format, arguments);
		return;
	}
	fputs("platter mount: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
}

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	print(format, arguments);
	va_end(arguments);
}

void log_message(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	pthread_mutex_lock(&sink.lock);
	print(format, arguments);
	pthread_mutex_unlock(&sink.lock);
	va_end(arguments);
}

/* Under the lock: true when one more may be said in this second. */
static bool may_say(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (now.tv_sec != sink.second) {
		if (sink.dropped > 0)
			say("%u more failures were not told", sink.dropped);
		sink.second = now.tv_sec;
		sink.said = sink.dropped = 0;
	}
	if (sink.said < LOG_BURST) {
		sink.said++;
		return true;
	}
	sink.dropped++;
	return false;
}

void log_failure(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	pthread_mutex_lock(&sink.lock);
	if (may_say())
		print(format, arguments);
	pthread_mutex_unlock(&sink.lock);
	va_end(arguments);
}
