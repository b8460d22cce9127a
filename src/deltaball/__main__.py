import sys

from deltaball.cli.main import main

sys.exit(main())
