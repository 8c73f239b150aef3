"""Random convolutions on the Triton backend. test_triton.py runs this file; see triton_cases.py.

Few examples, because the interpreter takes about a tenth of a second for one.
"""

from hypothesis import HealthCheck, given, settings

from .properties import DTYPES, calls, check
from .triton_cases import DEVICE, full_precision, round_as_a_gpu  # noqa: F401


@settings(
    max_examples=30,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
@given(calls(['nc_conv2d'], DTYPES[1:]))
def test_equals_the_definition(call):
    check('triton', call, DEVICE)
