/* Another processor's features on this one: preload it, and CPUID no longer tells of what TALKFACE_CPU lacks.

   TALKFACE_CPU=zen3   an AMD with AVX2, without AVX-512 and bf16 units
   TALKFACE_CPU=sse4   an x86 without AVX

   Linux can make CPUID fault (arch_prctl, ARCH_SET_CPUID); the handler asks the processor, clears bits and goes
   on. Every library asks CPUID which code to run, so this reaches those without a switch of their own (XNNPACK,
   x264, SciPy). Only the C library has asked before: GLIBC_TUNABLES tells it. scripts/other_cpus.py does both. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012

static int amd, sse;

static void masked(unsigned leaf, unsigned sub, unsigned r[4]) {
    unsigned real = leaf, most = __get_cpuid_max(0x80000000, 0);
    if (amd && leaf == 0x8000001d) real = 4; /* caches, laid out alike */
    if (amd && leaf > most && leaf > 0x80000008 && leaf != 0x8000001d && leaf < 0x80000100) {
        memset(r, 0, 16);
        return;
    }
    __cpuid_count(real, sub, r[0], r[1], r[2], r[3]);
    if (amd && leaf == 0) memcpy(r + 1, "Auth", 4), memcpy(r + 3, "enti", 4), memcpy(r + 2, "cAMD", 4);
    if (amd && leaf == 4) memset(r, 0, 16);
    if (amd && leaf == 0x80000000) r[0] = 0x8000001e;
    if (amd && leaf == 0x80000001) r[2] |= 1u << 22;
    if (leaf == 1 && amd) r[0] = 0x00a00f11;
    if (leaf == 1 && sse) r[2] &= ~(1u << 28 | 1u << 12 | 1u << 29);
    if (leaf == 7 && sub == 0) {
        r[1] &= ~(1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 30 | 1u << 31);
        r[2] &= ~(1u << 1 | 1u << 6 | 1u << 8 | 1u << 11 | 1u << 12 | 1u << 14);
        r[3] &= ~(1u << 2 | 1u << 3 | 1u << 8 | 1u << 22 | 1u << 23 | 1u << 24 | 1u << 25);
        if (sse) r[1] &= ~(1u << 5 | 1u << 3 | 1u << 8), r[2] &= ~(1u << 9 | 1u << 10);
    }
    if (leaf == 7 && sub == 1) r[0] = r[3] = 0;
}

static void on_fault(int signal, siginfo_t *info, void *context) {
    greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *at = (const unsigned char *)g[REG_RIP];
    (void)info;
    if (at[0] != 0x0f || at[1] != 0xa2) { /* a fault of its own */
        struct sigaction plain = {.sa_handler = SIG_DFL};
        syscall(SYS_rt_sigaction, signal, &plain, NULL, 8);
        return;
    }
    unsigned r[4];
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1);
    masked((unsigned)g[REG_RAX], (unsigned)g[REG_RCX], r);
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0);
    g[REG_RAX] = r[0], g[REG_RBX] = r[1], g[REG_RCX] = r[2], g[REG_RDX] = r[3];
    g[REG_RIP] += 2;
}

int sigaction(int number, const struct sigaction *new, struct sigaction *old) {
    static int (*real)(int, const struct sigaction *, struct sigaction *);
    if (!real) real = dlsym(RTLD_NEXT, "sigaction");
    if (number == SIGSEGV && new && (amd || sse) && new->sa_sigaction != on_fault) {
        if (old) memset(old, 0, sizeof *old); /* whoever asks for this signal never gets it */
        return 0;
    }
    return real(number, new, old);
}

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("TALKFACE_CPU");
    if (!name) return;
    amd = !strcmp(name, "zen3"), sse = !strcmp(name, "sse4");
    if (!amd && !sse) return;
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &action, NULL);
    syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0);
}
