/* Owns the SIGINT handler of runs. */
#include "rl/interrupt.h"

#include <signal.h>

static volatile sig_atomic_t asked;
static void (*before)(int);

static void on_interrupt(int signal_number) {
    asked = 1;
    signal(signal_number, SIG_DFL);
}

void vkm_interrupt_begin(void) {
    asked = 0;
    before = signal(SIGINT, on_interrupt);
}

int vkm_interrupt_asked(void) {
    return asked;
}

void vkm_interrupt_end(void) {
    signal(SIGINT, before);
}
