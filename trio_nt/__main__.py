"""``python -m trio_nt`` is ``trio-nt``."""

from trio_nt.cli import main

raise SystemExit(main())
