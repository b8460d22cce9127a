"""Which points a search goes on with."""

from typing import NamedTuple

import torch

from deltaball.plan.batches import IMAGES_MULTIPLE


class Left(NamedTuple):
    """Some of K × n points, m of each network: a multiple of images, or all. Those that are not meant fill up."""

    rows: torch.Tensor  # [K, m], their indices among K × n
    meant: torch.Tensor  # bool [K, m]

    @classmethod
    def of(cls, left: torch.Tensor) -> "Left | None":
        """Those for which `left` [K, n] holds; None where it does for none."""
        networks, points = left.shape
        most = int(left.sum(1).amax())
        if not most:
            return None
        size = min(points, -(-most // IMAGES_MULTIPLE) * IMAGES_MULTIPLE)
        places = left.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :size]
        rows = torch.arange(networks, device=left.device)[:, None] * points + places
        return cls(rows, left.gather(1, places))

    def taken(self, values: torch.Tensor) -> torch.Tensor:
        """Theirs [K, m, ...] of values [K, n, ...]."""
        return values.flatten(0, 1)[self.rows]

    def put(self, values: torch.Tensor, new: torch.Tensor, where: torch.Tensor | None = None) -> None:
        """Set values [K, n, ...] to theirs [K, m, ...], `where` that holds; of those that fill up never."""
        where = self.meant if where is None else self.meant & where
        kept, rows, new, where = (
            values.view(-1, *values.shape[2:]),
            self.rows.flatten(),
            new.flatten(0, 1),
            where.flatten(),
        )
        if kept.is_cuda:  # the host need not know how many
            kept[rows] = torch.where(where.view(-1, *[1] * (kept.ndim - 1)), new, kept[rows])
        else:
            kept[rows[where]] = new[where]
