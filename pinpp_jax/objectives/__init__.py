"""Objectives that training minimises: (model, variables, batch, key) to a loss.

An objective is a frozen dataclass; called, it returns
`(loss, (batch_stats, metrics))`: a float32 scalar, the new running statistics
and a dict of float32 scalars. Sums run over the whole batch, which under
`jax.jit` with a sharded batch is the global batch.
"""

from pinpp_jax.objectives import classify, parts, segment

OBJECTIVES = {
  'classify': classify.Classify,
  'parts': parts.Parts,
  'segment': segment.Segment,
}
