"""How many examples the properties of the scheduler get: more than others', for it stands under everything else."""

import os

from hypothesis import settings

profile = os.environ.get("HYPOTHESIS_PROFILE", "default")
EXAMPLES = settings(max_examples=1000) if profile == "default" else settings()
