"""What a plan comes to, and what an engine has to do for it. Pure values."""

from dataclasses import dataclass


@dataclass(slots=True)
class PlannedWork:
    """What the planner counted of one model's lines in a job; exact.

    Attributes:
        lines: those that will be run or get another's response.
        distinct_lines: those that are run.
        outputs: what is generated at once: the prompts of the distinct lines, times ``n``.
        prompt_tokens: of all lines.
        distinct_tokens: of the prompts that are run.
        shared_tokens: of those, what need not be computed, as a prompt before begins alike.
        limit_tokens: most output tokens of all lines.
        distinct_limit_tokens: most output tokens of the distinct lines.
        longest: most tokens of one output.
    """

    lines: int = 0
    distinct_lines: int = 0
    outputs: int = 0
    prompt_tokens: int = 0
    distinct_tokens: int = 0
    shared_tokens: int = 0
    limit_tokens: int = 0
    distinct_limit_tokens: int = 0
    longest: int = 0

    @property
    def computed_tokens(self) -> int:
        """Prompt tokens that an engine computes."""
        return self.distinct_tokens - self.shared_tokens


@dataclass(frozen=True, slots=True)
class Work:
    """What an engine does: prompt tokens computed, output tokens generated, steps."""

    prompt_tokens: float
    output_tokens: float
    steps: float

    @property
    def parts(self) -> tuple[float, float, float]:
        """The three amounts."""
        return self.prompt_tokens, self.output_tokens, self.steps


@dataclass(frozen=True, slots=True)
class Room:
    """What an engine takes on at once.

    Attributes:
        outputs: most outputs that are generated at once.
        step_tokens: most tokens of a step.
        cache_tokens: tokens for which the cache has room; ``None`` where that is not known.
    """

    outputs: int
    step_tokens: int
    cache_tokens: int | None = None

    def at_once(self, tokens_each: float) -> float:
        """How many outputs are generated at once, if each takes so many tokens of the cache."""
        if self.cache_tokens is None or tokens_each <= 0:
            return float(self.outputs)
        return max(1.0, min(self.outputs, self.cache_tokens / tokens_each))


def expected_work(
    planned: PlannedWork,
    mean: float,
    longest: float,
    room: Room,
    times: int = 1,
    *,
    longest_first: bool = False,
) -> Work:
    """The work of a plan whose outputs are so long.

    While there are outputs enough, every step generates one token of each that runs; at the end the
    longest one runs on by itself. The prompts of those that run first fill steps of their own, and
    all others find room beside outputs.

    Args:
        mean: tokens of an output, on the average.
        longest: tokens of the longest output.
        times: how many such plans, one after the other, as one.
        longest_first: whether the plan's order, which puts outputs with high limits first, puts the
            long ones first: so it is where limits end them.
    """
    outputs = planned.outputs * times
    prompts, generated = planned.computed_tokens * times, mean * outputs
    if not outputs:
        return Work(0.0, 0.0, 0.0)
    at_once = min(float(outputs), room.at_once(prompts / outputs + mean))
    first = prompts * at_once / outputs
    full = generated / at_once
    steps = max(longest, full) if longest_first else full + max(0.0, longest - mean)
    steps += first / room.step_tokens
    return Work(prompts, generated, max(steps, (prompts + generated) / room.step_tokens))
