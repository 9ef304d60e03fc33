/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Guarded copies: a page that is gone is an error on either side, on threads and fibers; whoever else handles SIGBUS gets what
 * is his. Built twice: for this machine, and as on machines without code of their own (tests/test-safe-copy-portable).
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/aio.h"
#include "core/safe-copy.h"
#include "core/wait.h"
#include "tests/loops.h"
#include "tests/tap.h"

#define PAGE ((size_t)sysconf(_SC_PAGESIZE))

/* ------------------------------------------------------------------ memory of which the end is gone */

/* Two pages that are there and two that are not. */
struct half {
	int fd;
	char *memory;
	size_t good; /* bytes */
};

static struct half half_make(void)
{
	struct half h = {.good = 2 * PAGE};
	char path[600];

	snprintf(path, sizeof(path), "%s/half.XXXXXX", tmpdir());
	h.fd = mkstemp(path);
	unlink(path);
	if (h.fd < 0 || ftruncate(h.fd, (off_t)h.good))
		abort();
	h.memory = mmap(NULL, 2 * h.good, PROT_READ | PROT_WRITE, MAP_SHARED, h.fd, 0);
	if (h.memory == MAP_FAILED)
		abort();
	for (size_t i = 0; i < h.good; i++)
		h.memory[i] = (char)(1 + i % 251);
	return h;
}

static void half_free(struct half *h)
{
	munmap(h->memory, 2 * h->good);
	close(h->fd);
}

/* Writes a byte as anybody does who knows nothing of us. */
static void touch(char *p)
{
	*(volatile char *)p = 1;
}

/* ------------------------------------------------------------------ somebody else's handler */

static struct {
	_Atomic unsigned faults, sent, advisory;
	void *_Atomic last;
	_Atomic unsigned unmasked;   /* times its mask was not in force */
	_Atomic unsigned interrupts; /* of SIGUSR1 */
	const char *gone;            /* what its handler tries to copy */
} foreign;

static _Thread_local sigjmp_buf foreign_way_out;
static _Thread_local volatile sig_atomic_t foreign_has_way_out;

static void on_foreign(int number, siginfo_t *info, void *context)
{
	sigset_t now;

	(void)context;
	pthread_sigmask(SIG_SETMASK, NULL, &now);
	if (!sigismember(&now, number) || !sigismember(&now, SIGUSR1))
		atomic_fetch_add(&foreign.unmasked, 1);
	if (info->si_code == BUS_MCEERR_AO) {
		atomic_fetch_add(&foreign.advisory, 1);
	} else if (info->si_code <= 0) {
		atomic_fetch_add(&foreign.sent, 1);
	} else {
		atomic_fetch_add(&foreign.faults, 1);
		atomic_store(&foreign.last, info->si_addr);
		if (!foreign_has_way_out)
			_exit(77);
		foreign_has_way_out = 0;
		siglongjmp(foreign_way_out, 1);
	}
}

static void install_foreign(void)
{
	struct sigaction action = {.sa_sigaction = on_foreign, .sa_flags = SA_SIGINFO};

	sigemptyset(&action.sa_mask);
	sigaddset(&action.sa_mask, SIGUSR1); /* whose handler could not copy on top of this one */
	sigaction(SIGBUS, &action, NULL);
}

/* True when the foreign handler was told of the fault at `p`. */
static bool foreign_gets_fault(char *p)
{
	unsigned before = atomic_load(&foreign.faults);

	atomic_store(&foreign.last, NULL);
	if (!sigsetjmp(foreign_way_out, 1)) {
		foreign_has_way_out = 1;
		touch(p);
		foreign_has_way_out = 0;
	}
	return atomic_load(&foreign.faults) == before + 1 && atomic_load(&foreign.last) == (void *)p;
}

/* ------------------------------------------------------------------ with nobody's handler: in processes of their own */

