/* Grading boxes: one bubblewrap sandbox with a Python fork server in it, and one forked child a
 * job. A box knows nothing of problems or verdicts: bytes go in, frames and a wait status come out.
 * Called by grade.c; one thread a box. */
#ifndef VKM_SANDBOX_H
#define VKM_SANDBOX_H

#include "base/status.h"
#include "base/strbuf.h"

#include <stdbool.h>

typedef enum {
    VKM_SANDBOX_BWRAP,       /* namespaces, seccomp and limits; refuses where they cannot be made */
    VKM_SANDBOX_UNSAFE_NONE, /* no namespaces: seccomp and limits only. Stamp it into every record.
                              */
} vkm_sandbox_kind;

typedef struct vkm_sandbox_config {
    vkm_sandbox_kind kind;
    const char *bwrap;  /* program name or path */
    const char *python; /* an interpreter's path, not a shim */
    int cpu_time_s;     /* for each job */
    int wall_time_s;    /* for each job, a backstop */
    int memory_mib;     /* address space of each job */
    int jobs_per_box;   /* a box is replaced after so many */
    int uid_base;       /* run as root, box i gives root up for uid and gid uid_base + i */
} vkm_sandbox_config;

/* The default limits let all canonical solutions of the benchmark (at most 3.3 s) pass with a
 * factor of more than two to spare. */
vkm_sandbox_config vkm_sandbox_config_default(void);

typedef enum {
    VKM_JOB_EXITED,     /* code is the exit status */
    VKM_JOB_KILLED,     /* code is the signal */
    VKM_JOB_CPU_LIMIT,  /* used up cpu_time_s */
    VKM_JOB_WALL_LIMIT, /* used up wall_time_s */
    VKM_JOB_INFRA,      /* the box or the host failed, not the job: no verdict follows from it */
} vkm_job_end;

enum { VKM_JOB_MAX_RESULTS = 4 << 20, VKM_JOB_MAX_OUTPUT = 64 << 10 };

typedef struct vkm_job_result {
    vkm_job_end end;
    int code;
    double cpu_s, wall_s;
    vkm_strbuf results; /* frames that the child sent after its own set-up; cut at the maximum */
    vkm_strbuf output;  /* stdout and stderr together, cut likewise; empty unless asked for */
    bool cut;           /* results or output were cut */
    char reason[200];   /* of VKM_JOB_INFRA */
} vkm_job_result;
void vkm_job_result_clear(vkm_job_result *r);

/* A job's payload: fields in order, the first naming the job (see zygote.py). */
void vkm_payload_begin(vkm_strbuf *p);
void vkm_payload_add(vkm_strbuf *p, const void *bytes, size_t n);

typedef struct vkm_box vkm_box;

/* Starts a box and runs a probe job in it. Refuses, with the reason and how to mend it, where the
 * sandbox cannot be made. slot numbers the boxes that are open at the same time. */
vkm_status vkm_box_open(const vkm_sandbox_config *config, int slot, vkm_box **out,
                        vkm_err *err) VKM_MUST_CHECK;
void vkm_box_close(vkm_box *b);

/* Runs one job and waits for it. A box that died or stalled is replaced, at this call or the next.
 */
void vkm_box_run(vkm_box *b, const vkm_strbuf *payload, bool want_output, vkm_job_result *out);

#endif
