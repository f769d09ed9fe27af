"""Stand-in for isaaclab.utils."""

import copy
import types


def configclass(cls):
    """Every instance has copies of the class's values, sets what it is told, and then runs `__post_init__`."""

    def __init__(self, **values):
        for base in reversed(type(self).__mro__[:-1]):
            for name, value in vars(base).items():
                if not name.startswith("_") and not isinstance(value, types.FunctionType):
                    setattr(self, name, copy.deepcopy(value))
        for name, value in values.items():
            setattr(self, name, value)
        if hasattr(self, "__post_init__"):
            self.__post_init__()

    cls.__init__ = __init__
    return cls
