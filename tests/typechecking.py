"""The runtime type checker of the tests: beartype, with ints accepted where floats are annotated (PEP 484)."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
