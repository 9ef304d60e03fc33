/* SPDX-License-Identifier: BSD-3-Clause */
/* VHDX files: what is made, written and read again. */
#include "tests/vhdx-lab.h"

#include <inttypes.h>

#include "formats/crc32c.h"

#define MIB (UINT64_C(1) << 20)

/* RFC 3720, B.4, and the check value of the catalogues. */
static void test_checksum(void)
{
	uint8_t zeroes[32] = {0};

	CHECK_EQ(crc32c(0, "123456789", 9), 0xe3069283u);
	CHECK_EQ(crc32c(0, zeroes, 32), 0x8a9136aau);
	CHECK_EQ(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283u);
}

static void test_guid_texts(void)
{
	static const struct guid known = GUID_INIT(0x2dc27766, 0xf623, 0x4200, 0x9d64, 0x115e9bfd4a08);
	char text[GUID_TEXT_MAX];
	struct guid g;

	CHECK_STR(guid_text(&known, text), "{2dc27766-f623-4200-9d64-115e9bfd4a08}");
	CHECK(guid_parse(text, strlen(text), &g) && guid_equal(&g, &known));
	CHECK(guid_parse("2DC27766-F623-4200-9D64-115E9BFD4A08", 36, &g) && guid_equal(&g, &known));
	CHECK(!guid_parse("{2dc27766-f623-4200-9d64-115e9bfd4a0g}", 38, &g));
	CHECK(!guid_parse("{2dc27766-f623-4200-9d64-115e9bfd4a08", 37, &g));
}

static struct disk *reopen(struct disk *d, struct recorder **r)
{
	struct recorder *copy;

	CHECK_EQ(disk_flush(d, &io_plain), 0);
	copy = recorder_cut(*r, recorder_calls(*r), UNFLUSHED_ANY, 1);
	CHECK_EQ(disk_close(d, NULL), 0);
	*r = copy;
	return lab_open(recorder_container(copy), "opened again");
}

static void test_what_is_written_is_read(void)
{
	struct recorder *r = lab_create(&(struct vhdx_create_options){.size = 40 * MIB, .block_size = MIB});
	struct disk *d = lab_open(recorder_container(r), "new");
	char back[4096], data[512] = "hello";

	REQUIRE(d != NULL);
	CHECK_EQ(disk_size(d), 40 * MIB);
	CHECK_EQ(disk_write(d, &VEC_FLAT(data, 512), 5 * MIB + 1024, &io_plain), 0);
	d = reopen(d, &r);
	REQUIRE(d != NULL);
	CHECK_EQ(disk_read(d, &VEC_FLAT(back, 4096), 5 * MIB, &io_plain), 0);
	CHECK(!memcmp(back + 1024, "hello", 6));
	CHECK(memory_is_zero(back, 1024));
	CHECK_EQ(disk_close(d, NULL), 0);
}

int main(void)
{
	TAP_RUN(test_checksum);
	TAP_RUN(test_guid_texts);
	TAP_RUN(test_what_is_written_is_read);
	return TAP_DONE();
}
