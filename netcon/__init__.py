"""netcon: programs join encrypted ZeroTier virtual networks without root, TUN, namespaces, or changes.

Packages, and who may know whom (`tests/test_imports.py` enforces it)::

    cli -> service -> core, controller, dataplane, lwip
    controller -> core
    core -> dataplane.crypto (the crypto leaf), nothing else of ours
    dataplane, lwip -> include/netcon (C headers); they meet through capsules and do not know each other
"""

__version__ = "0.1.0"
