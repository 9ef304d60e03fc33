/* SPDX-License-Identifier: BSD-3-Clause */
/* Sizes, times and numbers as text. */
#include <inttypes.h>

#include "core/spec.h"
#include "tests/tap.h"

#define K (UINT64_C(1) << 10)
#define M (UINT64_C(1) << 20)
#define G (UINT64_C(1) << 30)
#define E (UINT64_C(1) << 60)

static void check_size(const char *text, uint64_t wanted)
{
	uint64_t size = 1234567;

	if (!CHECK_EQ(size_parse(text, &size, NULL), 0) || !CHECK_EQ(size, wanted))
		tap_diag("size '%s'", text);
}

static void test_sizes(void)
{
	check_size("0", 0);
	check_size("512", 512);
	check_size("1B", 1);
	check_size("1b", 1);
	check_size("64K", 64 * K);
	check_size("64k", 64 * K);
	check_size("64KB", 64 * K);
	check_size("64kIb", 64 * K);
	check_size("3M", 3 * M);
	check_size("1G", G);
	check_size("5TiB", 5 * K * G);
	check_size("6P", 6 * M * G);
	check_size("7e", 7 * E);
	check_size("15EiB", 15 * E);
	check_size("18446744073709551615", UINT64_MAX);
	check_size("0x10", 16);
	check_size("0XfF", 255);
	check_size("0x10K", 16 * K);
	check_size("0x1B", 27);
	check_size("0x1E", 30);
	check_size("0xffffffffffffffff", UINT64_MAX);
	check_size("00000000000000000000000012", 12);
	check_size("0E", 0);
	check_size("VMGS_DEFAULT", 4 * M);
}

/* `status` and its words. */
static void check_no_size(const char *text, int status, const char *words)
{
	CLEANUP_ERROR struct error err = {0};
	uint64_t size;

	CHECK_EQ(size_parse(text, &size, NULL), status);
	if (!CHECK_EQ(size_parse(text, &size, &err), status) || !CHECK(strstr(error_text(&err), words)))
		tap_diag("size '%s': %s", text, error_text(&err));
}

static void test_no_sizes(void)
{
	static const char *const bad[] = {
		"",    " ",   "K",    "1 ",   " 1",   "-1",  "+1",   "1.5G", "1e3",   "0x",    "0xG",
		"1KK", "1Ki", "1iB",  "1BB",  "1KBB", "1BiB", "1Z",  "1,5K", "1K ",   "G1",    "\xd9\xa1",
		"x10", "0x0x1", "1\n", "K1",  "VMGS", "1GiBs",
	};

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		check_no_size(bad[i], -EINVAL, "is not a size: expected bytes with an optional unit");
	check_no_size("18446744073709551616", -ERANGE, "does not fit in 64 bits (below 16E)");
	check_no_size("16E", -ERANGE, "the size '16E'");
	check_no_size("0x10000000000000000", -ERANGE, "64 bits");
	check_no_size("17179869184G", -ERANGE, "64 bits");
	check_no_size("99999999999999999999999999999999K", -ERANGE, "64 bits");
	check_no_size("99999999999999999999999999999999X", -EINVAL, "is not a size");
}

static void check_printed(uint64_t size, const char *exact, const char *human)
{
	char buffer[SIZE_TEXT_MAX];

	CHECK_STR(size_print(size, buffer), exact);
	CHECK_STR(size_print_human(size, buffer), human);
}

