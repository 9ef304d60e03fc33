/* SPDX-License-Identifier: BSD-3-Clause */
/* Disks are encrypted as IEEE 1619 says, keys are taken from where they are and refused when poor, plaintext stays above. */
#include <fcntl.h>
#include <inttypes.h>
#include <linux/keyctl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "core/checkers.h"
#include "core/open.h"
#include "decorators/cipher.h"
#include "decorators/encrypted.h"
#include "kinds.h"
#include "tests/model.h"
#include "tests/tap.h"
#include "tests/trap.h"

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)

/* ------------------------------------------------------------------ helpers */

static unsigned nibble(char c)
{
	return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
}

static size_t from_hex(const char *text, unsigned char *out)
{
	size_t n = strlen(text) / 2;

	for (size_t i = 0; i < n; i++)
		out[i] = (unsigned char)(nibble(text[2 * i]) << 4 | nibble(text[2 * i + 1]));
	return n;
}

static const char *write_key(const char *name, const void *bytes, size_t size)
{
	const char *path = tmppath(name);
	int fd;

	unlink(path);
	fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, bytes, size) != (ssize_t)size) {
		printf("Bail out! cannot write %s\n", path);
		exit(99);
	}
	close(fd);
	return path;
}

/* A key whose bytes are all different. */
static const char *any_key(size_t size)
{
	unsigned char key[256];

	for (size_t i = 0; i < size; i++)
		key[i] = (unsigned char)(i * 7 + 1);
	return write_key("key", key, size);
}

/* "crypt:CIPHER:KEY;OPTIONS:BELOW" in a static buffer. */
static const char *crypt_spec(const char *cipher, const char *key, const char *options, const char *below)
{
	static char text[600];

	snprintf(text, sizeof(text), "crypt:%s:%s%s:%s", cipher, key, options, below);
	return text;
}

static struct disk *must_open(const char *spec)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d;

	if (!CHECK_EQ(disk_open(spec, 0, &d, &err), 0)) {
		tap_diag("%s: %s", spec, error_text(&err));
		exit(99);
	}
	return d;
}

static void check_refused(const char *spec, int status, const char *part)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d = NULL;

	CHECK_EQ(disk_open(spec, 0, &d, &err), status);
	if (!CHECK(strstr(error_text(&err), part) != NULL))
		tap_diag("%s", error_text(&err));
	disk_close(d, NULL);
}

static void close_disk(struct disk *d)
{
	CHECK_EQ(disk_close(d, NULL), 0);
}

static void must_read(struct disk *d, void *bytes, size_t size, uint64_t offset)
{
	CHECK_EQ(disk_read(d, &VEC_FLAT(bytes, size), offset, &io_plain), 0);
}

static void must_write(struct disk *d, const void *bytes, size_t size, uint64_t offset)
{
	CHECK_EQ(disk_write(d, &VEC_FLAT(bytes, size), offset, &io_plain), 0);
}

/* ------------------------------------------------------------------ the standard's vectors (IEEE 1619-2007, annex B) */

static const char key_128[] = "2718281828459045235360287471352631415926535897932384626433832795";
static const char key_256[] = "2718281828459045235360287471352662497757247093699959574966967627"
			      "3141592653589793238462643383279502884197169399375105820974944592";

static const char vector_4[] =
	"27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89cc78cf7f5e543445f8333d8fa7f560000"
	"05279fa5d8b5e4ad40e736ddb4d35412328063fd2aab53e5ea1e0a9f332500a5df9487d07a5c92cc512c8866c7e860ce"
	"93fdf166a24912b422976146ae20ce846bb7dc9ba94a767aaef20c0d61ad02655ea92dc4c4e41a8952c651d33174be51"
	"a10c421110e6d81588ede82103a252d8a750e8768defffed9122810aaeb99f9172af82b604dc4b8e51bcb08235a6f434"
	"1332e4ca60482a4ba1a03b3e65008fc5da76b70bf1690db4eae29c5f1badd03c5ccf2a55d705ddcd86d449511ceb7ec3"
	"0bf12b1fa35b913f9f747a8afd1b130e94bff94effd01a91735ca1726acd0b197c4e5b03393697e126826fb6bbde8ecc"
	"1e08298516e2c9ed03ff3c1b7860f6de76d4cecd94c8119855ef5297ca67e9f3e7ff72b1e99785ca0a7e7720c5b36dc6"
	"d72cac9574c8cbbc2f801e23e56fd344b07f22154beba0f08ce8891e643ed995c94d9a69c9f1b5f499027a78572aeebd"
	"74d20cc39881c213ee770b1010e4bea718846977ae119f7a023ab58cca0ad752afe656bb3c17256a9f6e9bf19fdd5a38"
	"fc82bbe872c5539edb609ef4f79c203ebb140f2e583cb2ad15b4aa5b655016a8449277dbd477ef2c8d6c017db738b18d"
	"eb4a427d1923ce3ff262735779a418f20a282df920147beabe421ee5319d0568";
