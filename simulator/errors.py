"""What can go wrong in the simulator.

SimulatorError
├── OptionError      what was asked for does not exist or contradicts itself
└── ServerError      an OPC UA server could not start
"""


class SimulatorError(Exception):
    """The base of all errors of the simulated factory; the text is for people."""


class OptionError(SimulatorError):
    """What was asked for does not exist or contradicts itself."""


class ServerError(SimulatorError):
    """An OPC UA server could not start, or was asked for while away."""
