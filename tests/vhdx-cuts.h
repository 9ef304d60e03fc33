/* SPDX-License-Identifier: BSD-3-Clause */
/* What tests of power cuts in VHDX files share: content that is told by tags, a parent of such, and qemu-img as a second judge. */
#ifndef PLATTER_TESTS_VHDX_CUTS_H
#define PLATTER_TESTS_VHDX_CUTS_H

#include "tests/vhdx-lab.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/node.h"
#include "tests/contract.h"

#define MIB (UINT64_C(1) << 20)
#define CUTS_PIECE MIB /* read at once */

/* CRASH_CUTS in the environment, or fewer under checkers. */
TAP_UNUSED static unsigned cuts_wanted(unsigned usual)
{
	const char *text = getenv("CRASH_CUTS");

	return text ? (unsigned)atoi(text) : usual / (contract_slowness() > 1 ? 5 * contract_slowness() : 1);
}

/* ------------------------------------------------------------------ tags */

/* Every sector holds one number again and again, so what a disk holds is a number for each sector; 0 is zeroes. */
TAP_UNUSED static void tag_fill(uint8_t *p, uint32_t sector, uint32_t tag)
{
	for (uint32_t i = 0; i + 4 <= sector; i += 4)
		memcpy(p + i, &tag, 4);
}

/* False: it is torn. */
TAP_UNUSED static bool tag_read(const uint8_t *p, uint32_t sector, uint32_t *tag)
{
	memcpy(tag, p, 4);
	return !memcmp(p, p + 4, sector - 4);
}

/* ------------------------------------------------------------------ a parent */

struct tagged_disk {
	struct disk disk;
	uint32_t sector;
};

TAP_UNUSED static uint32_t base_tag(uint64_t sector)
{
	return 0x80000000u | (uint32_t)sector;
}

static int tagged_read(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	uint32_t sector = ((struct tagged_disk *)d)->sector;
	uint8_t data[4096];

	(void)io;
	for (uint64_t at = 0; at < v->size; at += sector) {
		tag_fill(data, sector, base_tag((offset + at) / sector));
		vec_scatter(v, at, data, sector);
	}
	return 0;
}

/* A disk whose sectors are told apart by base_tag(); it takes no memory. */
TAP_UNUSED static struct disk *base_create(uint64_t size, uint32_t sector)
{
	static const struct disk_ops ops = {.read = tagged_read};
	struct tagged_disk *t = disk_new(sizeof(*t), "tagged", &ops, NULL, 0);

	if (t) {
		t->sector = sector;
		t->disk.info = (struct disk_info){.block_size = sector,
						  .physical_block_size = sector,
						  .discard_granularity = sector,
						  .flags = DISK_READ_ONLY};
		if (!disk_publish(&t->disk, size, NULL))
			return &t->disk;
	}
	printf("Bail out! no base\n");
	exit(99);
}

/* ------------------------------------------------------------------ qemu-img */

/*
 * Every how many cuts it is asked: CRASH_REFEREE in the environment, 0 never. Where there is none it is never asked. It knows no
 * parents, and no sectors of 4 KiB.
 */
TAP_UNUSED static unsigned referee_every(unsigned usual)
{
	static int found = -1;
	const char *text = getenv("CRASH_REFEREE");

	if (found < 0) {
		found = !system("qemu-img --version >/dev/null 2>&1");
		if (!found)
			tap_diag("there is no qemu-img (qemu-utils), which would judge as well");
	}
	return !found ? 0 : text ? (unsigned)atoi(text) : usual;
}

/* What `qemu-img check -r all` makes of the file, as a new recorder; NULL when it is not content. */
TAP_UNUSED static struct recorder *referee_mended(struct recorder *r)
{
	struct recorder *out = recorder_create("mended by qemu-img.vhdx");
	char command[1200], path[512];
	bool good;

	snprintf(path, sizeof(path), "%s", tmppath("referee.vhdx"));
	snprintf(command, sizeof(command), "qemu-img check -q -r all -f vhdx '%s' >'%s.said' 2>&1", path, path);
	good = CHECK(recorder_save(r, path));
	if (good && !CHECK_EQ(system(command), 0)) {
		snprintf(command, sizeof(command), "sed 's/^/# /' '%s.said'", path);
		good = system(command) && false;
	}
	if (good && CHECK(recorder_load(out, path)))
		return out;
	container_close(recorder_container(out), false, NULL);
	return NULL;
}

/* ------------------------------------------------------------------ looking for damage */

/* `mended`: nothing is found; else nothing is found that could not be mended. */
TAP_UNUSED static bool checks_clean(struct recorder *r, bool mended)
{
	CLEANUP_ERROR struct error err = {0};
	struct vhdx_findings f;
	char *dump;
	bool good;

	if (vhdx_check(recorder_container(r), false, &f, &err)) {
		tap_diag("check: %s", error_text(&err));
		return false;
	}
	good = mended ? !f.errors : f.errors == f.repaired;
	dump = good ? NULL : json_dumps(f.list, 0);
	if (!good)
		tap_diag("check: %s", dump);
	free(dump);
	vhdx_findings_free(&f);
	return good;
}

#endif
