"""The requests of one line: one for each of its prompts, and one for those that are equal."""

from dataclasses import dataclass, field

from engine.requests import Completion
from storage.jobs.chunks import Counts
from worker.plan.plan_file import PlanFile
from worker.plan.rows import request_places


@dataclass(slots=True)
class LineRequests:
    """What is asked of the engine for the leader at a plan position, and what has come.

    Attributes:
        places: for each prompt, the place of the one whose outputs it gets.
        waiting: the places of requests that have no completion yet.
        counts: of the completions that came, for one line.
        failed: whether a request has no outputs that the line could be answered with.
        failed_place: of the first prompt that could not be run.
    """

    places: tuple[int, ...]
    waiting: set[int]
    counts: Counts = field(default_factory=Counts)
    failed: bool = False
    failed_place: int | None = None

    @classmethod
    def of(cls, plan: PlanFile, position: int) -> "LineRequests":
        """Those of the leader at a plan position."""
        if plan.num_prompts(position) == 1:
            return cls((0,), {0})
        distinct = plan.params(position).deterministic
        prompts, texts = plan.prompts(position), plan.texts(position)
        places = request_places(prompts, texts, distinct=distinct)
        return cls(places, set(places))

    def take(self, place: int, completion: Completion) -> None:
        """Count a completion once for each prompt that gets its outputs.

        For equal prompts but the first the whole prompt counts as cached.
        """
        times = self.places.count(place)
        prompt = len(completion.prompt_token_ids)
        counts = self.counts
        self.counts = Counts(
            prompt_tokens=counts.prompt_tokens + prompt * times,
            cached_tokens=counts.cached_tokens + completion.cached_tokens + prompt * (times - 1),
            completion_tokens=counts.completion_tokens + completion.completion_tokens * times,
            generated_tokens=counts.generated_tokens + completion.completion_tokens,
        )
