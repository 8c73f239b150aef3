"""Random convolutions on the Triton backend. test_triton.py runs this file; see triton_cases.py.

Few examples, because the interpreter takes a second for one.
"""

from hypothesis import HealthCheck, assume, given, settings

from .properties import DTYPES, calls, check
from .triton_cases import DEVICE, full_precision, round_as_a_gpu  # noqa: F401


@settings(
    max_examples=50,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
@given(calls(['nc_conv2d'], DTYPES[1:], small=True))
def test_random_convolutions(call):
    # oneDNN of torch 2.11 writes beyond the gradient of a channels_last 1x1 kernel with a stride.
    assume(DEVICE == 'cuda' or max(call.kernel) > 1 or max(call.stride) == 1)
    check('triton', call, DEVICE)
