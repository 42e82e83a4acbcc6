"""
Django's own test suite on the DuckDB backend.

    python -m tests.django_suite [APP …]     or: make django-suite APPS="queries lookup"

`source` finds Django's source release, `running` runs its `runtests.py` app by
app with the settings in `inside/`, `results` counts, `report` prints.
"""
