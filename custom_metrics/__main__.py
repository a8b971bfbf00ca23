"""`python -m custom_metrics`: execution accuracy on the command line."""

import sys

if __name__ == "__main__":
    try:
        # Inside, because the libraries take most of the first second, in which one may also press Ctrl-C.
        from custom_metrics.cli import main

        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
