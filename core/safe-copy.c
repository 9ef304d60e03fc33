/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Copying memory that may be gone
 *
 * A SIGBUS handler must know two things of a fault: is it ours, and where does it go on?
 *
 *   on x86-64    Each loop that touches memory is one piece of assembly, and writes into a table where it begins and ends
 *                (core/guarded.h; layers/autocache-copy.c has two more). A fault whose instruction lies in such a piece is
 *                ours, and goes on at its end with 1 in eax, which is 0
 *                otherwise. Nothing has to be set up or taken down: no state of a thread, nothing to nest, nothing to
 *                leave wrong, and the way without a fault costs what the loop costs. (What else the loop has in its registers is
 *                not looked at after a fault: valgrind keeps only some of them true at every instruction.)
 *   elsewhere    (and with SAFE_COPY_PORTABLE, for tests) sigsetjmp() before and siglongjmp() from the handler, with a chain
 *                of what is under way on the thread.
 *
 * The loops move 16 bytes an instruction, 64 a turn. "rep movsb" is the quicker one from about a KiB on, but only to an
 * address that is a multiple of 64: to others it takes up to twenty times as long on an AMD Zen 4 (and memcpy() of the
 * C library, which uses it there, no less).
 *
 * What a signal says                what becomes of it
 *   raised by kill() and the like   not a fault: handed on, wherever it arrives
 *   BUS_ADRERR, BUS_OBJERR, ...     ours if it is in one of our loops, else handed on
 *   BUS_MCEERR_AR (sigaction(2))    memory failed under the instruction: as above. The kernel has taken the page out of
 *                                   use; of a mapped file it reads a clean one anew, so the next try may succeed
 *   BUS_MCEERR_AO                   memory failed somewhere, nobody touched it: handed on, whoever runs
 *
 * While our handler runs SIGBUS is not blocked (SA_NODEFER), so that a handler of another signal, which may come at any time,
 * can copy, too. Handing on keeps what the handler before us asked for: its mask, to which SIGBUS belongs, SA_RESTART,
 * SA_NODEFER, SA_RESETHAND. SA_ONSTACK is always set: a thread that has an alternate stack wants it used, and one that has
 * none is not affected. Where there was no handler the default is put back, and what faulted faults again and ends the process
 * at the right place.
 *
 * The plugin may be unloaded: then the handler before us is put back, provided that ours is still the one in place. If
 * somebody has set one on top of ours and hands on to us, there is no way out of the chain: a SIGBUS after the
 * unloading would go to code that is gone. Who does that to a plugin must keep it loaded.
 */
#include "core/safe-copy.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include "core/checkers.h"
#include "core/guarded.h"

#define unlikely(x) __builtin_expect(!!(x), 0)

/* Process-wide, as the handler is. `previous` is written once, before the handler is in place. */
static struct {
	pthread_once_t once;
	struct sigaction previous;
	_Atomic bool spent; /* a previous SA_RESETHAND handler has had its one signal */
	_Atomic bool installed;
} bus = {.once = PTHREAD_ONCE_INIT};

static _Thread_local bool ready __attribute__((tls_model("initial-exec")));

/* ------------------------------------------------------------------ a fault of ours */

#ifdef GUARDED_BY_ADDRESS

/* Distances from where each stands: a fault in [begin, end) goes on at `end`. */
struct guarded {
	int32_t begin, end;
};

extern const struct guarded __start_platter_guarded[] __attribute__((visibility("hidden")));
extern const struct guarded __stop_platter_guarded[] __attribute__((visibility("hidden")));

static uintptr_t address_of(const int32_t *distance)
{
	return (uintptr_t)distance + (uintptr_t)(intptr_t)*distance;
}

static bool resume(const siginfo_t *info, ucontext_t *context)
{
	greg_t *at = &context->uc_mcontext.gregs[REG_RIP];

	(void)info;
	for (const struct guarded *g = __start_platter_guarded; g < __stop_platter_guarded; g++)
		if ((uintptr_t)*at >= address_of(&g->begin) && (uintptr_t)*at < address_of(&g->end)) {
			*at = (greg_t)address_of(&g->end);
			context->uc_mcontext.gregs[REG_RAX] = 1;
			return true;
		}
	return false;
}

#else

/* What is under way on this thread; the fault is ours if it is in one of the ranges. */
struct attempt {
	struct attempt *outer;
	uintptr_t to, from;
	size_t size;
	sigjmp_buf back;
};