/* What becomes of a child that does this. */
static int status_of(void (*what)(void))
{
	int status = -1;
	pid_t pid = fork();

	if (!pid) {
		setrlimit(RLIMIT_CORE, &(struct rlimit){0});
		signal(SIGBUS, SIG_DFL);
		what();
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return status;
}

static void use_us(void)
{
	struct half h = half_make();
	char byte;

	if (safe_copy(&byte, h.memory, 1) || safe_copy(&byte, h.memory + h.good, 1) != -EFAULT)
		_exit(1);
}

static void fault_after_use(void)
{
	struct half h = half_make();

	use_us();
	touch(h.memory + h.good);
}

static void kill_after_use(void)
{
	use_us();
	kill(getpid(), SIGBUS);
}

static void ignored_kill(void)
{
	signal(SIGBUS, SIG_IGN);
	kill_after_use();
}

static void ignored_fault(void)
{
	signal(SIGBUS, SIG_IGN);
	fault_after_use();
}

static void once_only(int number)
{
	(void)number;
	foreign.sent++;
}

static void twice_with_once_only(void)
{
	struct sigaction action = {.sa_handler = once_only, .sa_flags = SA_RESETHAND};

	sigaction(SIGBUS, &action, NULL);
	kill_after_use();
	if (foreign.sent != 1)
		_exit(2);
	kill(getpid(), SIGBUS);
}

/* Under valgrind, which does not keep all registers true, it may fault elsewhere the second time. */
static bool died_of_it(int status)
{
	return WIFSIGNALED(status) && (WTERMSIG(status) == SIGBUS || checkers_in_valgrind());
}

static void test_without_handler(void)
{
	CHECK_EQ(status_of(use_us), 0);
	CHECK(died_of_it(status_of(fault_after_use)));
	CHECK(died_of_it(status_of(kill_after_use)));
	CHECK_EQ(status_of(ignored_kill), 0);
	CHECK(died_of_it(status_of(ignored_fault)));
	CHECK(died_of_it(status_of(twice_with_once_only)));
}

/* ------------------------------------------------------------------ what they do */

static void check_copy(size_t to, size_t from, size_t size)
{
	static char source[9000], target[9000];

	for (size_t i = 0; i < sizeof(source); i++)
		source[i] = (char)(i * 7 + 1);
	memset(target, 'x', sizeof(target));
	CHECK_EQ(safe_copy(target + 64 + to, source + from, size), 0);
	CHECK(!memcmp(target + 64 + to, source + from, size));
	CHECK(target[63 + to] == 'x' && target[64 + to + size] == 'x');
}

static void test_copies(void)
{
	for (size_t size = 0; size < 300; size++)
		check_copy(size % 17, size % 5, size);
	for (size_t to = 0; to < 70; to += 7) {
		check_copy(to, 0, 4096);
		check_copy(to, 3, 4095);
		check_copy(to, 1, 8191);
	}
	check_copy(0, 0, 512);
	check_copy(0, 1, 511);
}

static void test_fills(void)
{
	char memory[700];

	for (size_t size = 0; size < 600; size += size < 140 ? 1 : 61) {
		memset(memory, 'x', sizeof(memory));
		CHECK_EQ(safe_fill(memory + 1 + size % 16, (unsigned char)(0xa0 + size % 7), size), 0);
		CHECK(memory[size % 16] == 'x' && memory[1 + size % 16 + size] == 'x');
		for (size_t i = 0; i < size; i++)
			CHECK_EQ((unsigned char)memory[1 + size % 16 + i], 0xa0 + size % 7);
	}
}

static void test_zero_is_found(void)
{
	char memory[400] = {0};

	CHECK_EQ(safe_is_zero(memory, 0), 1);
	for (size_t size = 1; size < 300; size++) {
		CHECK_EQ(safe_is_zero(memory + 3, size), 1);
		memory[3 + size] = 1;
		CHECK_EQ(safe_is_zero(memory + 3, size), 1);
		CHECK_EQ(safe_is_zero(memory + 3, size + 1), 0);
		memory[3 + size] = 0;
		memory[3 + size / 2] = (char)0x80;
		CHECK_EQ(safe_is_zero(memory + 3, size), 0);
		memory[3 + size / 2] = 0;
	}
}

/* ------------------------------------------------------------------ what is gone */

static void check_gone(struct half *h)
{
	static const size_t sizes[] = {1, 2, 15, 16, 63, 64, 65, 512, 600, 4096};
	char buffer[4096 + 64];

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		size_t n = sizes[i];
		char *edge = h->memory + h->good;
		CHECK_EQ(safe_copy(buffer, edge - n, n), 0);
		CHECK(!memcmp(buffer, edge - n, n));
		CHECK_EQ(safe_copy(buffer, edge - n + 1, n), -EFAULT);
		CHECK_EQ(safe_copy(buffer, edge, n), -EFAULT);
		CHECK_EQ(safe_copy(edge - n, buffer, n), 0);
		CHECK_EQ(safe_copy(edge - n + 1, buffer, n), -EFAULT);
		CHECK_EQ(safe_copy(edge, buffer, n), -EFAULT);
		CHECK_EQ(safe_copy(edge, edge + PAGE, n), -EFAULT);
		CHECK_EQ(safe_fill(edge - n, 0, n), 0);
		CHECK_EQ(safe_fill(edge - n + 1, 0, n), -EFAULT);
		CHECK_EQ(safe_fill(edge, 0, n), -EFAULT);
		CHECK_EQ(safe_is_zero(edge - n, n), 1);
		CHECK_EQ(safe_is_zero(edge - n, n + 1), -EFAULT);
		CHECK_EQ(safe_is_zero(edge, n), -EFAULT);
		edge[-1] = 1; /* seen before what is gone, or not */
		CHECK(safe_is_zero(edge - 1, n + 1) <= 0);
	}
}

