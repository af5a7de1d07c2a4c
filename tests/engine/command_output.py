"""What the commands print, as tests compare it."""


def without_long_steps(errors: str) -> str:
    """What was said on the error stream, but for warnings of steps that a busy machine made long."""
    lines = errors.splitlines(keepends=True)
    return "".join(line for line in lines if "without a checkpoint" not in line and "over the budget" not in line)
