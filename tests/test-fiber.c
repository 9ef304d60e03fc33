/* SPDX-License-Identifier: BSD-3-Clause */
/* Fibers: they are spawned, run in order, keep their registers and stacks, and their memory is bounded. */
#include <signal.h>
#include <stdint.h>
#include <sys/wait.h>

#include "core/fiber.h"
#include "core/wait.h"
#include "tests/loops.h"

static const struct loop_mode *const mode = &mode_ring;

#if defined(CHECKERS_TSAN) || defined(CHECKERS_ASAN)
static const bool sanitized = true;
#else
static const bool sanitized = false;
#endif

/* ------------------------------------------------------------------ order */

struct log {
	char text[64];
	size_t length;
};

static struct log trail;

static void note(char c)
{
	if (trail.length < sizeof trail.text - 1)
		trail.text[trail.length++] = c;
	trail.text[trail.length] = 0;
}

static void note_entry(void *argument)
{
	note(*(char *)argument);
}

static void test_fibers_run_in_the_order_of_spawning(void)
{
	struct loop *l = mode_loop(mode);

	trail.length = 0;
	for (const char *c = "abcdef"; *c; c++)
		CHECK_EQ(loop_spawn(l, note_entry, (void *)c), 0);
	CHECK_EQ(loop_fibers(l), 6);
	loop_stop(l);
	loop_run(l);
	CHECK_STR(trail.text, "abcdef");
	CHECK_EQ(loop_fibers(l), 0);
	loop_destroy(l);
}

static void spawning_entry(void *argument)
{
	(void)argument;
	note('(');
	CHECK_EQ(loop_spawn(loop_current(), note_entry, (void *)"x"), 0);
	CHECK_EQ(loop_spawn(loop_current(), note_entry, (void *)"y"), 0);
	note(')');
}

/* A fiber that spawns goes on; the new ones come after those that were ready already. */
static void test_nested_spawn_goes_to_the_end(void)
{
	struct loop *l = mode_loop(mode);

	trail.length = 0;
	loop_spawn(l, spawning_entry, NULL);
	loop_spawn(l, note_entry, (void *)"b");
	loop_stop(l);
	loop_run(l);
	CHECK_STR(trail.text, "()bxy");
	loop_destroy(l);
}

static void yielding_entry(void *argument)
{
	for (int i = 0; i < 3; i++) {
		note(*(char *)argument);
		wait_yield();
	}
}

static void test_yield_takes_turns(void)
{
	struct loop *l = mode_loop(mode);

	trail.length = 0;
	for (const char *c = "abc"; *c; c++)
		loop_spawn(l, yielding_entry, (void *)c);
	loop_stop(l);
	loop_run(l);
	CHECK_STR(trail.text, "abcabcabc");
	loop_destroy(l);
}

/* ------------------------------------------------------------------ many */

static unsigned many_running, many_most;
static unsigned many_ended;

static void many_entry(void *argument)
{
	struct wait_group *gate = argument;

	if (++many_running > many_most)
		many_most = many_running;
	wait_group_wait(gate);
	many_running--;
	many_ended++;
}

static void many_root(void *argument)
{
	unsigned count = *(unsigned *)argument;
	struct wait_group gate = {0};

	wait_group_add(&gate, 1);
	for (unsigned i = 0; i < count; i++)
		CHECK_EQ(loop_spawn(loop_current(), many_entry, &gate), 0);
	while (many_running < count)
		wait_yield();
	CHECK_EQ(loop_fibers(loop_current()), count + 1);
	wait_group_done(&gate);
	while (many_running)
		wait_yield();
}

/* Thousands are alive at the same time. */
static void test_thousands_of_fibers(void)
{
	unsigned count = rounds(5000);

	many_running = many_most = many_ended = 0;
	run_fibers(mode, 1, many_root, &count);
	CHECK_EQ(many_most, count);
	CHECK_EQ(many_ended, count);
}

/* How many lines /proc/self/maps has. */
static size_t count_mappings(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	size_t lines = 0;
	int c;

	if (!f)
		return 0;
	while ((c = getc(f)) != EOF)
		lines += c == '\n';
	fclose(f);
	return lines;
}