/* What was copied before the fault is there. */
static void test_gone_on_either_side(void)
{
	struct half h = half_make();
	unsigned faults = atomic_load(&foreign.faults);

	check_gone(&h);
	CHECK_EQ(atomic_load(&foreign.faults), faults);
	half_free(&h);
}

static void test_words(void)
{
	struct half h = half_make();
	uint64_t *here = (uint64_t *)h.memory, *gone = (uint64_t *)(h.memory + h.good);
	uint32_t value = 7;

	*here = UINT64_C(0x1122334455667788);
	CHECK_EQ(safe_load32((uint32_t *)here, &value), 0);
	CHECK_EQ(value, 0x55667788);
	CHECK_EQ(safe_store32((uint32_t *)here, 5), 0);
	CHECK_EQ(*here, 0x1122334400000005);
	CHECK_EQ(safe_store64(here, UINT64_MAX - 1), 0);
	CHECK_EQ(*here, -2);
	CHECK_EQ(safe_load32((uint32_t *)gone, &value), -EFAULT);
	CHECK_EQ(value, 0x55667788);
	CHECK_EQ(safe_store32((uint32_t *)gone, 5), -EFAULT);
	CHECK_EQ(safe_store64(gone, 5), -EFAULT);
	half_free(&h);
}

static void test_comes_back(void)
{
	struct half h = half_make();
	char byte;

	CHECK_EQ(ftruncate(h.fd, 0), 0);
	CHECK_EQ(safe_copy(&byte, h.memory, 1), -EFAULT);
	CHECK_EQ(ftruncate(h.fd, (off_t)(2 * h.good)), 0);
	CHECK_EQ(safe_copy(&byte, h.memory, 1), 0);
	CHECK_EQ(safe_fill(h.memory, 1, 2 * h.good), 0);
	half_free(&h);
}

/* A page that is not mapped is a bug as ever. */
static void read_nothing(void)
{
	char byte;
	char *p = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	signal(SIGSEGV, SIG_DFL);
	safe_copy(&byte, p, 1);
}

