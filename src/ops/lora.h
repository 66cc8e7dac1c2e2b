/* The adapter's order, as far as those know who size its operands (ops/lora.c). */
#ifndef VKM_OPS_LORA_H
#define VKM_OPS_LORA_H

#include "vk/tensor.h"

/* Rows or columns of an expert of that rank in an adapter operand. */
static inline uint32_t vkm_lora_kper(uint32_t rank) {
    return 2 * (uint32_t)vkm_round_up(rank, 4);
}

#endif
