"""What the commands print, as tests compare it."""


def without_long_steps(errors: str) -> str:
    """What was said on the error stream, but for warnings of steps that a busy machine made long."""
    lines = errors.splitlines(keepends=True)
    return "".join(line for line in lines if "without a checkpoint" not in line and "over the budget" not in line)


def is_broken(report: str) -> bool:
    """Whether a check of a run's report failed, but for what says that this machine was too busy to read the market."""
    broken = [line for line in report.splitlines() if line.strip().startswith("BROKEN")]
    excused = ("read too slowly", "sent by the venue") if "read too slowly" in report else ()
    return any(not any(words in line for words in excused) for line in broken)
