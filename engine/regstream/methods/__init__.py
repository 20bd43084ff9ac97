"""One file a method: its options, what it does with each parameter, its statistics and its solve, its memory.

method.py: what every method is asked; tensor_source.py: what a method without statistics reads; task_vectors.py:
differences of a linear's weight from the base; scale.py, ridge.py and teacher.py: options that several methods have;
interference.py: what swudi.py and aswudi.py share. METHODS below registers methods, by their name in a manifest.
"""

from regstream.methods.ace import Ace
from regstream.methods.aswudi import Aswudi
from regstream.methods.average import Average
from regstream.methods.featcal import FeatCal
from regstream.methods.method import Method, MethodOptions
from regstream.methods.regfilter import RegFilter
from regstream.methods.regmean import RegMean
from regstream.methods.regmean_plus_plus import RegMeanPlusPlus
from regstream.methods.swudi import Swudi
from regstream.methods.task_arithmetic import TaskArithmetic
from regstream.methods.ties import Ties

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (Average, TaskArithmetic, Ties, Ace, Swudi, Aswudi, RegMean, RegMeanPlusPlus, RegFilter, FeatCal)
}


def make_method(name: str, options: MethodOptions) -> Method:
    """The method of a name, with its options."""
    return METHODS[name](options)
