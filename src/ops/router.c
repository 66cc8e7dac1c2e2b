/* The rank-1 router w = sigmoid(alpha (s - b)), s = cos(a - mu, u) or, linear, <a - mu, u>, its
 * gradient, and the pin loss. */
#include "ops/twin.h"
#include "ops/guarded.h"
#include "ops/router.h"

#ifndef VKM_TWIN64
void vkm_op_router_fwd(vkm_stream *s, const vkm_args_router_fwd *a) {
    vkm_args_router_fwd b = *a;
    uint64_t n = a->n_rows, p = a->n_cols;
    VKM_BUG_ON(p > 65536 || n > 65535, "router_fwd: %u rows of %u", a->n_rows, a->n_cols);
    b.a = vkm_need(a->a, n * p, "router_fwd", "a");
    b.mu = vkm_need(a->mu, p, "router_fwd", "mu");
    b.u = vkm_need(a->u, p, "router_fwd", "u");
    b.cal = vkm_need(a->cal, VKM_CAL_WORDS, "router_fwd", "cal");
    b.s = vkm_need(a->s, n, "router_fwd", "s");
    b.z = vkm_need(a->z, n, "router_fwd", "z");
    b.w = vkm_need(a->w, n, "router_fwd", "w");
    b.inv = vkm_need(a->inv, 2 * n, "router_fwd", "inv");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_router_fwd], &b,
                      vkm_launch_flat(64 * n, 64, 20.0 * (double)(n * p)));
}

void vkm_op_router_bwd(vkm_stream *s, const vkm_args_router_bwd *a) {
    vkm_args_router_bwd b = *a;
    uint64_t n = a->n_rows, p = a->n_cols;
    b.a = vkm_need(a->a, n * p, "router_bwd", "a");
    b.mu = vkm_need(a->mu, p, "router_bwd", "mu");
    b.u = vkm_need(a->u, p, "router_bwd", "u");
    b.cal = vkm_need(a->cal, VKM_CAL_WORDS, "router_bwd", "cal");
    b.s = vkm_need(a->s, n, "router_bwd", "s");
    b.inv = vkm_need(a->inv, 2 * n, "router_bwd", "inv");
    b.dz = vkm_need(a->dz, n, "router_bwd", "dz");
    b.du = vkm_need(a->du, p, "router_bwd", "du");
    b.db = vkm_need(a->db, 1, "router_bwd", "db");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_router_bwd], &b,
                      vkm_launch_flat(p + 1, 64, 40.0 * (double)(n * p)));
}

void vkm_op_router_dz(vkm_stream *s, const vkm_args_router_dz *a) {
    vkm_args_router_dz b = *a;
    b.w = vkm_need(a->w, a->n, "router_dz", "w");
    b.dw = vkm_need(a->dw, a->n, "router_dz", "dw");
    b.dz = vkm_need(a->dz, a->n, "router_dz", "dz");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_router_dz], &b, vkm_launch_flat(a->n, 64, 20.0 * a->n));
}

void vkm_op_pin_loss(vkm_stream *s, const vkm_args_pin_loss *a) {
    vkm_args_pin_loss b = *a;
    b.z = vkm_need(a->z, 2ull * a->n_pairs, "pin_loss", "z");
    b.w = vkm_need(a->w, 2ull * a->n_pairs, "pin_loss", "w");
    b.loss = vkm_need(a->loss, 1, "pin_loss", "loss");
    b.dz = vkm_need(a->dz, 2ull * a->n_pairs, "pin_loss", "dz");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_pin_loss], &b,
                      vkm_launch_flat(64, 64, 200.0 * a->n_pairs));
}
#endif

VKM_REF(router_fwd) {
    const real *mu = ref_f32(a->mu), *u = ref_f32(a->u), *cal = ref_f32(a->cal); // (P) (P) (2)
    FOR_PART(i, a->n_rows) {
        const real *row = ref_f32(a->a) + i * a->n_cols; // (n,P)
        real xx[64] = {0}, uu[64] = {0}, xu[64] = {0};
        for (uint32_t j = 0; j < a->n_cols; j++) {
            real x = subc(row[j], mu[j]);
            xx[j % 64] += mulc(x, x);
            uu[j % 64] += mulc(u[j], u[j]);
            xu[j % 64] += mulc(x, u[j]);
        }
        real x_norm = vkm_sqrt(vkm_rule5_tree(xx)), u_norm = vkm_sqrt(vkm_rule5_tree(uu));
        real inv_x = x_norm == 0 ? 0 : vkm_div(1, x_norm);
        real inv_u = u_norm == 0 ? 0 : vkm_div(1, u_norm);
        if (a->linear) inv_x = inv_u = 1;
        real s = mulc(mulc(vkm_rule5_tree(xu), inv_x), inv_u);
        real z = mulc(cal[VKM_CAL_ALPHA], subc(s, cal[VKM_CAL_B]));
        ref_f32(a->s)[i] = s;
        ref_f32(a->z)[i] = z;
        ref_f32(a->w)[i] = canon(vkm_sigmoid(z));
        ref_f32(a->inv)[2 * i] = canon(inv_x);
        ref_f32(a->inv)[2 * i + 1] = canon(inv_u);
    }
}

VKM_REF(router_bwd) {
    const real *mu = ref_f32(a->mu), *u = ref_f32(a->u), *s = ref_f32(a->s);
    const real *inv = ref_f32(a->inv), *dz = ref_f32(a->dz); // (n,2) (n)
    real alpha = ref_f32(a->cal)[VKM_CAL_ALPHA], *du = ref_f32(a->du), *db = ref_f32(a->db);
    FOR_PART(j, a->n_cols + 1ull) {
        if (j == a->n_cols) {
            for (uint32_t i = 0; i < a->n_rows; i++) db[0] = subc(db[0], mulc(alpha, dz[i]));
            continue;
        }
        for (uint32_t i = 0; i < a->n_rows; i++) {
            real x = subc(ref_f32(a->a)[(uint64_t)i * a->n_cols + j], mu[j]);
            real cosine = a->linear ? 0 : s[i]; /* a cosine does not see |u| */
            real t = subc(mulc(x, inv[2 * i]), mulc(cosine, mulc(u[j], inv[2 * i + 1])));
            du[j] = addc(du[j], mulc(mulc(mulc(alpha, dz[i]), inv[2 * i + 1]), t));
        }
    }
}

VKM_REF(router_dz) {
    FOR_PART(i, a->n) {
        real w = ref_f32(a->w)[i];
        ref_f32(a->dz)[i] = mulc(ref_f32(a->dw)[i], mulc(w, subc(1, w)));
    }
}

VKM_REF(pin_loss) {
    if (me.i != 0) return;
    const real *z = ref_f32(a->z), *w = ref_f32(a->w); // n hack rows, then n clean rows
    uint32_t n = a->n_pairs;
    real acc[64] = {0}, share = vkm_div(mulc(a->coef, 0.5f), (real)(int32_t)n);
    for (uint32_t i = 0; i < n; i++) {
        acc[i % 64] += vkm_softplus(0 - z[i]) + vkm_softplus(z[n + i]);
        ref_f32(a->dz)[i] = mulc(mulc(share, subc(w[i], 1)), a->scale);
        ref_f32(a->dz)[n + i] = mulc(mulc(share, w[n + i]), a->scale);
    }
    ref_f32(a->loss)[0] = mulc(vkm_rule5_tree(acc), share);
}
