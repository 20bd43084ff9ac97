"""One real block inside a model that is otherwise empty."""

from regstream.block.empty import empty_model
from regstream.block.model import LayeredModel
from regstream.block.observe import observe

__all__ = ["LayeredModel", "empty_model", "observe"]
