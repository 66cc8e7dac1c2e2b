/* Owns the lists by which the weights' own gradients are summed: blocks of rows, chunks of the
 * output head, rows of each token. All of them follow from the sequences alone, one after another,
 * so that a batch may be cut between any two sequences. */
#include <stdlib.h>
#include <string.h>

#include "model/work_impl.h"
#include "ops/norm.h"

static uint64_t max_blocks(const vkm_work *w) {
    return w->max.rows / VKM_GRAD_BLOCK + w->max.seqs;
}

vkm_status vkm_work_new_lists(vkm_work *w, vkm_err *err) {
    uint32_t v = w->model->dims.V;
    VKM_BUG_ON(w->max.logit_rows < VKM_WEIGHT_LOGIT_ROWS, "%u rows of logits", w->max.logit_rows);
    w->lists.count = vkm_calloc(v, sizeof *w->lists.count, "a workspace", err);
    w->lists.next = vkm_calloc(v, sizeof *w->lists.next, "a workspace", err);
    return err->status;
}

void vkm_work_plan_weights(vkm_work *w, vkm_plan *p) {
    const vkm_model_config *d = &w->model->dims;
    vkm_weight_lists *l = &w->lists;
    uint64_t t = w->max.rows, n = max_blocks(w), ids = t < d->V ? t : d->V;
    uint32_t hd = d->H * d->D, widest = d->C > hd ? d->C : hd;
    const char *c = "weight gradients";
    vkm_plan_add(p, &l->blocks, VKM_U32, 2 * n, c);
    vkm_plan_add(p, &l->comp_blocks, VKM_U32, 2 * n, c);
    vkm_plan_add(p, &l->map, VKM_U32, t + 16 * n, c);
    vkm_plan_add(p, &l->segs, VKM_U32, 4 * n, c);
    vkm_plan_add(p, &l->ids, VKM_U32, 3 * ids, c);
    vkm_plan_add(p, &l->id_rows, VKM_U32, t, c);
    vkm_plan_add(p, &l->part, VKM_F32, n * widest, c);
    vkm_plan_add(p, &l->dlogits_t, VKM_BF16, vkm_op_size(d->V, w->max.logit_rows), c);
    vkm_plan_add(p, &l->nc_t, VKM_BF16, vkm_op_size(d->C, w->max.logit_rows), c);
}

/* Blocks of the token rows, or of the completion tokens as they follow one another. */
static vkm_status set_blocks(vkm_work *w, const vkm_seq *seqs, uint32_t n_seq, int completion,
                             vkm_err *err) {
    vkm_weight_lists *l = &w->lists;
    uint32_t *host = vkm_calloc(max_blocks(w), 2 * sizeof *host, "a batch", err), n = 0, row0 = 0;
    if (!host) return err->status;
    for (uint32_t b = 0; b < n_seq; b++) {
        uint32_t len = completion ? seqs[b].len - seqs[b].comp0 : seqs[b].len;
        for (uint32_t i = 0; i < len; i += VKM_GRAD_BLOCK, n++) {
            host[2 * n] = row0 + i;
            host[2 * n + 1] = len - i < VKM_GRAD_BLOCK ? len - i : VKM_GRAD_BLOCK;
        }
        row0 += completion ? len : vkm_seq_rows(len);
    }
    *(completion ? &l->n_comp_blocks : &l->n_blocks) = n;
    vkm_tensor dst = completion ? l->comp_blocks : l->blocks;
    if (n) (void)!vkm_write(w->model->dev, vkm_view(dst, 0, 2ull * n), host, err);
    free(host);
    return err->status;
}

/* Takes one block of completion tokens into the last chunk, or into a new one where it does not
 * fit. Chunks begin at multiples of 16, as operands are read from there; up to 15 rows are made
 * twice. */
