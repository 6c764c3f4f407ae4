"""The service model: how long a request takes on a device, as a few stated figures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServiceModel:
    """One model on one type of device. All times in seconds.

    A *continuous* engine (``batches`` false) lets sequences join and leave a running batch. While ``n`` run, each gets
    its next token every ``step_s + n * sequence_s``; a prompt of ``p`` tokens stops the others for
    ``p * prompt_token_s``, as a prefill that is not cut into pieces does. This is processor sharing with a price per
    sequence: the fit that vLLM-like engines get in Splitwise (Patel et al., ISCA 2024) and DistServe (OSDI 2024).

    An engine that *batches* (encoders) takes what is there, at most its concurrency, and has
    ``step_s + n * sequence_s + prompts * prompt_token_s`` for the whole.
    """

    step_s: float
    sequence_s: float
    prompt_token_s: float = 0.0
    batches: bool = False
    load_s: float = 0.0
    """From the start of the process until it serves, the median."""
    load_sigma: float = 0.0
    """Spread of the load time: standard deviation of its logarithm; 0 for always the same."""

    def device_s(self, input_tokens: int, output_tokens: int, concurrency: int) -> float:
        """Device time of one request in a full batch: what it costs a fleet that is busy."""
        prompt = input_tokens * self.prompt_token_s
        steps = 1 if self.batches else output_tokens
        return prompt + steps * (self.step_s / concurrency + self.sequence_s)

    def faster(self, speed: float) -> ServiceModel:
        """The same on a device that computes ``speed`` times as fast; loading is bound by the disk."""
        return ServiceModel(
            self.step_s / speed,
            self.sequence_s / speed,
            self.prompt_token_s / speed,
            self.batches,
            self.load_s,
            self.load_sigma,
        )