static _Thread_local struct attempt *volatile innermost __attribute__((tls_model("initial-exec")));

/* A signal that arrives on top of an attempt and uses us again puts its own in front: only the first can have faulted. */
static bool resume(const siginfo_t *info, ucontext_t *context)
{
	struct attempt *a = innermost;
	uintptr_t at = (uintptr_t)info->si_addr;

	if (!a || (at - a->to >= a->size && at - a->from >= a->size))
		return false;
	innermost = a->outer;
	pthread_sigmask(SIG_SETMASK, &context->uc_sigmask, NULL);
	siglongjmp(a->back, 1);
}

#endif

/* ------------------------------------------------------------------ the handler */

static bool is_fault(const siginfo_t *info)
{
	return info->si_code > 0 && info->si_code != BUS_MCEERR_AO;
}

/* The fault comes again when we return, a signal that was sent is sent once more. */
static void do_default(const siginfo_t *info)
{
	struct sigaction none = {.sa_handler = SIG_DFL};

	sigaction(SIGBUS, &none, NULL);
	if (!is_fault(info))
		raise(SIGBUS);
}

/* Until the handler returns, as the kernel does it. */
static void block_for(const struct sigaction *handler)
{
	sigset_t set = handler->sa_mask;

	if (!(handler->sa_flags & SA_NODEFER))
		sigaddset(&set, SIGBUS);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static void call_before(const struct sigaction *before, int number, siginfo_t *info, void *context)
{
	block_for(before);
	if (before->sa_flags & SA_SIGINFO)
		before->sa_sigaction(number, info, context);
	else
		before->sa_handler(number);
}

static void hand_on(int number, siginfo_t *info, void *context)
{
	const struct sigaction *before = &bus.previous;
	bool once = before->sa_flags & SA_RESETHAND;

	/* the kernel does not let a fault be ignored, either */
	if (before->sa_handler == SIG_IGN && !is_fault(info))
		return;
	if (before->sa_handler == SIG_IGN || before->sa_handler == SIG_DFL ||
	    (once && atomic_exchange(&bus.spent, true)))
		do_default(info);
	else
		call_before(before, number, info, context);
}

static void on_bus_error(int number, siginfo_t *info, void *context)
{
	int error = errno;

	if (!is_fault(info) || !resume(info, context))
		hand_on(number, info, context);
	errno = error;
}

static void install(void)
{
	struct sigaction ours = {.sa_sigaction = on_bus_error};

	sigaction(SIGBUS, NULL, &bus.previous);
	sigemptyset(&ours.sa_mask);
	ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | (bus.previous.sa_flags & SA_RESTART);
	sigaction(SIGBUS, &ours, NULL);
	atomic_store(&bus.installed, true);
}

/* The program may unload us (nbdkit does). */
__attribute__((destructor)) static void uninstall(void)
{
	struct sigaction now;

	if (atomic_load(&bus.installed) && !sigaction(SIGBUS, NULL, &now) &&
	    (now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_bus_error)
		sigaction(SIGBUS, &bus.previous, NULL);
}

static __attribute__((noinline, cold)) void make_ready(void)
{
	sigset_t set;

	pthread_once(&bus.once, install);
	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	ready = true;
}

void guarded_ready(void)
{
	if (unlikely(!ready))
		make_ready();
}

/* ------------------------------------------------------------------ the loops: 0, or 1 after a fault */

#ifdef GUARDED_BY_ADDRESS

/* From where on "rep movsb" is the quicker one. */
#define REP_BYTES 1024u

static int copy(char *to, const char *from, size_t size)
{
	int fault = 0;

	if (size >= REP_BYTES && !((uintptr_t)to & 63)) {
		__asm__ volatile("1:	rep movsb\n"
				 "9:\n" GUARDED
				 : "+D"(to), "+S"(from), "+c"(size), "+a"(fault)::"memory");
		return fault;
	}
	__asm__ volatile("1:	cmpq $64, %[size]\n"
			 "	jb 2f\n"
			 "	movdqu (%[from]), %%xmm0\n"
			 "	movdqu 16(%[from]), %%xmm1\n"
			 "	movdqu 32(%[from]), %%xmm2\n"
			 "	movdqu 48(%[from]), %%xmm3\n"
			 "	movdqu %%xmm0, (%[to])\n"
			 "	movdqu %%xmm1, 16(%[to])\n"
			 "	movdqu %%xmm2, 32(%[to])\n"
			 "	movdqu %%xmm3, 48(%[to])\n"
			 "	addq $64, %[from]\n"
			 "	addq $64, %[to]\n"
			 "	subq $64, %[size]\n"
			 "	jmp 1b\n"
			 "2:	cmpq $16, %[size]\n"
			 "	jb 3f\n"
			 "	movdqu (%[from]), %%xmm0\n"
			 "	movdqu %%xmm0, (%[to])\n"
			 "	addq $16, %[from]\n"
			 "	addq $16, %[to]\n"
			 "	subq $16, %[size]\n"
			 "	jmp 2b\n"
			 "3:	testq %[size], %[size]\n"
			 "	jz 9f\n"
			 "	movb (%[from]), %%dl\n"
			 "	movb %%dl, (%[to])\n"
			 "	addq $1, %[from]\n"
			 "	addq $1, %[to]\n"
			 "	subq $1, %[size]\n"
			 "	jmp 3b\n"
			 "9:\n" GUARDED
			 : [to] "+r"(to), [from] "+r"(from), [size] "+r"(size), "+a"(fault)
			 :
			 : "rdx", "xmm0", "xmm1", "xmm2", "xmm3", "cc", "memory");
	return fault;
}

static int fill(char *to, unsigned char byte, size_t size)
{
	uint64_t eight = byte * UINT64_C(0x0101010101010101);
	int fault = 0;

	__asm__ volatile("1:	movq %[eight], %%xmm0\n"
			 "	punpcklqdq %%xmm0, %%xmm0\n"
			 "2:	cmpq $64, %[size]\n"
			 "	jb 3f\n"
			 "	movdqu %%xmm0, (%[to])\n"
			 "	movdqu %%xmm0, 16(%[to])\n"
			 "	movdqu %%xmm0, 32(%[to])\n"
			 "	movdqu %%xmm0, 48(%[to])\n"
			 "	addq $64, %[to]\n"
			 "	subq $64, %[size]\n"
			 "	jmp 2b\n"
			 "3:	testq %[size], %[size]\n"
			 "	jz 9f\n"
			 "	movb %b[eight], (%[to])\n"
			 "	addq $1, %[to]\n"
			 "	subq $1, %[size]\n"
			 "	jmp 3b\n"
			 "9:\n" GUARDED
			 : [to] "+r"(to), [size] "+r"(size), "+a"(fault)
			 : [eight] "r"(eight)
			 : "xmm0", "cc", "memory");
	return fault;
}

/* Ends early, too, with *other set, when there is something other than zero. */
static int skip_zeroes(const char *from, size_t size, bool *other)
{
	unsigned bits = 0xffff;
	int fault = 0;

	__asm__ volatile("1:	pxor %%xmm4, %%xmm4\n"
			 "2:	cmpq $64, %[size]\n"
			 "	jb 3f\n"
			 "	movdqu (%[from]), %%xmm0\n"
			 "	movdqu 16(%[from]), %%xmm1\n"
			 "	movdqu 32(%[from]), %%xmm2\n"
			 "	movdqu 48(%[from]), %%xmm3\n"
			 "	por %%xmm1, %%xmm0\n"
			 "	por %%xmm3, %%xmm2\n"
			 "	por %%xmm2, %%xmm0\n"
			 "	pcmpeqb %%xmm4, %%xmm0\n"
			 "	pmovmskb %%xmm0, %[bits]\n"
			 "	cmpl $0xffff, %[bits]\n"
			 "	jne 9f\n"
			 "	addq $64, %[from]\n"
			 "	subq $64, %[size]\n"
			 "	jmp 2b\n"
			 "3:	testq %[size], %[size]\n"
			 "	jz 9f\n"
			 "	cmpb $0, (%[from])\n"
			 "	jne 4f\n"
			 "	addq $1, %[from]\n"
			 "	subq $1, %[size]\n"
			 "	jmp 3b\n"
			 "4:	xorl %[bits], %[bits]\n"
			 "9:\n" GUARDED
			 : [from] "+r"(from), [size] "+r"(size), [bits] "+r"(bits), "+a"(fault)
			 :
			 : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "cc", "memory");
	*other = bits != 0xffff;
	return fault;
}

/* On x86-64 every load acquires and every store releases. */
static int load32(const uint32_t *from, uint32_t *value)
{
	int fault = 0;

	__asm__ volatile("1:	movl (%[from]), %[value]\n"
			 "9:\n" GUARDED
			 : [value] "=&r"(*value), "+a"(fault)
			 : [from] "r"(from)
			 : "memory");
	return fault;
}

static int store32(uint32_t *to, uint32_t value)
{
	int fault = 0;

	__asm__ volatile("1:	movl %[value], (%[to])\n"
			 "9:\n" GUARDED
			 : "+a"(fault)
			 : [to] "r"(to), [value] "r"(value)
			 : "memory");
	return fault;
}

static int store64(uint64_t *to, uint64_t value)
{
	int fault = 0;

	__asm__ volatile("1:	movq %[value], (%[to])\n"
			 "9:\n" GUARDED
			 : "+a"(fault)
			 : [to] "r"(to), [value] "r"(value)
			 : "memory");
	return fault;
}

#else

/* Runs `work` as an attempt; 0, or 1 after a fault. */
#define ATTEMPT(to_, from_, size_, work)                                                                     \
	({                                                                                                   \
		struct attempt attempt = {.outer = innermost,                                                \
					  .to = (uintptr_t)(to_),                                            \
					  .from = (uintptr_t)(from_),                                        \
					  .size = (size_)};                                                  \
		int faulted = sigsetjmp(attempt.back, 0);                                                    \
		if (!faulted) {                                                                              \
			innermost = &attempt;                                                                \
			atomic_signal_fence(memory_order_seq_cst);                                           \
			work;                                                                                \
			atomic_signal_fence(memory_order_seq_cst);                                           \
			innermost = attempt.outer;                                                           \
		}                                                                                            \
		faulted;                                                                                     \
	})

static int copy(char *to, const char *from, size_t size)
{
	return ATTEMPT(to, from, size, memcpy(to, from, size));
}

static int fill(char *to, unsigned char byte, size_t size)
{
	return ATTEMPT(to, to, size, memset(to, byte, size));
}

static bool has_other(const char *from, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (((const volatile char *)from)[i])
			return true;
	return false;
}

static int skip_zeroes(const char *from, size_t size, bool *other)
{
	volatile bool found = false;
	int fault = ATTEMPT(from, from, size, found = has_other(from, size));

	*other = found;
	return fault;
}

static int load32(const uint32_t *from, uint32_t *value)
{
	volatile uint32_t loaded = 0;
	int fault = ATTEMPT(from, from, sizeof(*from), loaded = __atomic_load_n(from, __ATOMIC_ACQUIRE));

	*value = loaded;
	return fault;
}

static int store32(uint32_t *to, uint32_t value)
{
	return ATTEMPT(to, to, sizeof(*to), __atomic_store_n(to, value, __ATOMIC_RELEASE));
}

static int store64(uint64_t *to, uint64_t value)
{
	return ATTEMPT(to, to, sizeof(*to), __atomic_store_n(to, value, __ATOMIC_RELEASE));
}

#endif

/* ------------------------------------------------------------------ the functions */

int safe_copy(void *to, const void *from, size_t size)
{
	guarded_ready();
	checkers_reads(from, size);
	checkers_writes(to, size);
	return unlikely(copy(to, from, size)) ? -EFAULT : 0;
}

int safe_fill(void *to, unsigned char byte, size_t size)
{
	guarded_ready();
	checkers_writes(to, size);
	return unlikely(fill(to, byte, size)) ? -EFAULT : 0;
}

int safe_is_zero(const void *from, size_t size)
{
	bool other;

	guarded_ready();
	checkers_reads(from, size);
	if (unlikely(skip_zeroes(from, size, &other)))
		return -EFAULT;
	return !other;
}

int safe_load32(const uint32_t *from, uint32_t *value)
{
	uint32_t loaded;

	guarded_ready();
	if (unlikely(load32(from, &loaded)))
		return -EFAULT;
	checkers_acquires(from);
	*value = loaded;
	return 0;
}

int safe_store32(uint32_t *to, uint32_t value)
{
	guarded_ready();
	checkers_releases(to);
	return unlikely(store32(to, value)) ? -EFAULT : 0;
}

int safe_store64(uint64_t *to, uint64_t value)
{
	guarded_ready();
	checkers_releases(to);
	return unlikely(store64(to, value)) ? -EFAULT : 0;
}