/* After a crowd has left, the loop keeps the stacks of FIBER_POOL_KEEP and gives back the others. */
static void test_idle_stacks_are_given_back(void)
{
	unsigned count = 4 * FIBER_POOL_KEEP;
	size_t before = count_mappings(), after;
	struct loop *l;

	l = mode_loop(mode);
	many_running = 0;
	loop_spawn(l, many_root, &count);
	loop_stop(l);
	loop_run(l);
	after = count_mappings();
	CHECK(after < before + 2 * FIBER_POOL_KEEP + 64);
	if (!checkers_in_valgrind())
		CHECK(after >= before + FIBER_POOL_KEEP);
	loop_destroy(l);
	CHECK(count_mappings() < before + 32);
}

static unsigned crowd_left;

static void crowd_entry(void *argument)
{
	(void)argument;
	wait_sleep(1000);
	crowd_left--;
}

static size_t crowd_mappings[2];

/* The loop is not stopped, it only idles; somebody looks in now and then. */
static void idle_root(void *argument)
{
	(void)argument;
	crowd_left = 4 * FIBER_POOL_KEEP;
	for (unsigned i = crowd_left; i > 0; i--)
		loop_spawn(loop_current(), crowd_entry, NULL);
	while (crowd_left)
		wait_sleep(1000000);
	crowd_mappings[0] = count_mappings();
	wait_sleep(2500000000);
	crowd_mappings[1] = count_mappings();
}

static void test_an_idle_loop_gives_stacks_back(void)
{
	run_fibers(mode, 1, idle_root, NULL);
	CHECK(crowd_mappings[1] + 4 * FIBER_POOL_KEEP < crowd_mappings[0]);
}

/* ------------------------------------------------------------------ registers and stacks */

/*
 * Enough values that live across a switch to fill every register that a call keeps: the same sum, once with
 * a switch at every step, once without.
 */
#define MIX_VALUES(seed, between) \
	({ \
		uint64_t a = (seed), b = a ^ 1, c = a * 3, d = a * 5, e = a * 7, f = a * 11, g = a * 13; \
		double x = (double)(a >> 40), y = x / 3, z = x * x, u = x - y, v = x + z, w = y * u; \
		for (int i = 0; i < 50; i++) { \
			between; \
			a = a * 25 + b, b ^= c << 1, c += d, d -= e, e = e * 3 ^ f, f += g, g ^= a >> 3; \
			x += 1, y *= 0.5, z -= x, u += y, v *= 0.75, w += z; \
		} \
		(double)(a ^ b ^ c ^ d ^ e ^ f ^ g) + x + y + z + u + v + w; \
	})

static void registers_entry(void *argument)
{
	uint64_t seed = ++*(uint64_t *)argument * 0x9e3779b97f4a7c15;
	double with = MIX_VALUES(seed, wait_yield());
	double without = MIX_VALUES(seed, (void)0);

	CHECK(with == without);
}

static void test_registers_survive_switches(void)
{
	uint64_t seed = 1;

	run_fibers(mode, 16, registers_entry, &seed);
}

#if defined(__x86_64__)
static uint64_t kept_by_asm;

