"""The state of a generation request and of its sequences, one for each input."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Set
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from llguidance import LLMatcher

from producer.contract.errors import EngineError, InvalidJob, StokerError
from producer.contract.message.response_format import Structure
from producer.contract.message.tool_call import call_of, call_text

from ..protocol import Outcome, OutputPiece, Request
from .cache_size import CacheSize
from .chat import ChatOptions
from .choice.generate_parameters import GenerateParameters
from .choice.logits import changes
from .choice.logprobs import Recorder, TokenLogprob
from .choice.rows import TokenChoice
from .choice.sampling import TokenSampler
from .detokenize import Detokenizer
from .grammar.grammars import Grammars
from .grammar.walk import GrammarWalk
from .prompt import Prompts
from .tools.toolbox import Toolbox


@dataclass(slots=True, eq=False)
class Generation:
    """A request. ``sequences`` are its encoded inputs that have not ended."""

    request: Request
    parameters: GenerateParameters
    prompts: Prompts
    size: CacheSize
    ends: Set[int]
    """The tokens that end an answer."""
    grammars: Grammars
    toolbox: Toolbox | None
    grammar: Future[LLMatcher] | None = None
    """The grammar that its answers follow, if any; compiled meanwhile."""
    sequences: list[Sequence] = field(default_factory=list)
    outputs: list[dict[str, Any] | None] = field(default_factory=list)
    usage: dict[str, int] = field(default_factory=dict)
    encoded: int = 0
    started_at: float = 0.0
    batch_size: int = 1

    @classmethod
    def of(cls, request: Request, prompts: Prompts, size: CacheSize, eos: Set[int], grammars: Grammars) -> Generation:
        """Create the state of a request, whose inputs are yet to be encoded; the model ends answers by ``eos``.

        Raises:
            InvalidJob: naming the parameter, or when there is no input.
        """
        parameters = GenerateParameters.parse(request.parameters)
        prompts.check_ids(parameters.token_ids, "parameters")
        if not request.inputs:
            raise InvalidJob("input = []: give at least one")
        if parameters.seed is None:  # fixed, so that a repeated sequence draws the tokens that were streamed before
            parameters = parameters.model_copy(update={"seed": random.getrandbits(62)})
        ends = {*parameters.stop_token_ids} if parameters.ignore_eos else {*eos, *parameters.stop_token_ids}
        toolbox = Toolbox.of(
            parameters.tools, parameters.tool_choice, prompts.chat.form, parallel=parameters.parallel_tool_calls
        )
        structure = (toolbox.structure() if toolbox else None) or Structure.of(parameters.response_format)
        outputs: list[dict[str, Any] | None] = [None] * len(request.inputs)
        generation = cls(request, parameters, prompts, size, ends, grammars, toolbox, outputs=outputs)
        generation.usage = {"input_tokens": 0, "output_tokens": 0}
        if structure is not None:
            generation.grammar = grammars.compile(structure)
        return generation

    @property
    def unread(self) -> int:
        """The number of inputs yet to be encoded. A request runs only once all its inputs are encoded and valid."""
        return len(self.outputs) - self.encoded

    def encode(self, count: int) -> None:
        """Encode the next ``count`` inputs; its grammar must have been compiled.

        Raises:
            InvalidJob: naming the input and the fault, or what is wrong with the grammar.
        """
        if self.grammar is not None:
            self.grammar.result()
        options = ChatOptions(
            tools=self.toolbox.tools if self.toolbox else (),
            arguments=self.parameters.chat_template_kwargs,
            continues=self.parameters.continue_final_message,
            begins_answer=self.parameters.add_generation_prompt,
        )
        for index, item in enumerate(self.request.inputs[self.encoded : self.encoded + count], self.encoded):
            ids = self.prompts.encode(item, index, options)
            most = max(1, self.prompts.answer_tokens(len(ids), index, self.parameters))
            self.usage["input_tokens"] += len(ids)
            echo = self.prompts.text_of(item, ids, index) if self.parameters.echo else ""
            self.sequences.append(Sequence(self, index, ids, most, self.size.blocks_for(len(ids) + most), echo))
            self.encoded += 1

    @property
    def followed(self) -> bool:
        """Whether its tokens are decoded at every step: for streaming, or for stop strings."""
        return self.request.stream or bool(self.parameters.stop)

    def given_up(self, error: StokerError) -> Outcome:
        """The outcome of a request that ends with an error, and what it has used until now."""
        made = self.usage["output_tokens"] + sum(sequence.made for sequence in self.sequences)
        usage = {**self.usage, "output_tokens": made} if self.started_at else {}
        return Outcome(self.request.id, error=error, usage=usage)

    def outcome(self) -> Outcome:
        """The outcome, once all sequences have ended."""
        ran_s = time.monotonic() - self.started_at
        return Outcome(self.request.id, self.outputs, usage=self.usage, ran_s=ran_s, batch_size=self.batch_size)


@dataclass(slots=True, eq=False)
class Sequence:
    """An input that is being generated from. ``id`` is new in every attempt; ``blocks`` is its reservation in the
    cache."""

    generation: Generation
    index: int
    token_ids: list[int]
    max_new_tokens: int
    blocks: int
    echo: str = ""
    """What its output begins with: the text of the prompt, if that is asked for."""
    id: str = ""
    suspect: bool = False
    """Whether a batch died while this sequence ran in it: it then runs alone, and fails if that batch dies, too."""
    made: int = 0
    """Tokens made in this attempt."""
    _tokens: int = 0
    _told: dict[int | None, str] = field(default_factory=dict)
    """What was streamed: of the text, and of each tool call by its number."""
    _told_tokens: int = 0
    _told_logprobs: int = 0
    _call_ids: list[str] = field(default_factory=list)
    _logprobs: list[dict[str, Any]] = field(default_factory=list)
    _recorder: Recorder | None = None
    _walk: GrammarWalk | None = None
    _detokenizer: Detokenizer = field(init=False)

    def begin(self, sequence_id: str) -> TokenChoice | None:
        """Begin an attempt. Returns how its tokens are chosen, the same in every attempt; None for plain greedy
        decoding."""
        generation = self.generation
        generation.started_at = generation.started_at or time.monotonic()
        self.id, self.made, self._tokens = sequence_id, 0, 0
        parameters = generation.parameters
        self._detokenizer = Detokenizer(generation.prompts.tokenizer, parameters.stop)
        sampler = TokenSampler(parameters, self.index) if parameters.do_sample else None
        self._logprobs, self._recorder = [], None
        if parameters.logprobs is not None or parameters.told_of_prompt is not None:
            self._recorder = Recorder(self.token_ids, parameters.logprobs, parameters.told_of_prompt)
        self._walk = generation.grammars.walk(generation.grammar.result()) if generation.grammar else None
        asked = changes(parameters, self.token_ids, sorted(generation.ends))
        choice = TokenChoice(asked, sampler, self._recorder, self._walk)
        return None if choice.is_plain else choice

    def read(self, tokens: list[int], *, ended: bool) -> bool:
        """Read all tokens of the attempt so far; True if the text is complete."""
        if not self.generation.parameters.max_new_tokens:
            tokens = []
        self.made = len(tokens)
        ended = ended or self.is_complete(len(tokens))
        if ended or self.generation.followed:
            least = max(self._tokens, min(len(tokens), self.generation.parameters.min_tokens))
            self._detokenizer.add(tokens[self._tokens : least], may_stop=False)
            self._detokenizer.add(tokens[least:])
            self._tokens = len(tokens)
        if ended:
            self._detokenizer.finish()
        return self._detokenizer.complete

    def is_complete(self, tokens: int) -> bool:
        """Whether its grammar has come to its end within so many tokens."""
        return self._walk is not None and 0 < self._walk.ended_at <= tokens

    @property
    def grammar_error(self) -> str:
        """Why its grammar cannot go on; empty if it can."""
        return "" if self._walk is None else self._walk.error

    def tell(self) -> list[OutputPiece]:
        """The final text that has not been streamed yet, and what is new of tool calls.

        Raises:
            EngineError: when a repeated attempt differs from the text that was streamed.
        """
        pieces: list[OutputPiece] = []
        content, calls = self._take_apart(self._detokenizer.settled)
        for part, text in ((None, self.echo + content), *enumerate(map(call_text, calls))):
            told = self._told.get(part, "")
            if not text.startswith(told) and (self._detokenizer.complete or not told.startswith(text)):
                raise EngineError(f"input {self.index} became another text when it had to run again")
            if len(text) > len(told):
                self._told[part] = text
                pieces.append(self._piece(text[len(told) :], part))
        return pieces

    def _piece(self, text: str, call: int | None) -> OutputPiece:
        """The next piece, which tells of all tokens since the last."""
        tokens, self._told_tokens = self._tokens - self._told_tokens, self._tokens
        logprobs = tuple(self._read_logprobs()[self._told_logprobs :]) if call is None else ()
        self._told_logprobs += len(logprobs)
        return OutputPiece(self.generation.request.id, self.index, text, tokens, call=call, logprobs=logprobs)

    def _take_apart(self, text: str) -> tuple[str, list[dict[str, Any]]]:
        """What is said in a text, and the tool calls in OpenAI's form. Their ids are the same in every attempt."""
        if self.generation.toolbox is None:
            return text, []
        answer = self.generation.toolbox.answer(text, final=self._detokenizer.complete)
        while len(self._call_ids) < len(answer.calls):
            self._call_ids.append(self._call_id(len(self._call_ids)))
        calls = zip(self._call_ids, answer.calls, strict=False)  # an attempt before may have had more
        return answer.content, [call_of(ident, call.name, call.arguments) for ident, call in calls]

    def _call_id(self, number: int) -> str:
        seed = repr((self.generation.parameters.seed, self.index, self.token_ids)).encode()
        return f"call_{hashlib.blake2b(seed, digest_size=12, salt=b'%d' % number).hexdigest()}"

    def end(self, last_token: int) -> None:
        """Store the output. Its ``finish_reason`` is ``stop`` after a stop string or a token that ends the answer, else
        ``length``."""
        generation = self.generation
        complete = self._detokenizer.stopped or self.is_complete(self._tokens)
        ended = complete or (last_token in generation.ends and self._tokens > 0)
        reason = "stop" if ended else "length"
        content, calls = self._take_apart(self._detokenizer.text)
        output: dict[str, Any] = {"text": self.echo + content, "finish_reason": reason}
        if calls:
            output["tool_calls"] = calls
            output["finish_reason"] = "tool_calls" if ended else reason
        if generation.parameters.logprobs is not None:
            output["logprobs"] = self._read_logprobs()
        if self._recorder and generation.parameters.prompt_logprobs is not None:
            output["prompt_logprobs"] = self._as_told(self._recorder.of_prompt, generation.parameters.prompt_logprobs)
        generation.outputs[self.index] = output
        generation.usage["output_tokens"] += self._tokens
        generation.sequences.remove(self)

    def _read_logprobs(self) -> list[dict[str, Any]]:
        """The log probabilities of the text so far, of its prompt's tokens too if it begins with those."""
        asked = self.generation.parameters.logprobs
        if self._recorder is None or asked is None:
            return []
        if self.generation.parameters.echo and not self._logprobs:
            self._logprobs = self._as_told(self._recorder.of_prompt, asked)
        before = len(self.token_ids) if self.generation.parameters.echo else 0
        fresh = self._recorder.answer_tokens[len(self._logprobs) - before : self._tokens]
        self._logprobs += self._as_told(fresh, asked)
        return self._logprobs

    def _as_told(self, measured: list[TokenLogprob], alternatives: int) -> list[dict[str, Any]]:
        vocabulary = self.generation.prompts.vocabulary
        return [each.first(alternatives).told(vocabulary) for each in measured]
