"""codex-preflight: checkpoints and a verdict before the OpenAI Codex runtime is replaced."""

__version__ = "0.1.0"
