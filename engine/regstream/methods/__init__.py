"""One file a method: its options, what it does with each parameter, its statistics and its solve, its memory.

method.py: what every method is asked; stream.py: the forward passes that one observes; statistics.py: what it sums;
tensor_source.py: what a method without statistics reads; tensor_reads.py: how often; task_vectors.py: differences of a
linear's weight from the base; scale.py, density.py, ridge.py and teacher.py: options that several methods have;
sign_election.py: what ties.py and dare_ties.py share; dare.py: what dare_linear.py and dare_ties.py share;
random_masks.py: masks that follow from keys and positions; interference.py: what swudi.py and aswudi.py share;
regression.py: what methods share that solve regressions; base_prior.py, prior_model.py: the base and any checkpoint as
priors of regfilter, which are no methods of a manifest; search_space.py: which values of options are tried;
by_block.py: numbers that vary from block to block. METHODS below registers methods, by their name in a manifest.
"""

from typing import Final

from regstream.methods.ace import Ace
from regstream.methods.aswudi import Aswudi
from regstream.methods.average import Average
from regstream.methods.by_block import options_at
from regstream.methods.dare_linear import DareLinear
from regstream.methods.dare_ties import DareTies
from regstream.methods.featcal import FeatCal
from regstream.methods.method import Method, MethodOptions
from regstream.methods.model_stock import ModelStock
from regstream.methods.regfilter import RegFilter
from regstream.methods.regmean import RegMean
from regstream.methods.regmean_plus_plus import RegMeanPlusPlus
from regstream.methods.slerp import Slerp
from regstream.methods.swudi import Swudi
from regstream.methods.task_arithmetic import TaskArithmetic
from regstream.methods.ties import Ties

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        Average,
        Slerp,
        TaskArithmetic,
        Ties,
        DareLinear,
        DareTies,
        ModelStock,
        Ace,
        Swudi,
        Aswudi,
        RegMean,
        RegMeanPlusPlus,
        RegFilter,
        FeatCal,
    )
}
#: Where a manifest names this method, a run finds the settings of `AUTO_METHOD` itself.
AUTO: Final = "auto"
AUTO_METHOD: type[Method] = RegMeanPlusPlus


def find_method(name: object) -> type[Method] | None:
    """The method of a name in a manifest, which may be `AUTO`; None if there is none."""
    return AUTO_METHOD if name == AUTO else METHODS.get(str(name))


def make_method(name: str, options: MethodOptions) -> Method:
    """The method of a name, with its options; of numbers that vary from block to block, with the first ones."""
    method = find_method(name)
    assert method is not None  # names are validated with the manifest
    return method(options_at(options, method.Options))
