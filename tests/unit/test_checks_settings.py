"""The settings have one table, and its page in the docs is that table."""

from pathlib import Path

from levada import conf

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_of_settings_is_the_table_in_the_code():
    page = PAGE.read_text()
    assert conf.as_markdown() in page, f"docs/settings.md should hold:\n\n{conf.as_markdown()}"


def test_every_setting_has_one_line_of_help():
    for setting in conf.SETTINGS.values():
        assert setting.help.endswith("."), setting.name
        assert "\n" not in setting.help


def test_changing_the_source_between_reads_needs_no_restart(settings):
    settings.LEVADA = {"BATCH_ROWS": 7}
    assert conf.settings.BATCH_ROWS == 7
    settings.LEVADA = {}
    assert conf.settings.BATCH_ROWS == 20_000
