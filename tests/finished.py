"""What a study says of its networks once all of its jobs are done, one after the other in this process."""

import pandas as pd

from deltaball.estimation import estimates
from deltaball.plan.plan import Plan
from deltaball.run import devices, work
from deltaball.store.store import Store
from deltaball.tables import frames, parts
from deltaball.workflow import jobs


def done(plan: Plan) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Rows of networks, of estimates and of outcomes, in the plan's order."""
    found = []
    for shard in plan.shards.values():
        for stage, do in (("train", work.train), ("measure", work.measure)):
            with jobs.recorded(plan, stage, shard) as job, devices.ready(job):
                do(job, tries_left=0)
        found.append(parts.read(plan, shard, "trained"))
    return frames.networks(plan, found), *estimates.estimates(plan, plan.trajectories.values(), Store(plan.study.store))
