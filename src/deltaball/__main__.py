import sys

from deltaball.cli import main

sys.exit(main())