static const char vector_5[] =
	"264d3ca8512194fec312c8c9891f279fefdd608d0c027b60483a3fa811d65ee59d52d9e40ec5672d81532b38b6b089ce"
	"951f0f9c35590b8b978d175213f329bb1c2fd30f2f7f30492a61a532a79f51d36f5e31a7c9a12c286082ff7d2394d18f"
	"783e1a8e72c722caaaa52d8f065657d2631fd25bfd8e5baad6e527d763517501c68c5edc3cdd55435c532d7125c8614d"
	"eed9adaa3acade5888b87bef641c4c994c8091b5bcd387f3963fb5bc37aa922fbfe3df4e5b915e6eb514717bdd2a7407"
	"9a5073f5c4bfd46adf7d282e7a393a52579d11a028da4d9cd9c77124f9648ee383b1ac763930e7162a8d37f350b2f74b"
	"8472cf09902063c6b32e8c2d9290cefbd7346d1c779a0df50edcde4531da07b099c638e83a755944df2aef1aa31752fd"
	"323dcb710fb4bfbb9d22b925bc3577e1b8949e729a90bbafeacf7f7879e7b1147e28ba0bae940db795a61b15ecf4df8d"
	"b07b824bb062802cc98a9545bb2aaeed77cb3fc6db15dcd7d80d7d5bc406c4970a3478ada8899b329198eb61c193fb62"
	"75aa8ca340344a75a862aebe92eee1ce032fd950b47d7704a3876923b4ad62844bf4a09c4dbe8b4397184b7471360c95"
	"64880aedddb9baa4af2e75394b08cd32ff479c57a07d3eab5d54de5f9738b8d27f27a9f0ab11799d7b7ffefb2704c95c"
	"6ad12c39f1e867a4b7b1d7818a4b753dfd2a89ccb45e001a03a867b187f225dd";
static const char vector_10[] =
	"1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b5d31e276f8fe4a8d66b317f9ac683f44"
	"680a86ac35adfc3345befecb4bb188fd5776926c49a3095eb108fd1098baec70aaa66999a72a82f27d848b21d4a741b0"
	"c5cd4d5fff9dac89aeba122961d03a757123e9870f8acf1000020887891429ca2a3e7a7d7df7b10355165c8b9a6d0a7d"
	"e8b062c4500dc4cd120c0f7418dae3d0b5781c34803fa75421c790dfe1de1834f280d7667b327f6c8cd7557e12ac3a0f"
	"93ec05c52e0493ef31a12d3d9260f79a289d6a379bc70c50841473d1a8cc81ec583e9645e07b8d9670655ba5bbcfecc6"
	"dc3966380ad8fecb17b6ba02469a020a84e18e8f84252070c13e9f1f289be54fbc481457778f616015e1327a02b140f1"
	"505eb309326d68378f8374595c849d84f4c333ec4423885143cb47bd71c5edae9be69a2ffeceb1bec9de244fbe15992b"
	"11b77c040f12bd8f6a975a44a0f90c29a9abc3d4d893927284c58754cce294529f8614dcd2aba991925fedc4ae74ffac"
	"6e333b93eb4aff0479da9a410e4450e0dd7ae4c6e2910900575da401fc07059f645e8b7e9bfdef33943054ff84011493"
	"c27b3429eaedb4ed5376441a77ed43851ad77f16f541dfd269d50d6a5f14fb0aab1cbb4c1550be97f7ab4066193c4caa"
	"773dad38014bd2092fa755c824bb5e54c4f36ffda9fcea70b9c6e693e148c151";

static const char vector_14[] =
	"64497e5a831e4a932c09be3e5393376daa599548b816031d224bbf50a818ed2350eae7e96087c8a0db51ad290bd00c1a"
	"c1620857635bf246c176ab463be30b808da548081ac847b158e1264be25bb0910bbc92647108089415d45fab1b3d2604"
	"e8a8eff1ae4020cfa39936b66827b23f371b92200be90251e6d73c5f86de5fd4a950781933d79a28272b782a2ec313ef"
	"dfcc0628f43d744c2dc2ff3dcb66999b50c7ca895b0c64791eeaa5f29499fb1c026f84ce5b5c72ba1083cddb5ce45434"
	"631665c333b60b11593fb253c5179a2c8db813782a004856a1653011e93fb6d876c18366dd8683f53412c0c180f9c848"
	"592d593f8609ca736317d356e13e2bff3a9f59cd9aeb19cd482593d8c46128bb32423b37a9adfb482b99453fbe25a41b"
	"f6feb4aa0bef5ed24bf73c762978025482c13115e4015aac992e5613a3b5c2f685b84795cb6e9b2656d8c88157e52c42"
	"f978d8634c43d06fea928f2822e465aa6576e9bf419384506cc3ce3c54ac1a6f67dc66f3b30191e698380bc999b05abc"
	"e19dc0c6dcc2dd001ec535ba18deb2df1a101023108318c75dc98611a09dc48a0acdec676fabdf222f07e026f059b672"
	"b56e5cbc8e1d21bbd867dd927212054681d70ea737134cdfce93b6f82ae22423274e58a0821cc5502e2d0ab4585e94de"
	"6975be5e0b4efce51cd3e70c25a1fbbbd609d273ad5b0d59631c531f6a0a57b9";

static void fill_counting(unsigned char *bytes)
{
	for (unsigned i = 0; i < 512; i++)
		bytes[i] = (unsigned char)i;
}

/* Writing `plain` in block `number` leaves the vector below, and reading it gives `plain` back. */
static void check_vector(const char *cipher, const char *key, uint64_t number, const unsigned char *plain, const char *vector)
{
	struct disk *d = must_open(crypt_spec(cipher, write_key("hex", key, strlen(key)), "", "mem:1P"));
	unsigned char expected[512], below[512], back[512];

	from_hex(vector, expected);
	must_write(d, plain, 512, number * 512);
	must_read(disk_child(d, 0), below, 512, number * 512);
	CHECK_MEM(below, expected, 512);
	must_read(d, back, 512, number * 512);
	CHECK_MEM(back, plain, 512);
	close_disk(d);
}

static void test_vectors_of_the_standard(void)
{
	unsigned char plain[512];

	fill_counting(plain);
	check_vector("xts-aes-128", key_128, 0, plain, vector_4);
	check_vector("xts-aes-256", key_256, 0xff, plain, vector_10);
	check_vector("xts-aes-256", key_256, UINT64_C(0xffffffffff), plain, vector_14);
	from_hex(vector_4, plain);
	check_vector("xts-aes-128", key_128, 1, plain, vector_5);
}

