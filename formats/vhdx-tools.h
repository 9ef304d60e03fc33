/* SPDX-License-Identifier: BSD-3-Clause */
/* VHDX files as the verbs of the command see them, besides what formats/vhdx.h has. */
#ifndef PLATTER_FORMATS_VHDX_TOOLS_H
#define PLATTER_FORMATS_VHDX_TOOLS_H

#include "formats/vhdx.h"

/* These look at the file in the container, which stays the caller's, and write nothing. Reports are JSON, a new reference each. */

/*
 * What headers, log, metadata and the table say, as fields of an object: type, size, sectors, ids, the two headers and which one counts, the
 * log, the blocks of each state, parent names and linkage. A log that is not empty is looked through and replayed in memory.
 */
int vhdx_info(struct container *c, json_t **report, struct error *err);

/* Where the disk's data lies; as vhd_map() in formats/vhd.h. */
int vhdx_list_runs(struct container *c, json_t **report, struct error *err);

#endif