/* Fills the callee-saved registers by hand, yields, and looks. */
static void x86_entry(void *argument)
{
	uint64_t base = ++*(uint64_t *)argument << 32, bad;

	__asm__ volatile("pushq %%rbp\n"
			 "leaq -128(%%rsp), %%rsp\n"
			 "movq %%rsp, %%rbp\n"
			 "andq $-16, %%rsp\n"
			 "movq %[base], %%rbx\n"
			 "leaq 1(%%rbx), %%r12\n"
			 "leaq 2(%%rbx), %%r13\n"
			 "leaq 3(%%rbx), %%r14\n"
			 "leaq 4(%%rbx), %%r15\n"
			 "pushq %%rbx\n"
			 "pushq %%rbx\n"
			 "call wait_yield\n"
			 "popq %%rax\n"
			 "popq %%rax\n"
			 "xorq %%rax, %%rbx\n"
			 "leaq 1(%%rax), %%rcx\n"
			 "xorq %%rcx, %%r12\n"
			 "leaq 2(%%rax), %%rcx\n"
			 "xorq %%rcx, %%r13\n"
			 "leaq 3(%%rax), %%rcx\n"
			 "xorq %%rcx, %%r14\n"
			 "leaq 4(%%rax), %%rcx\n"
			 "xorq %%rcx, %%r15\n"
			 "orq %%r12, %%rbx\n"
			 "orq %%r13, %%rbx\n"
			 "orq %%r14, %%rbx\n"
			 "orq %%r15, %%rbx\n"
			 "movq %%rbx, %%rax\n"
			 "leaq 128(%%rbp), %%rsp\n"
			 "popq %%rbp\n"
			 : "=a"(bad)
			 : [base] "d"(base)
			 : "rbx", "rcx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
			   "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
			   "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
	kept_by_asm |= bad;
}

static void test_callee_saved_registers_of_x86_64(void)
{
	uint64_t seed = 0;

	kept_by_asm = 0;
	run_fibers(mode, 8, x86_entry, &seed);
	CHECK_EQ(kept_by_asm, 0);
}
#endif

/* Written to before a wait, read after it. */
static void deep_entry(void *argument)
{
	size_t size = *(size_t *)argument;
	volatile unsigned char memory[100 * 1024];

	for (size_t i = 0; i < sizeof memory; i += 64)
		memory[i] = (unsigned char)(i / 64 + size);
	wait_yield();
	for (size_t i = 0; i < sizeof memory; i += 64)
		if (!CHECK_EQ(memory[i], (unsigned char)(i / 64 + size)))
			return;
}

static void test_stack_holds_what_is_promised(void)
{
	size_t size = 3;

	run_fibers(mode, 8, deep_entry, &size);
}

/* ------------------------------------------------------------------ guard */

#if !defined(CHECKERS_ASAN) && !defined(CHECKERS_TSAN)
static char handler_stack[64 * 1024];

static void on_fault(int signal, siginfo_t *info, void *context)
{
	(void)signal, (void)context;
	/* memory that is there, but must not be touched */
	_exit(info->si_code == SEGV_ACCERR ? 42 : 43);
}

__attribute__((noinline)) static unsigned recurse(unsigned depth)
{
	volatile char frame[3000];

	frame[0] = (char)depth;
	return depth == UINT32_MAX ? 0 : recurse(depth + 1) + (unsigned)frame[0];
}

static volatile unsigned recursed;

static void recursing_entry(void *argument)
{
	(void)argument;
	recursed = recurse(0);
}

static void overflow_in_child(void)
{
	stack_t alternative = {.ss_sp = handler_stack, .ss_size = sizeof handler_stack};
	struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};

	sigaltstack(&alternative, NULL);
	sigaction(SIGSEGV, &action, NULL);
	run_fibers(mode, 2, recursing_entry, NULL);
	_exit(1);
}

/* A stack that is too deep is a fault at once, not a write to somebody else's memory. */
static void test_overflow_hits_the_guard(void)
{
	int status = 0;
	pid_t child;

	if (checkers_in_valgrind())
		SKIP("valgrind catches the signal");
	child = fork();
	if (child == 0)
		overflow_in_child();
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK(WIFEXITED(status));
	CHECK_EQ(WEXITSTATUS(status), 42);
}
#endif

int main(void)
{
	TAP_RUN(test_fibers_run_in_the_order_of_spawning);
	TAP_RUN(test_nested_spawn_goes_to_the_end);
	TAP_RUN(test_yield_takes_turns);
	TAP_RUN(test_thousands_of_fibers);
	if (!sanitized) { /* which has mappings of its own */
		TAP_RUN(test_idle_stacks_are_given_back);
		TAP_RUN(test_an_idle_loop_gives_stacks_back);
	}
	TAP_RUN(test_registers_survive_switches);
#if defined(__x86_64__)
	TAP_RUN(test_callee_saved_registers_of_x86_64);
#endif
	TAP_RUN(test_stack_holds_what_is_promised);
#if !defined(CHECKERS_ASAN) && !defined(CHECKERS_TSAN) /* which catch the signal */
	TAP_RUN(test_overflow_hits_the_guard);
#endif
	return TAP_DONE();
}
