/* SPDX-License-Identifier: BSD-3-Clause */
/* Statuses of commands: from an engine's status to NVMe's, and what goes into a completion. */
#ifndef PLATTER_NVME_STATUS_H
#define PLATTER_NVME_STATUS_H

#include <stdint.h>

#include "core/io.h"

/* Of 0 or a negative errno of core/disk.h; `failure` tells what kind of medium error -ENODATA was. */
uint16_t nvme_status_of(int status, const struct failure *failure);

/* The upper 15 bits of a completion's status word, without the phase: `status` and, where a retry is of no use, Do Not Retry. */
uint16_t nvme_status_field(uint16_t status);

/* "LBA Out of Range"; "unknown" where there is none. */
const char *nvme_status_name(uint16_t status);

#endif
