"""Every cluster job re-executes the Snakefile, which imports these rooms: they must not pull in an array library."""

import subprocess
import sys

import pytest

HEAVY = ["torch", "jax", "keras", "numpy", "pandas", "scipy"]


@pytest.mark.parametrize(
    "room",
    [
        "base.draws",
        "base.guarantees",
        "data.catalogue",
        "networks.layers",
        "study.reading",
        "plan.loading",
        "workflow.launch",
        "workflow.parts",
        "workflow.stages",
    ],
)
def test_no_array_library_is_imported(room: str):
    script = f"import sys, deltaball.{room}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_study_is_planned_without_an_array_library():
    script = (
        "import sys; sys.path[:0] = sys.argv[1:]; from builders import grid, planned; "
        "planned(grid(), grid('cnn'), grid('fcn', 'imp')).shards; "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    here = __file__.rpartition("/")[0]
    done = subprocess.run([sys.executable, "-c", script, here], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
