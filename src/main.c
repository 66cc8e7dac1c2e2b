#include <stdio.h>
#include "ops/kernels.h"
int main(void) {
    for (int i = 0; i < VKM_N_KERNELS; i++) printf("%s\n", vkm_kernels[i].name);
    return 0;
}
