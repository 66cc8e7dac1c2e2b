#version 460
#extension GL_GOOGLE_include_directive : require
#include "router_bwd.glsl"
#include "guarded.glsl"

/* One invocation a column, the last one b; rows add in ascending order. */
void main() {
    uint j = vkm_flat_id();
    if (j > pc.n_cols) return;
    float alpha = LD_cal(1u);
    if (j == pc.n_cols) {
        float sum = LD_db(0u);
        for (uint i = 0u; i < pc.n_rows; i++) sum = subc(sum, mulc(alpha, LD_dz(i)));
        ST_db(0u, sum);
        return;
    }
    float mu = LD_mu(j), u = LD_u(j), sum = LD_du(j);
    for (uint i = 0u; i < pc.n_rows; i++) {
        float inv_u = LD_inv(2u * i + 1u);
        float x = subc(LD_a(i * pc.n_cols + j), mu);
        float s = pc.linear != 0u ? 0.0 : LD_s(i); /* a cosine does not see |u| */
        float t = subc(mulc(x, LD_inv(2u * i)), mulc(s, mulc(u, inv_u)));
        sum = addc(sum, mulc(mulc(mulc(alpha, LD_dz(i)), inv_u), t));
    }
    ST_du(j, sum);
}
