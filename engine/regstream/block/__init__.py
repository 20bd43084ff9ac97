"""One real block inside a model that is otherwise empty."""

from regstream.block.model import LayeredModel
from regstream.block.observe import observe

__all__ = ["LayeredModel", "observe"]
