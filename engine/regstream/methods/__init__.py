"""How candidates become one model: a method a file, all behind one small interface."""

from regstream.manifest.schema import Merge
from regstream.methods.average import Average
from regstream.methods.method import Method
from regstream.methods.regmean import RegMean
from regstream.methods.regmean_plus_plus import RegMeanPlusPlus
from regstream.methods.task_arithmetic import TaskArithmetic


def method_of(merge: Merge) -> Method:
    """The method that a manifest asks for, with its settings."""
    match merge.method:
        case "average":
            return Average()
        case "task_arithmetic":
            return TaskArithmetic(scale=merge.scale)
        case "regmean":
            return RegMean(alpha=merge.alpha)
        case "regmean++":
            return RegMeanPlusPlus(alpha=merge.alpha)
