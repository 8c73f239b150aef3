#!/usr/bin/env python3
"""Start several processes of a tool: torchrun, with a sentence in place of its tracebacks.

    python tools/launch.py --standalone --nproc-per-node 2 tools/train.py CONFIG --launcher pytorch

The arguments are those of torchrun. When a process fails, the others are ended.
tools/dist_train.sh and tools/compare.py call this program.
"""

import os
import signal
import sys

from command_line import required_imports

with required_imports():
    from torch.distributed import DistNetworkError
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    from nc_plugins.processes import PARENT, end_with_parent


def main(argv=None) -> int:
    args = parse_args(argv)
    end_with_parent()
    os.environ[PARENT] = str(os.getpid())  # the processes end when this program is killed
    try:
        run(args)
    except ChildFailedError as error:
        return report(error)
    except SignalException as error:
        print(f'ended by {signal.Signals(error.sigval).name}', file=sys.stderr)
        return 128 + error.sigval
    except DistNetworkError as error:
        reason = str(error).split('\n')[0]
        print(f'error: check PORT and MASTER_ADDR, no connection: {reason}', file=sys.stderr)
        return 1
    except ValueError as error:  # for example 'Unsupported nproc_per_node value: abc'
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


def report(error: ChildFailedError) -> int:
    """Print which process failed first, and return the exit code."""
    # The others fail in the same second: by the lost connection, or by torchrun's SIGTERM.
    ended = {-signal.SIGTERM, 128 + signal.SIGTERM}
    rank, failure = min(
        error.failures.items(),
        key=lambda item: (item[1].exitcode in ended, item[1].exitcode > 0, item[1].timestamp),
    )
    if failure.exitcode < 0:
        print(
            f'error: process {rank} (pid {failure.pid}) was killed by {failure.signal_name()}, and '
            'the others were ended; --resume continues a training from its last checkpoint',
            file=sys.stderr,
        )
        return 128 - failure.exitcode
    print(
        f'error: process {rank} ended with exit code {failure.exitcode}, and the others were '
        'ended; its message is above',
        file=sys.stderr,
    )
    return failure.exitcode


if __name__ == '__main__':
    sys.exit(main())
