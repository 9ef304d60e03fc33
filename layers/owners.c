/* SPDX-License-Identifier: BSD-3-Clause */
#include "layers/owners.h"

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>

#define TABLE_BYTES (sizeof(uint64_t) << OWNER_ENTRIES_SHIFT)

int owners_create(struct owners *o, unsigned page_shift)
{
	void *memory = mmap(NULL, TABLE_BYTES, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	*o = (struct owners){.page_shift = page_shift};
	if (memory == MAP_FAILED)
		return -ENOMEM;
	o->entries = memory;
	atomic_init(&o->epoch, 1);
	return 0;
}

void owners_destroy(struct owners *o)
{
	if (o->entries)
		munmap((void *)o->entries, TABLE_BYTES);
	o->entries = NULL;
}

void owners_void(struct owners *o)
{
	uint32_t epoch = atomic_load(&o->epoch);

	while (epoch < OWNER_LAST_EPOCH && !atomic_compare_exchange_weak(&o->epoch, &epoch, epoch + 1))
		;
}
