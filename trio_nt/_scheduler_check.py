"""Make sure that ``import scheduler`` found ours.

Another distribution on PyPI, ``scheduler``, installs the same top-level name. Importing it in place of ours would fail
later and elsewhere, so it is said here, on import, with the way out.
"""

import importlib.util
from importlib.machinery import ModuleSpec

_OUR_NAME = "open_scheduler"


def check_scheduler() -> None:
    """Raise an ImportError when the name ``scheduler`` is taken by something else.

    Reads the source and runs nothing: the other package may not even import. Its files can also lie over ours, in the
    same folder, so where it is says nothing.
    """
    spec = importlib.util.find_spec("scheduler")
    if spec is None:
        raise ImportError("trio-nt's package 'scheduler' is missing. Way out: pip install --force-reinstall trio-nt")
    if _OUR_NAME not in _source(spec):
        raise ImportError(
            f"trio-nt needs its own package 'scheduler', but Python finds {_owner()} in "
            f"{spec.origin or 'a bare folder'}. "
            "Way out: pip uninstall scheduler, then pip install --force-reinstall trio-nt; "
            "or rename your own module if it is called scheduler."
        )


def _source(spec: ModuleSpec) -> str:
    get_source = getattr(spec.loader, "get_source", None)
    if get_source is None:
        return ""
    # Without source (compiled files only) nothing can be told, and nothing is claimed.
    source = get_source(spec.name)
    return _OUR_NAME if source is None else str(source)


def _owner() -> str:
    """Who else installs the name, as far as the installed distributions say."""
    import importlib.metadata

    others = [name for name in importlib.metadata.packages_distributions().get("scheduler", []) if name != "trio-nt"]
    return f"that of the distribution {', '.join(sorted(set(others)))!r}" if others else "another one"


check_scheduler()
