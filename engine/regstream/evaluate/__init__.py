"""Held-out loss of a merge, of what went into it, and of the plain mean, streamed like the merge itself."""

from regstream.evaluate.evaluation import Evaluation, EvaluationRow, evaluate

__all__ = ["Evaluation", "EvaluationRow", "evaluate"]
