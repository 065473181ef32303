"""What happened and who produced it: samples, batches, advantages, storage. Knows no model."""

from typing import TYPE_CHECKING

from klimb.doors import open_lazily

if TYPE_CHECKING:
    from klimb.experience.advantages import (
        ADVANTAGES,
        NEEDS_BATCH,
        NEEDS_GROUPS,
        batch_z_score,
        compute_advantages,
        group_mean,
        group_mean_batch_z_score,
        group_z_score,
        leave_one_out,
        no_baseline,
        zero,
    )
    from klimb.experience.atomic import flush_to_disk, give_usual_mode, replace_atomically
    from klimb.experience.batches import Batch, collate
    from klimb.experience.feedback import Feedback
    from klimb.experience.samples import (
        FinishReason,
        Message,
        Provenance,
        Sample,
        SamplingSettings,
        Source,
        ToolCall,
        Turn,
    )
    from klimb.experience.segments import SegmentError, read_samples, stream_samples, write_samples
    from klimb.experience.store import AppendResult, Store, open_store
    from klimb.experience.token_rewards import (
        explained_variance,
        generalised_advantages,
        rewards_to_go,
        token_rewards,
        whitened,
    )

__all__ = [
    "ADVANTAGES",
    "NEEDS_BATCH",
    "NEEDS_GROUPS",
    "AppendResult",
    "Batch",
    "Feedback",
    "FinishReason",
    "Message",
    "Provenance",
    "Sample",
    "SamplingSettings",
    "SegmentError",
    "Source",
    "Store",
    "ToolCall",
    "Turn",
    "batch_z_score",
    "collate",
    "compute_advantages",
    "explained_variance",
    "flush_to_disk",
    "generalised_advantages",
    "give_usual_mode",
    "group_mean",
    "group_mean_batch_z_score",
    "group_z_score",
    "leave_one_out",
    "no_baseline",
    "open_store",
    "read_samples",
    "replace_atomically",
    "rewards_to_go",
    "stream_samples",
    "token_rewards",
    "whitened",
    "write_samples",
    "zero",
]

open_lazily(__name__)
