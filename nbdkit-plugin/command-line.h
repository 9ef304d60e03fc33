/* SPDX-License-Identifier: BSD-3-Clause */
/* What the plugin can learn from nbdkit's own command line. */
#ifndef PLATTER_NBDKIT_PLUGIN_COMMAND_LINE_H
#define PLATTER_NBDKIT_PLUGIN_COMMAND_LINE_H

#include <stdbool.h>

/* True when nbdkit was started with -r, in any way of writing it. */
bool command_line_is_read_only(void);

#endif
