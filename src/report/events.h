/* TensorBoard event files: records of a step's numbers, appended to one file in the run's folder.
 * A file is a chain of records (u64 length, masked CRC-32C of it, bytes, masked CRC-32C of them:
 * TensorFlow's record_writer.h); a record is an Event message of tensorflow/core/util/event.proto,
 * written by hand since four of its fields are used. */
#ifndef VKM_EVENTS_H
#define VKM_EVENTS_H

#include "base/strbuf.h"

#include <stddef.h>
#include <stdint.h>

#define VKM_EVENTS_FILE "events.out.tfevents.0000000000.vkmoe"

/* Begins the file (resume_step < 0), or cuts it behind the last whole record of a step <=
 * resume_step; a resumed run without a file gets one. */
vkm_status vkm_events_open(const char *dir, int64_t resume_step, vkm_err *err) VKM_MUST_CHECK;

/* What one record holds: values are added, then it is appended in one write. */
typedef struct vkm_event {
    uint32_t step;
    vkm_strbuf summary;
} vkm_event; /* begin with {.step = N} */
/* A value that is not finite is left out: a chart has a gap there. */
void vkm_event_scalar(vkm_event *e, const char *tag, double value);
/* n finite values in 30 equal bins over [0, 1]; what lies outside is counted in the outer bins.
 * Nothing is added for n = 0. */
void vkm_event_histogram(vkm_event *e, const char *tag, const double *x, size_t n);
/* Appends the record (unless it is empty) and frees the event, also on failure. */
vkm_status vkm_event_append(vkm_event *e, const char *dir, vkm_err *err) VKM_MUST_CHECK;

/* CRC-32C (Castagnoli, RFC 3720) as the records have it: rotated right by 15 and offset. */
uint32_t vkm_events_crc(const void *bytes, size_t n);

#endif