/* The tweak has more than 32 bits, begins where it is told to, and counts other bytes than a unit has if told to. */
static void test_tweaks(void)
{
	static const uint64_t firsts[] = {0, 1, 0xff, UINT64_C(0x123456789a), UINT64_MAX - 5};
	unsigned char plain[4096] = {1, 2, 3}, one[4096], other[4096];

	for (size_t i = 0; i < 5; i++) {
		const struct xts_units counted = {.unit_bytes = 512, .tweak_bytes = 512, .first_tweak = firsts[i]};
		const struct xts_units large = {.unit_bytes = 512, .tweak_bytes = 4096, .first_tweak = firsts[i] + 3};
		struct secret a = {0}, b = {0};
		struct xts *x = NULL, *y = NULL;
		secret_make(&a, 64);
		secret_make(&b, 64);
		a.size = from_hex(key_256, a.bytes);
		b.size = from_hex(key_256, b.bytes);
		CHECK_EQ(xts_create(&a, &counted, &x, NULL), 0);
		CHECK_EQ(xts_create(&b, &large, &y, NULL), 0);
		CHECK(!a.bytes && !b.bytes);
		CHECK_EQ(xts_encrypt(x, &VEC_FLAT(plain, 512), one, 3 * 512), 0);
		CHECK_EQ(xts_encrypt(y, &VEC_FLAT(plain, 512), other, 0), 0);
		CHECK_MEM(one, other, 512);
		CHECK_EQ(xts_encrypt(y, &VEC_FLAT(plain, 512), other, 4096), 0);
		CHECK(memcmp(one, other, 512));
		xts_free(x);
		xts_free(y);
	}
}

/* A block of 4 KiB is one unit: its second 512 bytes are not those of a unit of their own. */
static void test_unit_is_the_block(void)
{
	const char *key = any_key(64);
	struct disk *small = must_open(crypt_spec("xts-aes-256", key, "", "mem:1M"));
	struct disk *large = must_open(crypt_spec("xts-aes-256", key, "", "mem:1M;block=4096"));
	unsigned char plain[4096] = {1}, a[4096], b[4096];

	must_write(small, plain, 4096, 0);
	must_write(large, plain, 4096, 0);
	must_read(disk_child(small, 0), a, 4096, 0);
	must_read(disk_child(large, 0), b, 4096, 0);
	CHECK_MEM(a, b, 512);
	CHECK(memcmp(a + 512, b + 512, 512));
	must_write(small, plain, 512, 512);
	must_write(large, plain, 4096, 4096);
	must_read(disk_child(small, 0), a, 512, 512);
	must_read(disk_child(large, 0), b, 4096, 4096);
	CHECK_MEM(a, b, 512); /* the tweak counts blocks */
	close_disk(small);
	close_disk(large);
}

/* ------------------------------------------------------------------ keys */

static void test_key_in_hexadecimal(void)
{
	static const char *const ends[] = {"", "\n", "\r\n", " \t\n"};
	unsigned char raw[64], plain[512] = {9}, a[512], b[512];
	char text[200];

	from_hex(key_256, raw);
	for (size_t i = 0; i < 4; i++) {
		struct disk *d = must_open(crypt_spec("xts-aes-256", write_key("raw", raw, 64), "", "mem:1M")), *e;
		snprintf(text, sizeof(text), "%s%s", key_256, ends[i]);
		if (i == 1)
			for (char *c = text; *c; c++)
				*c = (char)(*c >= 'a' && *c <= 'f' ? *c - 32 : *c);
		e = must_open(crypt_spec("xts-aes-256", write_key("text", text, strlen(text)), "", "mem:1M"));
		must_write(d, plain, 512, 0);
		must_write(e, plain, 512, 0);
		must_read(disk_child(d, 0), a, 512, 0);
		must_read(disk_child(e, 0), b, 512, 0);
		CHECK_MEM(a, b, 512);
		close_disk(d);
		close_disk(e);
	}
}

static void test_keys_of_other_lengths_are_refused(void)
{
	static const size_t sizes[] = {0, 1, 31, 32, 33, 63, 65, 127, 128, 129, 200};
	static char many[8192];
	char text[80];

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		snprintf(text, sizeof(text), sizes[i] ? "%zu bytes; a key has exactly 64" : "it is empty", sizes[i]);
		check_refused(crypt_spec("xts-aes-256", any_key(sizes[i]), "", "mem:1M"), -EINVAL, text);
	}
	check_refused(crypt_spec("xts-aes-128", any_key(64), "", "mem:1M"), -EINVAL, "exactly 32");
	check_refused(crypt_spec("xts-aes-256", write_key("many", many, 8192), "", "mem:1M"), -EFBIG, "more than 4095");
	check_refused(crypt_spec("xts-aes-256", tmppath("none"), "", "mem:1M"), -ENOENT, "key file '");
	check_refused(crypt_spec("xts-aes-256", tmpdir(), "", "mem:1M"), -EISDIR, "key file '");
	check_refused(crypt_spec("xts-aes-192", any_key(64), "", "mem:1M"), -EINVAL, "xts-aes-192");
}

/* The two mistakes that are easily made: an editor's newline, and digits where bytes were meant. */
static void test_likely_mistakes_are_named(void)
{
	char text[130];

	snprintf(text, sizeof(text), "%s\n", key_128); /* 64 digits: as bytes it would do for the larger key */
	check_refused(crypt_spec("xts-aes-256", write_key("k", text, 64), "", "mem:1M"), -EINVAL,
		      "64 hexadecimal digits; a key of 64 bytes has 128");
	memset(text, 'x', sizeof(text));
	text[64] = '\n';
	check_refused(crypt_spec("xts-aes-256", write_key("k", text, 65), "", "mem:1M"), -EINVAL, "end of a line");
}

