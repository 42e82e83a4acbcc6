#!/usr/bin/env python
"""The project's manage.py: `python almanac/manage.py migrate` from the folder above."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from almanac.__main__ import main

if __name__ == "__main__":
    main()
