/* Ctrl-C in a run: the first one asks for a stop after the step, the second ends the program. */
#ifndef VKM_INTERRUPT_H
#define VKM_INTERRUPT_H

void vkm_interrupt_begin(void);
int vkm_interrupt_asked(void);
void vkm_interrupt_end(void); /* the handler of before is back */

#endif