static void test_equal_halves_are_refused(void)
{
	unsigned char key[64];

	for (unsigned i = 0; i < 64; i++)
		key[i] = (unsigned char)(i % 32);
	check_refused(crypt_spec("xts-aes-256", write_key("k", key, 64), "", "mem:1M"), -EINVAL, "two halves");
	key[63]++;
	close_disk(must_open(crypt_spec("xts-aes-256", write_key("k", key, 64), "", "mem:1M")));
	for (unsigned i = 0; i < 32; i++)
		key[i] = (unsigned char)(i % 16);
	check_refused(crypt_spec("xts-aes-128", write_key("k", key, 32), "", "mem:1M"), -EINVAL, "two halves");
}

/* A key that is refused does not show in the reason. */
static void test_errors_do_not_tell_keys(void)
{
	CLEANUP_ERROR struct error err = {0};
	struct disk *d;

	CHECK_EQ(disk_open(crypt_spec("xts-aes-256", write_key("k", "TopSecretTopSecret", 18), "", "mem:1M"), 0, &d, &err), -EINVAL);
	CHECK(!strstr(error_text(&err), "TopSecret"));
}

/* From a descriptor that can be read once, and from one that can be read again. */
static void test_key_from_a_descriptor(void)
{
	unsigned char key[64];
	char text[24];
	int ends[2], fd;

	from_hex(key_256, key);
	REQUIRE(pipe(ends) == 0);
	CHECK_EQ(write(ends[1], key, 64), 64);
	close(ends[1]);
	snprintf(text, sizeof(text), "%d", ends[0]);
	close_disk(must_open(crypt_spec("xts-aes-256", text, ";from=fd", "mem:1M")));
	check_refused(crypt_spec("xts-aes-256", text, ";from=fd", "mem:1M"), -EINVAL, "it is empty");
	close(ends[0]);
	fd = open(write_key("k", key, 64), O_RDONLY | O_CLOEXEC);
	snprintf(text, sizeof(text), "%d", fd);
	close_disk(must_open(crypt_spec("xts-aes-256", text, ";from=fd", "mem:1M")));
	close_disk(must_open(crypt_spec("xts-aes-256", text, ";from=fd", "mem:1M")));
	close(fd);
	check_refused(crypt_spec("xts-aes-256", text, ";from=fd", "mem:1M"), -EBADF, "no file is open");
	check_refused(crypt_spec("xts-aes-256", "4294967299", ";from=fd", "mem:1M"), -EBADF, "no file is open");
	check_refused(crypt_spec("xts-aes-256", "x", ";from=fd", "mem:1M"), -EINVAL, "file descriptor 'x'");
}

static void test_key_from_the_keyring(void)
{
	unsigned char key[64], large[6000];
	long id;

	from_hex(key_256, key);
	memset(large, 1, sizeof(large));
	id = syscall(SYS_add_key, "user", "platter-test-key", key, sizeof(key), KEY_SPEC_PROCESS_KEYRING);
	if (id < 0)
		SKIP("the system has no keyring for this process");
	close_disk(must_open(crypt_spec("xts-aes-256", "platter-test-key", ";from=keyring", "mem:1M")));
	check_refused(crypt_spec("xts-aes-256", "platter-no-such-key", ";from=keyring", "mem:1M"), -ENOKEY, "keyring");
	syscall(SYS_add_key, "user", "platter-test-key", large, sizeof(large), KEY_SPEC_PROCESS_KEYRING);
	check_refused(crypt_spec("xts-aes-256", "platter-test-key", ";from=keyring", "mem:1M"), -EFBIG, "more than");
	syscall(SYS_keyctl, KEYCTL_UNLINK, id, KEY_SPEC_PROCESS_KEYRING);
}

/* What goes to stderr while a spec is opened. */
static void open_and_listen(const char *spec, char *out, size_t room)
{
	int saved = dup(STDERR_FILENO), fd = open(tmppath("stderr"), O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
	ssize_t n;

	dup2(fd, STDERR_FILENO);
	close_disk(must_open(spec));
	dup2(saved, STDERR_FILENO);
	n = pread(fd, out, room - 1, 0);
	out[n < 0 ? 0 : n] = 0;
	close(saved);
	close(fd);
}

static void test_warning_of_a_readable_key(void)
{
	static const mode_t modes[] = {0600, 0400, 0640, 0604, 0644};
	const char *key = any_key(64);
	char text[600];

	for (size_t i = 0; i < 5; i++) {
		CHECK_EQ(chmod(key, modes[i]), 0);
		open_and_listen(crypt_spec("xts-aes-256", key, "", "mem:1M"), text, sizeof(text));
		CHECK_EQ(strstr(text, "can be read by others") != NULL, i >= 2);
	}
}

/* Sanitizers do nothing for mlock(2). */
#if defined(CHECKERS_ASAN) || defined(CHECKERS_TSAN)
#define LOCKS_COUNT false
#else
#define LOCKS_COUNT true
#endif

/* KiB that this process has locked in memory. */
static long locked_kib(void)
{
	FILE *f = fopen("/proc/self/status", "r");
	char line[200];
	long n = -1;

	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "VmLck: %ld", &n);
	if (f)
		fclose(f);
	return n;
}

