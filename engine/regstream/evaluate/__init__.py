"""What became of a merge: held-out scores and distances of the result, of what went into it, and of the plain mean."""

from regstream.evaluate.bias import Bias, representation_bias
from regstream.evaluate.evaluation import Evaluation, EvaluationRow, evaluate

__all__ = ["Bias", "Evaluation", "EvaluationRow", "evaluate", "representation_bias"]
