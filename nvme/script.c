/* SPDX-License-Identifier: BSD-3-Clause */
#include "nvme/internal.h"

bool nvme_script_before(struct nvme_command *cmd)
{
	(void)cmd;
	return false;
}

void nvme_script_end(struct nvme *c)
{
	(void)c;
}