/* Also in a process that forked before the first request, as servers do. */
static void test_key_is_locked_in_memory(void)
{
	long before = locked_kib();
	struct disk *d = must_open(crypt_spec("xts-aes-256", any_key(64), "", "mem:1M"));
	long open = locked_kib();
	char block[512];
	pid_t child;
	int status = -1;

	if (open <= before) {
		close_disk(d);
		SKIP("the system locks no memory for this process");
	}
	child = fork();
	if (!child)
		_exit(locked_kib() != 0 || disk_read(d, &VEC_FLAT(block, 512), 0, &io_plain) || locked_kib() <= 0);
	CHECK(child > 0 && waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
	close_disk(d);
	CHECK_EQ(locked_kib(), before);
}

/* ------------------------------------------------------------------ plaintext stays above */

/* Looks at all that is written to it: nothing of the plaintext may be there. */
struct spy {
	struct disk disk;
	const unsigned char *plain; /* of the whole disk */
	struct disk *above;         /* whose size is looked at while something is written; NULL: nobody's */
	uint64_t size_above;        /* the largest that was seen */
	_Atomic unsigned writes, seen;
};

static int spy_write(struct disk *d, const struct vec *v, uint64_t offset, const struct io *io)
{
	struct spy *s = (struct spy *)d;
	unsigned char *bytes = malloc(v->size);

	vec_gather(v, 0, bytes, v->size);
	for (size_t i = 0; i < v->size; i += 16)
		if (s->plain && !memcmp(bytes + i, s->plain + offset + i, 16))
			s->seen++;
	if (s->above && disk_size(s->above) > s->size_above)
		s->size_above = disk_size(s->above);
	s->writes++;
	free(bytes);
	return disk_write(d->children[0], v, offset, io);
}

static struct spy *spy_create(const unsigned char *plain, uint64_t size)
{
	static const struct disk_ops ops = {.write = spy_write};
	char spec[60];
	struct disk *below;
	struct spy *s;

	snprintf(spec, sizeof(spec), "mem:%" PRIu64, size);
	below = must_open(spec);
	s = disk_new(sizeof(*s), "spy", &ops, &below, 1);
	disk_inherit(&s->disk);
	s->plain = plain;
	if (disk_publish(&s->disk, size, NULL))
		exit(99);
	return s;
}

/* Scattered or flat, short or of several pieces: the caller's memory stays, and what arrives below is something else. */
static void check_writes(struct disk *d, struct spy *spy, struct random *r, unsigned char *plain, uint64_t size)
{
	uint64_t length = (random_below(r, random_once_in(r, 4) ? size / 512 : 16) + 1) * 512;
	uint64_t offset = random_below(r, (size - length) / 512 + 1) * 512;
	unsigned char *after = malloc(length);
	struct scatter s;

	scatter_make(&s, r, length);
	scatter_put(&s, plain + offset);
	if (random_once_in(r, 2))
		CHECK_EQ(disk_write(d, &s.vec, offset, &io_plain), 0);
	else
		CHECK_EQ(disk_write(d, &VEC_FLAT(plain + offset, length), offset, &io_plain), 0);
	scatter_get(&s, after);
	CHECK(!memcmp(after, plain + offset, length));
	CHECK(scatter_guarded(&s));
	CHECK_EQ(spy->seen, 0);
	scatter_free(&s);
	free(after);
}

static void test_plaintext_never_gets_below(void)
{
	uint64_t size = 2 * MIB;
	unsigned char *plain = malloc(size), *copy = malloc(size);
	struct random r = random_stream(70);
	struct spy *spy = spy_create(plain, size);
	struct disk *d = trap_wrap(crypt_spec("xts-aes-256", any_key(64), "", "null:1M"), &spy->disk);

	random_fill(&r, plain, size);
	memcpy(copy, plain, size);
	for (unsigned i = 0; i < 200; i++)
		check_writes(d, spy, &r, plain, size);
	CHECK(spy->writes >= 200);
	CHECK_MEM(plain, copy, size);
	must_write(d, plain, size, 0);
	must_read(d, copy, size, 0);
	CHECK_MEM(plain, copy, size);
	CHECK_EQ(disk_write_zeroes(d, 0, size, &io_plain), 0);
	memset(plain, 0, size);
	CHECK_EQ(spy->seen, 0);
	close_disk(d);
	free(plain);
	free(copy);
}

/* A write from memory that cannot be written to: encryption in place would be the end of it. */
static void test_write_from_read_only_memory(void)
{
	static const unsigned char plain[8192] = {1, 2, 3};
	struct disk *d = must_open(crypt_spec("xts-aes-256", any_key(64), "", "mem:1M"));
	unsigned char back[8192];

	must_write(d, plain, 8192, 512);
	must_read(d, back, 8192, 512);
	CHECK_MEM(plain, back, 8192);
	close_disk(d);
}

/* A read that fails below leaves no ciphertext in the caller's memory. */
static void test_failed_read_shows_no_ciphertext(void)
{
	const struct trap_options options = {.size = MIB};
	struct trap *t = trap_create(&options);
	struct disk *d = trap_wrap(crypt_spec("xts-aes-256", any_key(64), "", "null:1M"), &t->disk);
	unsigned char *back = calloc(1, 512 * KIB), *zeroes = calloc(1, 512 * KIB);

	memset(t->content, 0xee, MIB);
	trap_fail(t, 1u << TRAP_READ, 1, -ENODATA);
	CHECK_EQ(disk_read(d, &VEC_FLAT(back, 512 * KIB), 0, &io_plain), -ENODATA);
	CHECK_MEM(back, zeroes, 512 * KIB);
	trap_fail(t, 1u << TRAP_READ, 2, -ENODATA); /* the second piece */
	CHECK_EQ(disk_read(d, &VEC_FLAT(back, 512 * KIB), 0, &io_plain), -ENODATA);
	CHECK(memcmp(back, zeroes, 256 * KIB));
	CHECK_MEM(back + 256 * KIB, zeroes, 256 * KIB);
	close_disk(d);
	free(back);
	free(zeroes);
}

/* ------------------------------------------------------------------ holes */

static void test_holes_decrypt_to_noise(void)
{
	struct disk *d = must_open(crypt_spec("xts-aes-256", any_key(64), "", "mem:1M"));
	unsigned char block[4096];
	CLEANUP_EXTENTS struct extents e;

	must_read(d, block, 4096, 8192);
	CHECK(!memory_is_zero(block, 512) && !memory_is_zero(block + 512, 512));
	extents_init(&e, 0, MIB, SIZE_MAX);
	CHECK_EQ(disk_extents(d, &e, &io_plain), 0);
	CHECK_EQ(e.count, 1);
	CHECK_EQ(e.list[0].flags, EXTENT_DATA);
	CHECK_EQ(disk_info(d)->discard, DISK_DISCARD_UNSPECIFIED);
	CHECK(!(disk_info(d)->flags & DISK_FAST_ZERO));
	CHECK_EQ(disk_write_zeroes(d, 0, MIB, &(const struct io){.flags = IO_FAST_ONLY}), -EOPNOTSUPP);
	CHECK_EQ(disk_write_zeroes(d, 0, MIB, &(const struct io){.flags = IO_MAY_UNMAP}), 0);
	must_read(d, block, 4096, 8192);
	CHECK(memory_is_zero(block, 4096));
	must_read(disk_child(d, 0), block, 4096, 8192);
	CHECK(!memory_is_zero(block, 512));
	close_disk(d);
}

static void test_holes_are_zero_when_asked(void)
{
	struct disk *d = must_open(crypt_spec("xts-aes-256", any_key(64), ";holes=zero", "mem:1M"));
	unsigned char block[4096], data[512] = {1};
	CLEANUP_EXTENTS struct extents e;

	must_read(d, block, 4096, 8192);
	CHECK(memory_is_zero(block, 4096));
	must_write(d, data, 512, 8192 + 512);
	must_read(d, block, 4096, 8192);
	CHECK(memory_is_zero(block, 512) && memory_is_zero(block + 1024, 3072));
	CHECK_MEM(block + 512, data, 512);
	extents_init(&e, 0, MIB, SIZE_MAX);
	CHECK_EQ(disk_extents(d, &e, &io_plain), 0);
	CHECK_EQ(e.count, 3);
	CHECK(e.list[0].flags & EXTENT_ZERO);
	CHECK_EQ(e.list[1].flags, EXTENT_DATA);
	CHECK_EQ(disk_info(d)->discard, DISK_DISCARD_ZEROES);
	CHECK_EQ(disk_write_zeroes(d, 0, MIB, &(const struct io){.flags = IO_FAST_ONLY | IO_MAY_UNMAP}), 0);
	must_read(d, block, 4096, 8192);
	CHECK(memory_is_zero(block, 4096));
	memset(data, 0, sizeof(data)); /* zeroes that are written are data: they do not show below */
	must_write(d, data, 512, 0);
	must_read(disk_child(d, 0), block, 512, 0);
	CHECK(!memory_is_zero(block, 512));
	close_disk(d);
}

/* Units of 4 KiB, `offset` bytes from the beginning of a disk with smaller blocks. */
static struct disk *large_units(struct disk *below, uint64_t offset)
{
	const struct encrypted_content content = {.offset = offset,
						  .length = UINT64_MAX,
						  .units = {.unit_bytes = 4096, .tweak_bytes = 512},
						  .zero_holes = true};
	struct encrypted *e = encrypted_new(sizeof(*e), "large", below, NULL);
	CLEANUP_ERROR struct error err = {0};
	struct secret key = {0};
	struct disk *d;

	secret_make(&key, 64);
	key.size = from_hex(key_256, key.bytes);
	if (encrypted_publish(e, &content, &key, &d, &err)) {
		printf("Bail out! %s\n", error_text(&err));
		exit(99);
	}
	return d;
}

/* Each run agrees with what is read; all runs are whole blocks, and cover the range or are as many as were asked for. */
static void check_runs(struct disk *d, uint64_t offset, size_t max)
{
	CLEANUP_EXTENTS struct extents e;
	static unsigned char back[64 * KIB];

	extents_init(&e, offset, disk_size(d) - offset, max);
	CHECK_EQ(disk_extents(d, &e, &io_plain), 0);
	CHECK(e.count == max || extents_next(&e) == disk_size(d));
	for (size_t i = 0; i < e.count; i++) {
		CHECK_EQ(e.list[i].length % 4096, 0);
		must_read(d, back, e.list[i].length, e.list[i].offset);
		CHECK(!(e.list[i].flags & EXTENT_ZERO) || memory_is_zero(back, e.list[i].length));
	}
}

/* Blocks below are smaller: a block is zero only if all of them are. */
static void test_extents_of_larger_blocks(void)
{
	struct random r = random_stream(71);
	char data[512] = {1};

	for (unsigned round = 0; round < 200; round++) {
		struct disk *d = large_units(must_open("mem:65024"), 1024); /* and a part of a block at the end */
		CHECK_EQ(disk_size(d), 15 * 4096);
		CHECK_EQ(disk_info(d)->block_size, 4096);
		for (unsigned i = 0; i < 10; i++) {
			uint64_t at = random_below(&r, 127) * 512;
			if (random_once_in(&r, 3))
				CHECK_EQ(disk_write_zeroes(disk_child(d, 0), at, 512, &io_plain), 0);
			else
				must_write(disk_child(d, 0), data, 512, at);
		}
		for (size_t max = 1; max < 12; max += 3)
			check_runs(d, random_below(&r, 15) * 4096, max);
		check_runs(d, 0, SIZE_MAX);
		close_disk(d);
	}
}

/* A granule of the disk is one or more of those below, in their places. */
static void test_granules_of_larger_blocks(void)
{
	static const struct {
		uint32_t granularity, alignment, offset, expected, expected_alignment;
		enum disk_discard discard;
	} cases[] = {
		{512, 0, 1024, 4096, 0, DISK_DISCARD_ZEROES},	  {4096, 0, 8192, 4096, 0, DISK_DISCARD_ZEROES},
		{4096, 0, 1024, 4096, 0, DISK_DISCARD_IGNORED},	  {16384, 0, 4096, 16384, 12288, DISK_DISCARD_ZEROES},
		{16384, 512, 4096, 4096, 0, DISK_DISCARD_IGNORED}, {2048, 0, 0, 4096, 0, DISK_DISCARD_ZEROES},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const struct trap_options options = {.discard = DISK_DISCARD_ZEROES};
		struct trap *t = trap_create(&options);
		struct disk *d;
		t->disk.info.discard_granularity = cases[i].granularity;
		t->disk.info.discard_alignment = cases[i].alignment;
		d = large_units(&t->disk, cases[i].offset);
		CHECK_EQ(disk_info(d)->discard_granularity, cases[i].expected);
		CHECK_EQ(disk_info(d)->discard_alignment, cases[i].expected_alignment);
		CHECK_EQ(disk_info(d)->discard, cases[i].discard);
		close_disk(d);
	}
}

static void test_promise_of_discard(void)
{
	for (enum disk_discard promise = DISK_DISCARD_IGNORED; promise <= DISK_DISCARD_ZEROES; promise++) {
		const struct trap_options options = {.discard = promise};
		struct disk *d = trap_wrap(crypt_spec("xts-aes-256", any_key(64), "", "null:1M"), &trap_create(&options)->disk);
		struct disk *z = trap_wrap(crypt_spec("xts-aes-256", any_key(64), ";holes=zero", "null:1M"), &trap_create(&options)->disk);
		CHECK_EQ(disk_info(d)->discard, promise == DISK_DISCARD_ZEROES ? DISK_DISCARD_UNSPECIFIED : promise);
		CHECK_EQ(disk_info(z)->discard, promise);
		close_disk(d);
		close_disk(z);
	}
}

/* ------------------------------------------------------------------ growing */

/* What is added reads as zeroes, and is not seen before it does. */
static void test_growing(void)
{
	static const char *const options[] = {"", ";holes=zero"};
	unsigned char *back = malloc(3 * MIB);

	for (size_t i = 0; i < 2; i++) {
		struct disk *d = must_open(crypt_spec("xts-aes-256", any_key(64), options[i], "mem:64K"));
		CHECK_EQ(disk_resize(d, 3 * MIB, &io_plain), 0);
		CHECK_EQ(disk_size(d), 3 * MIB);
		must_read(d, back, 3 * MIB, 0);
		CHECK_EQ(memory_is_zero(back, 64 * KIB), i == 1);
		CHECK(memory_is_zero(back + 64 * KIB, 3 * MIB - 64 * KIB));
		CHECK_EQ(disk_resize(d, 32 * KIB, &io_plain), 0);
		CHECK_EQ(disk_size(d), 32 * KIB);
		CHECK_EQ(disk_resize(d, 33 * KIB, &io_plain), 0);
		must_read(d, back, KIB, 32 * KIB);
		CHECK(memory_is_zero(back, KIB));
		close_disk(d);
	}
	free(back);
}

/* What is being zeroed cannot be read or written yet. */
static void test_growth_is_hidden_until_it_is_zero(void)
{
	struct spy *spy = spy_create(NULL, 64 * KIB);
	struct disk *d = trap_wrap(crypt_spec("xts-aes-256", any_key(64), "", "null:1M"), &spy->disk);

	spy->above = d;
	CHECK_EQ(disk_resize(d, 2 * MIB, &io_plain), 0);
	CHECK(spy->writes > 1);
	CHECK_EQ(spy->size_above, 64 * KIB);
	CHECK_EQ(disk_size(d), 2 * MIB);
	close_disk(d);
}

/* Zeroing what was added fails: the disk has its old size, also below. */
static void test_growing_that_fails(void)
{
	const struct trap_options options = {.size = 64 * KIB, .capacity = 4 * MIB, .flags = DISK_RESIZABLE};
	struct trap *t = trap_create(&options);
	struct disk *d = trap_wrap(crypt_spec("xts-aes-256", any_key(64), "", "null:64K"), &t->disk);
	struct failure failure = {0};
	const struct io io = {.failure = &failure};

	trap_fail(t, 1u << TRAP_WRITE, 3, -ENOSPC);
	CHECK_EQ(disk_resize(d, 2 * MIB, &io), -ENOSPC);
	CHECK_STR(failure.text, "trap: sprung");
	CHECK_EQ(disk_size(d), 64 * KIB);
	CHECK_EQ(disk_size(&t->disk), 64 * KIB);
	CHECK_EQ(disk_resize(d, 2 * MIB, &io_plain), 0);
	CHECK_EQ(disk_size(d), 2 * MIB);
	close_disk(d);
}

/* The disk below grows by itself. */
static void test_size_below_changes(void)
{
	struct disk *d = must_open(crypt_spec("xts-aes-256", any_key(64), "", "mem:64K"));

	CHECK_EQ(disk_resize(disk_child(d, 0), MIB, &io_plain), 0);
	CHECK_EQ(disk_size(d), MIB);
	close_disk(d);
}

/* ------------------------------------------------------------------ many at once */

#define THREADS 6
#define LONG (64 * KIB)

struct hammer {
	pthread_t thread;
	struct disk *disk;
	unsigned number;
	bool good;
};

/* Each has blocks of its own. Requests are long, so that threads are stopped in the midst of one. */
static void *hammer(void *argument)
{
	struct hammer *h = argument;
	unsigned char *data = malloc(LONG), *back = malloc(LONG);

	h->good = true;
	for (unsigned i = 0; i < 200; i++) {
		uint64_t at = (uint64_t)(i % 40 * THREADS + h->number) * LONG;
		memset(data, (int)(i + h->number), LONG);
		h->good &= !disk_write(h->disk, &VEC_FLAT(data, LONG), at, &io_plain);
		h->good &= !disk_read(h->disk, &VEC_FLAT(back, LONG), at, &io_plain);
		h->good &= !memcmp(data, back, LONG);
	}
	free(data);
	free(back);
	return NULL;
}

static void test_many_threads(void)
{
	struct disk *d = must_open(crypt_spec("xts-aes-256", any_key(64), "", "mem:16M"));
	struct hammer h[THREADS];

	for (unsigned i = 0; i < THREADS; i++) {
		h[i] = (struct hammer){.disk = d, .number = i};
		pthread_create(&h[i].thread, NULL, hammer, &h[i]);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(h[i].thread, NULL);
		CHECK(h[i].good);
	}
	close_disk(d);
}

/* More buffers than are kept. */
static void test_staging(void)
{
	struct staging s = {0};
	void *held[20];

	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 20; i++) {
			held[i] = staging_take(&s);
			CHECK(held[i] && (uintptr_t)held[i] % 4096 == 0);
			memset(held[i], (int)i, 4096);
			for (unsigned k = 0; k < i; k++)
				CHECK(held[k] != held[i]);
		}
		for (unsigned i = 0; i < 20; i++)
			staging_give(&s, held[i]);
	}
	staging_give(&s, NULL);
	staging_drop(&s);
}

