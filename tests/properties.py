"""How the property tests draw their examples: always the same ones, or new ones to explore with.

``default`` makes a run repeatable: the examples of a test follow from its source alone. No database
of earlier failures is read, and no limit of time can end an example on a busy machine. ``fuzz`` is
for ``make fuzz``: new seeds, a database that keeps what failed, and how to replay it.
"""

from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants

FOLDER = Path(__file__).parents[1] / ".hypothesis"


def use_profiles() -> None:
    """Register both, and load ``default``; pytest's ``--hypothesis-profile`` can replace it."""
    # Both need time limits off: what a slow machine reports is no fault of the code.
    limits_off = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("default", limits_off, derandomize=True, database=None)
    settings.register_profile(
        "fuzz",
        limits_off,
        max_examples=1000,  # where a test names no number of its own
        derandomize=False,
        database=DirectoryBasedExampleDatabase(FOLDER / "examples"),
        print_blob=True,
    )
    settings.load_profile("default")


def current() -> settings:
    """The profile that is loaded."""
    assert settings.default is not None
    return settings.default


def ignore_loaded_modules() -> None:
    """Draw no constants out of the modules that happen to be loaded.

    Hypothesis tries the numbers and strings that it finds in them. Which are loaded depends on the
    tests that ran before, so that with them a derandomized test would not repeat its examples.
    There is no setting for it; test_properties.py fails where this stops working.
    """
    nothing = Constants()
    providers._get_local_constants = lambda: nothing
