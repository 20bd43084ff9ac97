"""One file a method: its options, what it does with each parameter, its statistics and its solve, its memory.

method.py: what every method is asked. METHODS below registers them, by the name they have in a manifest.
search_space.py: which values of a method's options are tried.
"""

from typing import Final

from regstream.methods.average import Average
from regstream.methods.method import Method, MethodOptions
from regstream.methods.regmean import RegMean
from regstream.methods.regmean_plus_plus import RegMeanPlusPlus
from regstream.methods.task_arithmetic import TaskArithmetic

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (Average, TaskArithmetic, RegMean, RegMeanPlusPlus)
}
#: Where a manifest names this method, a run finds the settings of `AUTO_METHOD` itself.
AUTO: Final = "auto"
AUTO_METHOD: type[Method] = RegMeanPlusPlus


def find_method(name: object) -> type[Method] | None:
    """The method of a name in a manifest, which may be `AUTO`; None if there is none."""
    return AUTO_METHOD if name == AUTO else METHODS.get(str(name))


def make_method(name: str, options: MethodOptions) -> Method:
    """The method of a name, with its options."""
    method = find_method(name)
    assert method is not None  # names are validated with the manifest
    return method(options)