/* As the library does it by itself, whichever way the tweak is set. */
static void check_like_the_library(const struct cipher *c, enum cipher_direction direction)
{
	unsigned char key[64], tweak[CIPHER_TWEAK], from[4096], direct[4096], wanted[4096];
	struct random r = random_stream(7);
	EVP_CIPHER_CTX *library = EVP_CIPHER_CTX_new();
	void *context;
	int done;

	random_fill(&r, key, sizeof(key));
	random_fill(&r, from, sizeof(from));
	context = cipher_new_context(c, direction, key, sizeof(key));
	for (unsigned i = 0; i < 8; i++) {
		random_fill(&r, tweak, sizeof(tweak));
		CHECK(cipher_run(c, context, direction, tweak, from, direct, sizeof(from)));
		CHECK_EQ(EVP_CipherInit_ex2(library, c->fetched, key, tweak, direction, NULL), 1);
		CHECK_EQ(EVP_CipherUpdate(library, wanted, &done, from, sizeof(from)), 1);
		CHECK_MEM(direct, wanted, sizeof(wanted));
	}
	cipher_free_context(c, context);
	EVP_CIPHER_CTX_free(library);
}

static void test_cipher_of_the_provider(void)
{
	struct cipher c = {0};

	CHECK_EQ(cipher_find(&c, "AES-256-XTS", NULL), 0);
	CHECK(c.provider != c.fetched);
	check_like_the_library(&c, CIPHER_ENCRYPT);
	check_like_the_library(&c, CIPHER_DECRYPT);
	cipher_use_library(&c);
	check_like_the_library(&c, CIPHER_ENCRYPT);
	check_like_the_library(&c, CIPHER_DECRYPT);
	cipher_drop(&c);
	CHECK(!c.fetched);
}

