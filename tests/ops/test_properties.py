"""Random convolutions against the truth of properties.py, on every backend for CPU tensors.

`make test` runs few examples, the same ones each time. `make test-slow` runs 9,950 new ones, and
triton_properties.py runs 50 more in Triton's interpreter. hypothesis prints the smallest failing
example that it finds.
"""

import pytest
from hypothesis import HealthCheck, given, settings

from nc_plugins import ops

from .cases import BACKENDS
from .properties import DTYPES, OPERATORS, calls, check

COMMON = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))
EXAMPLES = {'reference': 2000, 'aten': 4000, 'cpu': 3950}
every_backend = pytest.mark.parametrize('backend', ['reference', *BACKENDS])


def test_every_backend_has_examples():
    assert set(EXAMPLES) == {'reference', *BACKENDS}
    assert set(ops.available_backends()) <= {*EXAMPLES, 'triton'}


def property_of(backend: str):
    """A function that checks the backend against examples of the calls it can run."""
    operators = [name for name in OPERATORS if backend != 'cpu' or 'transpose' not in name]

    @given(calls(operators, DTYPES))
    def equals_the_definition(call):
        check(backend, call)

    return equals_the_definition


@every_backend
def test_few_examples(backend):
    settings(COMMON, max_examples=25, derandomize=True)(property_of(backend))()


@pytest.mark.slow
@every_backend
def test_many_examples(backend):
    settings(COMMON, max_examples=EXAMPLES[backend], print_blob=True)(property_of(backend))()
