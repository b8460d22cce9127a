"""From planned trajectories to checkpoints in the store."""