static void add_to_chunk(vkm_work *w, uint32_t first, uint32_t n, uint32_t *map, uint32_t *segs) {
    vkm_head_chunk *c = w->n_chunks ? &w->chunks[w->n_chunks - 1] : NULL;
    uint32_t width = vkm_seq_rows(n);
    if (!c || first + n - c->row > w->max.logit_rows || c->n_map + width > w->max.logit_rows) {
        VKM_BUG_ON(w->n_chunks == w->max_chunks, "%u chunks", w->n_chunks);
        c = &w->chunks[w->n_chunks++];
        *c = (vkm_head_chunk){.row = first / 16 * 16,
                              .map0 = c == w->chunks ? 0 : c[-1].map0 + c[-1].n_map,
                              .seg0 = c == w->chunks ? 0 : c[-1].seg0 + c[-1].n_segs};
    }
    const uint32_t seg[4] = {c->n_map, n, 0, n};
    memcpy(segs + 4ull * (c->seg0 + c->n_segs++), seg, sizeof seg);
    for (uint32_t i = 0; i < width; i++)
        map[c->map0 + c->n_map++] = i < n ? first + i - c->row : UINT32_MAX;
    c->n = first + n - c->row;
}

static vkm_status set_chunks(vkm_work *w, const vkm_seq *seqs, uint32_t n_seq, vkm_err *err) {
    vkm_weight_lists *l = &w->lists;
    uint32_t *map = vkm_calloc(l->map.n, sizeof *map, "a batch", err), first = 0;
    uint32_t *segs = vkm_calloc(l->segs.n, sizeof *segs, "a batch", err);
    if (!map || !segs) goto done;
    w->n_chunks = 0;
    for (uint32_t b = 0; b < n_seq; b++) {
        uint32_t len = seqs[b].len - seqs[b].comp0;
        for (uint32_t i = 0; i < len; i += VKM_GRAD_BLOCK)
            add_to_chunk(w, first + i, len - i < VKM_GRAD_BLOCK ? len - i : VKM_GRAD_BLOCK, map,
                         segs);
        first += len;
    }
    if (!w->n_chunks) goto done;
    const vkm_head_chunk *last = &w->chunks[w->n_chunks - 1];
    vkm_dev *dev = w->model->dev;
    if (!vkm_write(dev, vkm_view(l->map, 0, last->map0 + last->n_map), map, err))
        (void)!vkm_write(dev, vkm_view(l->segs, 0, 4ull * (last->seg0 + last->n_segs)), segs, err);
done:
    free(map), free(segs);
    return err->status;
}

/* The rows of each token that occurs, ascending; tokens ascending too. */
static vkm_status set_ids(vkm_work *w, const vkm_seq *seqs, uint32_t n_seq, vkm_err *err) {
    vkm_weight_lists *l = &w->lists;
    uint32_t v = w->model->dims.V, n = 0, at = 0;
    uint32_t *ids = vkm_calloc(l->ids.n, sizeof *ids, "a batch", err), *rows = w->host;
    if (!ids) return err->status;
    memset(l->count, 0, v * sizeof *l->count);
    for (uint32_t b = 0; b < n_seq; b++)
        for (uint32_t i = 0; i < seqs[b].len; i++) {
            VKM_BUG_ON(seqs[b].tokens[i] >= v, "token %u of a vocabulary of %u", seqs[b].tokens[i],
                       v);
            l->count[seqs[b].tokens[i]]++;
        }
    for (uint32_t id = 0; id < v; id++) {
        l->next[id] = at;
        if (!l->count[id]) continue;
        const uint32_t entry[3] = {id, at, l->count[id]};
        memcpy(ids + 3ull * n++, entry, sizeof entry);
        at += l->count[id];
    }
    for (uint32_t b = 0, row0 = 0; b < n_seq; row0 += vkm_seq_rows(seqs[b].len), b++)
        for (uint32_t i = 0; i < seqs[b].len; i++) rows[l->next[seqs[b].tokens[i]]++] = row0 + i;
    l->n_ids = n;
    if (!vkm_write(w->model->dev, vkm_view(l->ids, 0, 3ull * n), ids, err))
        (void)!vkm_write(w->model->dev, vkm_view(l->id_rows, 0, at), rows, err);
    free(ids);
    return err->status;
}

vkm_status vkm_work_set_lists(vkm_work *w, const vkm_seq *seqs, uint32_t n_seq, vkm_err *err) {
    if (set_blocks(w, seqs, n_seq, 0, err) || set_blocks(w, seqs, n_seq, 1, err) ||
        set_chunks(w, seqs, n_seq, err) || set_ids(w, seqs, n_seq, err))
        return err->status;
    return VKM_OK;
}
