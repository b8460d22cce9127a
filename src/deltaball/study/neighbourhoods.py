"""The balls of a study by the norm that measures them. Light, like the study."""

# The norms that a study may ask, as captions name them. Their geometry is in ``deltaball.local.balls``.
NORMS = {"linf": "L∞", "l2": "L2", "l1": "L1"}
