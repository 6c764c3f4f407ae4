"""A generation request on its way: its sequences, one for each input, and what becomes of them."""

from __future__ import annotations

import random
import time
from collections.abc import Set
from dataclasses import dataclass, field

from producer.contract.errors import EngineError, InvalidJob

from ..parameters import GenerationParameters
from ..protocol import Outcome, OutputPiece, Request
from .cache_size import CacheSize
from .detokenize import Detokenizer
from .prompt import Prompts
from .sampling import Sampler


@dataclass(slots=True, eq=False)
class Generation:
    """One request. ``sequences`` are those of its inputs that have not ended."""

    request: Request
    parameters: GenerationParameters
    prompts: Prompts
    size: CacheSize
    sequences: list[Sequence] = field(default_factory=list)
    outputs: list[dict[str, str] | None] = field(default_factory=list)
    usage: dict[str, int] = field(default_factory=dict)
    encoded: int = 0
    started_at: float = 0.0
    batch_size: int = 1

    @classmethod
    def of(cls, request: Request, prompts: Prompts, size: CacheSize) -> Generation:
        """A request whose inputs are still to be encoded.

        Raises:
            InvalidJob: naming what is wrong with it.
        """
        parameters = GenerationParameters.parse(request.parameters)
        if not request.inputs:
            raise InvalidJob("input = []: give at least one")
        if parameters.seed is None:  # whoever has to run again draws the same: some of it may have been told
            parameters = parameters.model_copy(update={"seed": random.getrandbits(62)})
        generation = cls(request, parameters, prompts, size, outputs=[None] * len(request.inputs))
        generation.usage = {"input_tokens": 0, "output_tokens": 0}
        return generation

    @property
    def unread(self) -> int:
        """How many of its inputs are still to be encoded. None of it runs before all are, and found to be right."""
        return len(self.outputs) - self.encoded

    def encode(self, count: int) -> None:
        """Encode so many inputs more.

        Raises:
            InvalidJob: naming the input, and what is wrong with it.
        """
        asked = self.parameters.max_new_tokens
        for index, item in enumerate(self.request.inputs[self.encoded : self.encoded + count], self.encoded):
            ids = self.prompts.encode(item, index, asked)
            self.usage["input_tokens"] += len(ids)
            self.sequences.append(Sequence(self, index, ids, self.size.blocks_for(len(ids) + asked)))
            self.encoded += 1

    @property
    def followed(self) -> bool:
        """Whether its text matters token by token: somebody reads along, or a stop string may come."""
        return self.request.stream or bool(self.parameters.stop)

    def outcome(self) -> Outcome:
        """The answer, once all its sequences have ended."""
        ran_s = time.monotonic() - self.started_at
        return Outcome(self.request.id, self.outputs, usage=self.usage, ran_s=ran_s, batch_size=self.batch_size)


@dataclass(slots=True, eq=False)
class Sequence:
    """One input on its way. ``id`` is new for every attempt; ``blocks`` is what it may take of the cache."""

    generation: Generation
    index: int
    token_ids: list[int]
    blocks: int
    id: str = ""
    suspect: bool = False
    """The batch died with it inside: it runs alone the second time, and there is no third."""
    _tokens: int = 0
    _told: str = ""
    _told_tokens: int = 0
    _detokenizer: Detokenizer = field(init=False)

    def begin(self, sequence_id: str) -> Sampler | None:
        """Begin an attempt, with the choice of its tokens, which is the same in each; None for the greedy one."""
        generation = self.generation
        generation.started_at = generation.started_at or time.monotonic()
        self.id, self._tokens = sequence_id, 0
        self._detokenizer = Detokenizer(generation.prompts.tokenizer, generation.parameters.stop)
        return Sampler(generation.parameters, self.index) if generation.parameters.do_sample else None

    def read(self, tokens: list[int], *, ended: bool) -> bool:
        """Take all tokens that this attempt has made so far; True when its text is complete."""
        if ended or self.generation.followed:
            self._detokenizer.add(tokens[self._tokens :])
            self._tokens = len(tokens)
        if ended:
            self._detokenizer.finish()
        return self._detokenizer.complete

    def tell(self) -> OutputPiece | None:
        """The text that is certain and was not told yet, if there is any.

        Raises:
            EngineError: it is another text than was told, now that it had to run again.
        """
        text = self._detokenizer.settled
        if not text.startswith(self._told) and (self._detokenizer.complete or not self._told.startswith(text)):
            raise EngineError(f"input {self.index} became another text when it had to run again")
        if len(text) <= len(self._told):
            return None
        news, tokens = text[len(self._told) :], self._tokens - self._told_tokens
        self._told, self._told_tokens = text, self._tokens
        return OutputPiece(self.generation.request.id, self.index, news, tokens)

    def end(self, last_token: int, eos: Set[int]) -> None:
        """Enter its output, and how it ended: at a stop string or one of the tokens ``eos``, or at its length."""
        generation = self.generation
        reason = "stop" if self._detokenizer.stopped or last_token in eos else "length"
        generation.outputs[self.index] = {"text": self._detokenizer.text, "finish_reason": reason}
        generation.usage["output_tokens"] += self._tokens
        generation.sequences.remove(self)