/* No such name; no tweak; one of another length. */
static void test_other_ciphers_are_refused(void)
{
	static const char *const names[] = {"AES-257-XTS", "AES-256-ECB", "AES-256-GCM"};
	CLEANUP_ERROR struct error err = {0};
	struct cipher c;

	for (unsigned i = 0; i < 3; i++) {
		error_clear(&err);
		CHECK_EQ(cipher_find(&c, names[i], &err), -EOPNOTSUPP);
		CHECK(strstr(error_text(&err), names[i]));
		CHECK(!c.fetched);
	}
}

int main(void)
{
	TAP_RUN(test_cipher_of_the_provider);
	TAP_RUN(test_other_ciphers_are_refused);
	TAP_RUN(test_vectors_of_the_standard);
	TAP_RUN(test_tweaks);
	TAP_RUN(test_unit_is_the_block);
	TAP_RUN(test_key_in_hexadecimal);
	TAP_RUN(test_keys_of_other_lengths_are_refused);
	TAP_RUN(test_likely_mistakes_are_named);
	TAP_RUN(test_equal_halves_are_refused);
	TAP_RUN(test_errors_do_not_tell_keys);
	TAP_RUN(test_key_from_a_descriptor);
	TAP_RUN(test_key_from_the_keyring);
	TAP_RUN(test_warning_of_a_readable_key);
	TAP_RUN_IF(LOCKS_COUNT, test_key_is_locked_in_memory);
	TAP_RUN(test_plaintext_never_gets_below);
	TAP_RUN(test_write_from_read_only_memory);
	TAP_RUN(test_failed_read_shows_no_ciphertext);
	TAP_RUN(test_holes_decrypt_to_noise);
	TAP_RUN(test_holes_are_zero_when_asked);
	TAP_RUN(test_extents_of_larger_blocks);
	TAP_RUN(test_granules_of_larger_blocks);
	TAP_RUN(test_promise_of_discard);
	TAP_RUN(test_growing);
	TAP_RUN(test_growth_is_hidden_until_it_is_zero);
	TAP_RUN(test_growing_that_fails);
	TAP_RUN(test_size_below_changes);
	TAP_RUN(test_many_threads);
	TAP_RUN(test_staging);
	return TAP_DONE();
}
