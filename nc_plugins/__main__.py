"""``python -m nc_plugins`` is the command ``nc``, also where ``nc`` is netcat."""

import sys

from nc_cli import main

if __name__ == '__main__':
    sys.exit(main())