static void test_not_mapped_is_a_bug(void)
{
	int status = status_of(read_nothing);

	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

/* ------------------------------------------------------------------ beside somebody else */

static void test_foreign_faults_are_foreign(void)
{
	struct half h = half_make();
	char byte;

	for (unsigned i = 0; i < 5; i++) {
		CHECK(foreign_gets_fault(h.memory + h.good + i));
		CHECK_EQ(safe_copy(&byte, h.memory + h.good, 1), -EFAULT);
	}
	CHECK_EQ(atomic_load(&foreign.unmasked), 0);
	half_free(&h);
}

/* Sends the signal that tells of memory which failed somewhere. */
static int send_advice(pid_t thread)
{
	siginfo_t info = {.si_signo = SIGBUS, .si_code = BUS_MCEERR_AO};

	return (int)syscall(SYS_rt_tgsigqueueinfo, getpid(), thread, SIGBUS, &info);
}

static void test_advice_about_failed_memory(void)
{
	unsigned before = atomic_load(&foreign.advisory);

	if (checkers_in_valgrind())
		SKIP("valgrind takes the signal for a fault of its own");
	if (send_advice(gettid()))
		SKIP("such a signal cannot be sent here");
	CHECK_EQ(atomic_load(&foreign.advisory), before + 1);
}

struct shower {
	pthread_t target;
	_Atomic bool stop;
	unsigned sent;
};

static void *shower_main(void *argument)
{
	struct shower *s = argument;

	for (unsigned i = 0; !atomic_load(&s->stop); i++) {
		int number = i % 3 == 0 ? SIGUSR1 : i % 3 == 1 ? SIGUSR2 : SIGBUS;
		if (!pthread_kill(s->target, number) && number == SIGBUS)
			s->sent++;
		wait_sleep(10000); /* one at a time, so that each meets a copy and not the handler of another */
	}
	return NULL;
}

static void on_interrupt(int number)
{
	char byte;

	(void)number;
	if (safe_copy(&byte, foreign.gone, 1) == -EFAULT)
		atomic_fetch_add(&foreign.interrupts, 1);
}

/* It comes when this handler, which blocks it, is left: where the copy was interrupted. */
static void on_second_interrupt(int number)
{
	(void)number;
	if (!checkers_in_valgrind())
		send_advice(gettid());
}

static void copy_under_fire(const char *gone)
{
	static char a[1 << 16], b[1 << 16];

	for (unsigned i = 0; i < rounds(20000); i++) {
		size_t at = i % 100, n = sizeof(a) - 100;
		memset(a, (int)i, sizeof(a));
		CHECK_EQ(safe_copy(b + at, a, n), 0);
		CHECK(b[at] == (char)i && b[at + n - 1] == (char)i);
		CHECK_EQ(safe_copy(b, gone, 1), -EFAULT);
	}
}

/*
 * TSan blocks SIGBUS while handlers of other signals run. Where the copy jumps out of a handler, ASan takes a lock in siglongjmp(), while
 * handlers interrupt each other, and Valgrind finds no room for a handler that interrupts another one.
 */
#ifdef CHECKERS_TSAN
#define HANDLERS_NEST false
#elif defined(CHECKERS_ASAN) && defined(SAFE_COPY_PORTABLE)
#define HANDLERS_NEST false
#elif defined(SAFE_COPY_PORTABLE)
#define HANDLERS_NEST (!checkers_in_valgrind())
#else
#define HANDLERS_NEST true
#endif

/* Signals that were sent arrive in the middle of copies, whose fault they are not; one's handler copies itself, and faults. */
static void test_sent_signals_are_foreign(void)
{
	struct shower s = {.target = pthread_self()};
	struct sigaction action = {.sa_handler = on_interrupt}, second = {.sa_handler = on_second_interrupt};
	struct half h = half_make();
	unsigned before = atomic_load(&foreign.sent);
	pthread_t thread;

	foreign.gone = h.memory + h.good + PAGE;
	sigemptyset(&action.sa_mask);
	sigaction(SIGUSR1, &action, NULL);
	sigemptyset(&second.sa_mask);
	sigaddset(&second.sa_mask, SIGBUS);
	sigaddset(&second.sa_mask, SIGUSR1);
	sigaction(SIGUSR2, &second, NULL);
	threads_start(&thread, 1, shower_main, &s);
	copy_under_fire(h.memory + h.good);
	atomic_store(&s.stop, true);
	threads_join(&thread, 1);
	signal(SIGUSR1, SIG_DFL);
	signal(SIGUSR2, SIG_DFL);
	CHECK(atomic_load(&foreign.interrupts) > 0);
	CHECK_EQ(atomic_load(&foreign.unmasked), 0);
	CHECK(atomic_load(&foreign.sent) > before);
	CHECK(atomic_load(&foreign.sent) - before <= s.sent);
	half_free(&h);
}

/* ------------------------------------------------------------------ many at once */

static void copy_and_fault(void *argument)
{
	struct half h = half_make();

	(void)argument;
	for (unsigned i = 0; i < rounds(200); i++) {
		check_gone(&h);
		wait_yield();
	}
	half_free(&h);
}

static void *copy_and_fault_thread(void *argument)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL); /* a fault that is blocked would end us */
	copy_and_fault(argument);
	return NULL;
}

