/* SPDX-License-Identifier: BSD-3-Clause */
/* Where a mount says what went wrong: standard error, or the system's log once it runs on its own. */
#ifndef PLATTER_FUSE_LOG_H
#define PLATTER_FUSE_LOG_H

#include <stdbool.h>

/* From now on messages go to syslog(3) instead. */
void log_to_syslog(void);

/* One message, without a line feed. From any thread. */
void log_message(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * As log_message(), for failures that a program can provoke as often as it likes: of more than LOG_BURST in a
 * second the rest is counted and the number told afterwards.
 */
#define LOG_BURST 20
void log_failure(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
