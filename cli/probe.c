/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/probe.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/sweep.h"
#include "cli/vhd-footer.h"

#define HEAD_SIZE (128u << 10)

const char *const probe_sureness_words[] = {
	[PROBE_POSSIBLE] = "possibly",
	[PROBE_LIKELY] = "likely",
	[PROBE_CERTAIN] = "certainly",
};

/*
 * Signatures at fixed places: those of the formats' own specifications or, for file systems, of what Linux' headers say of
 * their superblocks.
 */
static const struct signature {
	const char *what;
	uint32_t offset;
	const char *bytes;
	size_t length;
	enum probe_sureness sureness;
	const char *why;
} signatures[] = {
	{"VHDX image", 0, "vhdxfile", 8, PROBE_CERTAIN, "'vhdxfile' at 0"},
	{"SQLite database", 0, "SQLite format 3", 16, PROBE_CERTAIN, "'SQLite format 3' at 0"},
	{"LUKS volume", 0, "LUKS\xba\xbe", 6, PROBE_CERTAIN, "'LUKS' at 0"},
	{"qcow2 image", 0, "QFI\xfb", 4, PROBE_LIKELY, "'QFI' at 0"},
	{"VMDK image", 0, "KDMV", 4, PROBE_LIKELY, "'KDMV' at 0"},
	{"VMDK descriptor", 0, "# Disk DescriptorFile", 21, PROBE_CERTAIN, "'# Disk DescriptorFile' at 0"},
	{"VDI image", 64, "\x7f\x10\xda\xbe", 4, PROBE_LIKELY, "0xbeda107f at 64"},
	{"xz compressed file", 0, "\xfd" "7zXZ\0", 6, PROBE_LIKELY, "'7zXZ' at 0"},
	{"Zstandard compressed file", 0, "\x28\xb5\x2f\xfd", 4, PROBE_LIKELY, "0xfd2fb528 at 0"},
	{"gzip compressed file", 0, "\x1f\x8b\x08", 3, PROBE_POSSIBLE, "0x1f8b08 at 0"},
	{"GPT partition table", 512, "EFI PART", 8, PROBE_CERTAIN, "'EFI PART' at 512"},
	{"GPT partition table of 4096-byte blocks", 4096, "EFI PART", 8, PROBE_CERTAIN, "'EFI PART' at 4096"},
	{"ISO 9660 file system", 32769, "CD001", 5, PROBE_LIKELY, "'CD001' at 32769"},
	{"ext2, ext3 or ext4 file system", 1080, "\x53\xef", 2, PROBE_POSSIBLE, "0xef53 at 1080"},
	{"XFS file system", 0, "XFSB", 4, PROBE_LIKELY, "'XFSB' at 0"},
	{"Btrfs file system", 65600, "_BHRfS_M", 8, PROBE_CERTAIN, "'_BHRfS_M' at 65600"},
	{"NTFS file system", 3, "NTFS    ", 8, PROBE_LIKELY, "'NTFS' at 3"},
	{"exFAT file system", 3, "EXFAT   ", 8, PROBE_LIKELY, "'EXFAT' at 3"},
	{"FAT32 file system", 82, "FAT32   ", 8, PROBE_LIKELY, "'FAT32' at 82"},
	{"FAT16 file system", 54, "FAT16   ", 8, PROBE_LIKELY, "'FAT16' at 54"},
	{"LVM physical volume", 512, "LABELONE", 8, PROBE_CERTAIN, "'LABELONE' at 512"},
	{"Linux swap space", 4086, "SWAPSPACE2", 10, PROBE_CERTAIN, "'SWAPSPACE2' at 4086"},
};

#define NR_SIGNATURES (sizeof(signatures) / sizeof(signatures[0]))

struct findings {
	struct probe_finding *list;
	int count;
};

/* Keeps them in order, the surest first. */
static void found(struct findings *f, const char *what, enum probe_sureness sureness, const char *why)
{
	int i = f->count;

	if (f->count == (int)PROBE_MAX)
		return;
	while (i > 0 && f->list[i - 1].sureness < sureness) {
		f->list[i] = f->list[i - 1];
		i--;
	}
	f->list[i] = (struct probe_finding){what, sureness, why};
	f->count++;
}

static void look_for_signatures(struct findings *f, const unsigned char *head, size_t size)
{
	for (size_t i = 0; i < NR_SIGNATURES; i++) {
		const struct signature *s = &signatures[i];
		if (s->offset + s->length <= size && memcmp(head + s->offset, s->bytes, s->length) == 0)
			found(f, s->what, s->sureness, s->why);
	}
}

/* Entries of an MBR say active or not, and at least one of them is there. A GPT's protective one is not told. */
static void look_for_mbr(struct findings *f, const unsigned char *head, size_t size)
{
	unsigned used = 0;

	if (size < 512 || head[510] != 0x55 || head[511] != 0xaa)
		return;
	for (const unsigned char *entry = head + 446; entry < head + 510; entry += 16) {
		if ((entry[0] & 0x7f) || entry[4] == 0xee)
			return;
		used += entry[4] != 0;
	}
	if (used > 0)
		found(f, "MBR partition table", PROBE_POSSIBLE, "0x55aa at 510 and entries that can be");
}

static void look_for_vhd(struct findings *f, const unsigned char *block, const char *where)
{
	struct vhd_footer footer;

	if (!vhd_footer_read(block, &footer))
		return;
	found(f,
	      footer.type == VHD_FIXED          ? "fixed VHD image"
	      : footer.type == VHD_DYNAMIC      ? "dynamic VHD image"
	      : footer.type == VHD_DIFFERENCING ? "differencing VHD image"
						: "VHD image",
	      footer.sum_is_right ? PROBE_CERTAIN : PROBE_LIKELY, where);
}

static int look(struct disk *d, unsigned char *buffer, struct findings *f, struct error *err)
{
	uint64_t size = disk_size(d), block = disk_info(d)->block_size;
	size_t head = size < HEAD_SIZE ? (size_t)size : HEAD_SIZE;
	int status = read_piece(d, "SPEC", buffer, head, 0, err);

	if (status)
		return status;
	look_for_signatures(f, buffer, head);
	look_for_mbr(f, buffer, head);
	look_for_vhd(f, buffer, "'conectix' at 0");
	if (f->count > 0 && strstr(f->list[0].what, "VHD image"))
		return 0;
	status = read_piece(d, "SPEC", buffer, (size_t)block, size - block, err);
	if (!status)
		look_for_vhd(f, buffer + block - VHD_FOOTER_SIZE, "'conectix' in the last 512 bytes");
	return status;
}

int probe_disk(struct disk *d, struct probe_finding out[PROBE_MAX], struct error *err)
{
	struct findings f = {.list = out};
	unsigned char *buffer = malloc(HEAD_SIZE);
	int status = buffer ? look(d, buffer, &f, err) : error_set(err, -ENOMEM, "no memory");

	free(buffer);
	return status ? status : f.count;
}
