"""The comparison stands in a module of its own; its assertions are to explain themselves all the same."""

import pytest

pytest.register_assert_rewrite("crash_rig")