static void *be_foreign_thread(void *argument)
{
	struct half h = half_make();

	(void)argument;
	for (unsigned i = 0; i < rounds(1000); i++) {
		atomic_store(&foreign.last, NULL);
		if (!sigsetjmp(foreign_way_out, 1)) {
			foreign_has_way_out = 1;
			touch(h.memory + h.good);
			CHECK(!"it faults");
		}
	}
	half_free(&h);
	return NULL;
}

static void test_many_threads(void)
{
	pthread_t threads[6], other;
	unsigned before = atomic_load(&foreign.faults);

	threads_start(&other, 1, be_foreign_thread, NULL);
	threads_start(threads, 6, copy_and_fault_thread, NULL);
	threads_join(threads, 6);
	threads_join(&other, 1);
	CHECK_EQ(atomic_load(&foreign.faults) - before, rounds(1000));
}

static int copy_and_fault_offloaded(void *argument)
{
	copy_and_fault(argument);
	return 7;
}

static void offload_it(void *argument)
{
	CHECK_EQ(aio_offload(copy_and_fault_offloaded, argument), 7);
	wait_group_done(argument);
}

static void fault_in_fiber(void *argument)
{
	copy_and_fault(NULL);
	wait_group_done(argument);
}

/* Threads of loops and of their offloading block all other signals. */
static void test_fibers(void)
{
	struct wait_group ended = {0};
	struct loop *l;

	REQUIRE(loop_start(NULL, &l, NULL) == 0);
	wait_group_add(&ended, 6);
	for (unsigned i = 0; i < 3; i++) {
		CHECK_EQ(loop_spawn(l, fault_in_fiber, &ended), 0);
		CHECK_EQ(loop_spawn(l, offload_it, &ended), 0);
	}
	wait_group_wait(&ended);
	loop_finish(l);
}

/* ------------------------------------------------------------------ a second copy of us, as in a plugin, that comes and goes */

typedef int copy_function(void *to, const void *from, size_t size);

static void *handler_now(void)
{
	struct sigaction now;

	sigaction(SIGBUS, NULL, &now);
	return (void *)now.sa_sigaction;
}

static void use_module(struct half *h)
{
	const char *folder = getenv("top_builddir");
	char path[1000], byte;
	copy_function *copy;
	void *module;

	snprintf(path, sizeof(path), "%s/tests/safe-copy-module.so", folder ? folder : ".");
	module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!CHECK(module != NULL)) {
		tap_diag("%s", dlerror());
		return;
	}
	copy = (copy_function *)dlsym(module, "module_safe_copy");
	if (CHECK(copy != NULL)) {
		CHECK_EQ(copy(&byte, h->memory + h->good, 1), -EFAULT);
		CHECK_EQ(safe_copy(&byte, h->memory + h->good, 1), -EFAULT); /* the module's handler hands on */
		CHECK(foreign_gets_fault(h->memory + h->good));
	}
	CHECK_EQ(dlclose(module), 0);
}

static void test_a_second_copy_comes_and_goes(void)
{
	struct half h = half_make();
	void *before = handler_now();
	char byte;

	for (unsigned i = 0; i < 3; i++) {
		use_module(&h);
		CHECK(handler_now() == before);
		CHECK_EQ(safe_copy(&byte, h.memory + h.good, 1), -EFAULT);
		CHECK(foreign_gets_fault(h.memory + h.good));
	}
	half_free(&h);
}

int main(void)
{
	tmpdir(); /* ours, not one for each child */
	TAP_RUN(test_without_handler); /* first: nothing is installed yet */
	install_foreign();
	TAP_RUN(test_copies);
	TAP_RUN(test_fills);
	TAP_RUN(test_zero_is_found);
	TAP_RUN(test_gone_on_either_side);
	TAP_RUN(test_words);
	TAP_RUN(test_comes_back);
	TAP_RUN(test_not_mapped_is_a_bug);
	TAP_RUN(test_foreign_faults_are_foreign);
	TAP_RUN(test_advice_about_failed_memory);
	TAP_RUN_IF(HANDLERS_NEST, test_sent_signals_are_foreign);
	TAP_RUN(test_many_threads);
	TAP_RUN(test_fibers);
	TAP_RUN(test_a_second_copy_comes_and_goes);
	return TAP_DONE();
}
