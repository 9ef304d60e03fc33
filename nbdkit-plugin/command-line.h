/* SPDX-License-Identifier: BSD-3-Clause */
/* What the plugin can learn from nbdkit's own command line. */
#ifndef PLATTER_NBDKIT_PLUGIN_COMMAND_LINE_H
#define PLATTER_NBDKIT_PLUGIN_COMMAND_LINE_H

#include <stdbool.h>

/* True when nbdkit was started with -r, in any way of writing it. */
bool command_line_is_read_only(void);

/* The same for an argument vector as /proc/PID/cmdline has it: each argument ended by NUL. */
bool arguments_are_read_only(const char *arguments, unsigned long length);

#endif
