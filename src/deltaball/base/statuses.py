"""What became of a network: the values of `status` in networks.parquet, and of a checkpoint's facts."""

TRAINED = "trained"
DIVERGED = "diverged"  # its loss left every bound: it has no weights
STUCK = "stuck"  # a chain that never moves
FAILED = "failed"  # its training or its shard's job raised an error
PLANNED = "planned"  # not trained yet

FINISHED = (TRAINED, DIVERGED, STUCK)  # training again would end in the same
UNFINISHED = (FAILED, PLANNED)
MEASURABLE = (TRAINED, STUCK)  # a chain that does not move is the network it started from
STATUSES = (*FINISHED, *UNFINISHED)
