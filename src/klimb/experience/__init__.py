"""What happened and who produced it: samples, batches, advantages, storage. Knows no model."""

from klimb.experience.advantages import (
    ADVANTAGES,
    NEEDS_GROUPS,
    batch_z_score,
    group_mean,
    group_mean_batch_z_score,
    group_z_score,
    leave_one_out,
    no_baseline,
    zero,
)
from klimb.experience.atomic import flush_to_disk, replaced_atomically
from klimb.experience.batches import Batch, collate
from klimb.experience.samples import FinishReason, Message, Provenance, Sample, SamplingSettings, Source
from klimb.experience.segments import SegmentError, read_samples, write_samples

__all__ = [
    "ADVANTAGES",
    "NEEDS_GROUPS",
    "Batch",
    "FinishReason",
    "Message",
    "Provenance",
    "Sample",
    "SamplingSettings",
    "SegmentError",
    "Source",
    "batch_z_score",
    "collate",
    "flush_to_disk",
    "group_mean",
    "group_mean_batch_z_score",
    "group_z_score",
    "leave_one_out",
    "no_baseline",
    "read_samples",
    "replaced_atomically",
    "write_samples",
    "zero",
]
