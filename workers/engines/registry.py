"""The engines by name. Each is imported on creation only, so that ``echo`` never loads torch."""

from __future__ import annotations

from producer.contract.fleet.fleet_schema import Model

from .protocol import Engine


def create(settings: Model, device: str) -> Engine:
    """Create the engine of a model, for ``device`` (``cpu:N`` or ``cuda:N``), without loading the model.

    Raises:
        ConfigError: when the model's options or the device are not allowed.
    """
    match settings.engine:
        case "embed":
            from .encoders.embed import Embedder
            from .encoders.micro_batches import MicroBatchEngine

            return MicroBatchEngine(settings, Embedder(settings, device))
        case "classify":
            from .encoders.classify import Classifier
            from .encoders.micro_batches import MicroBatchEngine

            return MicroBatchEngine(settings, Classifier(settings, device))
        case "rerank":
            from .encoders.micro_batches import MicroBatchEngine
            from .encoders.rerank import Reranker

            return MicroBatchEngine(settings, Reranker(settings, device))
        case "generate":
            from .generation.generate import GenerateEngine

            return GenerateEngine(settings, device)
        case "openai":
            from .openai.engine import OpenAIEngine

            return OpenAIEngine(settings, device)
        case "echo":
            from .echo import EchoEngine

            return EchoEngine(settings)
