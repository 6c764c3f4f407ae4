"""The contract and the submitting side: what a backend service needs, and nothing that loads a model."""

from .async_client import AsyncClient
from .client import Client
from .contract.errors import (
    BrokerUnavailable,
    ConfigError,
    DeadlineUnreachable,
    InvalidJob,
    JobCancelled,
    JobExpired,
    JobFailed,
    QueueFull,
    ResultTimeout,
    StokerError,
    UnknownModel,
    UnknownTier,
)
from .contract.fleet.settings import Settings
from .contract.message.job import Job, Result, Status
from .stream import Piece

__all__ = [
    "AsyncClient",
    "BrokerUnavailable",
    "Client",
    "ConfigError",
    "DeadlineUnreachable",
    "InvalidJob",
    "Job",
    "JobCancelled",
    "JobExpired",
    "JobFailed",
    "Piece",
    "QueueFull",
    "Result",
    "ResultTimeout",
    "Settings",
    "Status",
    "StokerError",
    "UnknownModel",
    "UnknownTier",
]