static void test_printed(void)
{
	check_printed(0, "0", "0 bytes");
	check_printed(1, "1", "1 byte");
	check_printed(512, "512", "512 bytes");
	check_printed(1000, "1000", "1000 bytes");
	check_printed(1023, "1023", "1023 bytes");
	check_printed(K, "1K", "1 KiB");
	check_printed(1536, "1536", "1.5 KiB");
	check_printed(K + 11, "1035", "1.01 KiB");
	check_printed(K + 103, "1127", "1.1 KiB");
	check_printed(10 * K + 103, "10343", "10.1 KiB");
	check_printed(10 * K + 10, "10250", "10 KiB");
	check_printed(100 * K + 512, "102912", "100 KiB");
	check_printed(1023 * K + 1023, "1048575", "1023 KiB");
	check_printed(M, "1M", "1 MiB");
	check_printed(1536 * M, "1536M", "1.5 GiB");
	check_printed(G, "1G", "1 GiB");
	check_printed(INT64_MAX, "9223372036854775807", "7.99 EiB");
	check_printed(8 * E, "8E", "8 EiB");
	check_printed(UINT64_MAX, "18446744073709551615", "15.9 EiB");
}

/* Every size is read back as itself, near every power of two. */
static void test_round_trip(void)
{
	char buffer[SIZE_TEXT_MAX];

	for (unsigned bit = 0; bit < 64; bit++) {
		for (int64_t away = -2; away <= 2; away++) {
			uint64_t size = (UINT64_C(1) << bit) + (uint64_t)away;

			check_size(size_print(size, buffer), size);
		}
	}
}

static void check_duration(const char *text, uint64_t wanted, const char *printed)
{
	char buffer[SIZE_TEXT_MAX];
	uint64_t ns = 1234567;

	if (!CHECK_EQ(duration_parse(text, &ns, NULL), 0) || !CHECK_EQ(ns, wanted))
		tap_diag("time '%s'", text);
	CHECK_STR(duration_print(ns, buffer), printed);
}

static void test_durations(void)
{
	check_duration("0", 0, "0s");
	check_duration("20", 20000000, "20ms");
	check_duration("20ms", 20000000, "20ms");
	check_duration("1000", 1000000000, "1s");
	check_duration("1500us", 1500000, "1500us");
	check_duration("1US", 1000, "1us");
	check_duration("7ns", 7, "7ns");
	check_duration("2S", 2000000000, "2s");
	check_duration("18446744073709551615ns", UINT64_MAX, "18446744073709551615ns");
}

static void test_no_durations(void)
{
	static const char *const bad[] = {"", "ms", "1 ms", "1m", "1min", "-1", "1.5", "1ss", "1K"};
	CLEANUP_ERROR struct error err = {0};
	uint64_t ns;

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		CHECK_EQ(duration_parse(bad[i], &ns, &err), -EINVAL);
		CHECK(strstr(error_text(&err), "is not a time: expected milliseconds"));
	}
	CHECK_EQ(duration_parse("18446744073710s", &ns, &err), -ERANGE);
	CHECK(strstr(error_text(&err), "does not fit in 64 bits of nanoseconds"));
	CHECK_EQ(duration_parse("18446744073709551616ns", &ns, NULL), -ERANGE);
}

static void test_numbers(void)
{
	CLEANUP_ERROR struct error err = {0};
	uint64_t n;

	CHECK_EQ(number_parse("18446744073709551615", &n, NULL), 0);
	CHECK(n == UINT64_MAX);
	CHECK_EQ(number_parse("0x1f", &n, NULL), 0);
	CHECK_EQ(n, 31);
	CHECK_EQ(number_parse("18446744073709551616", &n, &err), -ERANGE);
	CHECK_STR(err.text, "the number '18446744073709551616' does not fit in 64 bits");
	CHECK_EQ(number_parse("99999999999999999999x", &n, &err), -EINVAL);
	CHECK_EQ(number_parse("", &n, &err), -EINVAL);
	CHECK_EQ(number_parse("1K", &n, &err), -EINVAL);
	CHECK_STR(err.text, "'1K' is not a whole number");
}

int main(void)
{
	TAP_RUN(test_sizes);
	TAP_RUN(test_no_sizes);
	TAP_RUN(test_printed);
	TAP_RUN(test_round_trip);
	TAP_RUN(test_durations);
	TAP_RUN(test_no_durations);
	TAP_RUN(test_numbers);
	return TAP_DONE();
}
