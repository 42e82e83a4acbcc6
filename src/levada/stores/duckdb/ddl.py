"""
DDL as DuckDB's catalog writes it: what it tells in the text of a statement only.

Collations, the expressions of an index and the names of checks have no column
in the catalog. DuckDB writes every statement anew when it keeps it, so there is
one form of each to read.
"""

from __future__ import annotations

import re

from django.db.models import UniqueConstraint

from .parameters import literal, unquoted

_TOKEN = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|\w+|\s+|.""", re.DOTALL)
_IDENTIFIER = re.compile(r'"(?:[^"]|"")*"|\w+')
_NAMED_CHECK = re.compile(r"CHECK ?\(\(+'((?:[^']|'')*)' IS NULL\) OR ", re.DOTALL)
_WHERE = re.compile(r"\(CASE  WHEN .* THEN \((.*)\) ELSE NULL END\)", re.DOTALL)
_NULLS_EQUAL = re.compile(
    r"""\(?COALESCE\(\('=' \|\| CAST\((.*) AS VARCHAR\)\), ''\)\)?""", re.DOTALL
)


def named_check(name: str, condition: str) -> str:
    """
    Return a CHECK that carries its name in its text, as DuckDB keeps no other.

    The text survives renames and copies of the database, and DuckDB shows it
    when a row breaks the check.
    """
    return f"CHECK (({literal(name)} IS NULL) OR ({condition}))"


def check_name(text: str) -> str | None:
    """Return the name a check carries in its text, None for any other constraint."""
    match = _NAMED_CHECK.search(text)
    return match[1].replace("''", "'") if match else None


def equal_if_null(column: str) -> str:
    """Return an expression for a unique index in which two NULLs of `column` are equal."""
    return f"coalesce('=' || CAST({column} AS VARCHAR), '')"


def only_where(condition: str, expression: str) -> str:
    """Return an expression for a unique index that leaves out the rows without `condition`."""
    return f"(CASE WHEN {condition} THEN {expression} END)"


def covers_expressions(constraint: UniqueConstraint) -> bool:
    """Say whether a unique constraint is an index on expressions, not on columns."""
    return bool(
        constraint.expressions or constraint.condition or constraint.nulls_distinct is False
    )


def listed(sql: str) -> list[str]:
    """Return what the first parentheses of a statement list: columns, expressions, constraints."""
    parts, depth = [""], 0
    for token in _TOKEN.findall(sql):
        depth -= token == ")"
        if depth == 0 and token == ")":
            break
        if depth == 1 and token == ",":
            parts.append("")
        elif depth:
            parts[-1] += token
        depth += token == "("
    return [part.strip() for part in parts]


def collations(create_table: str) -> dict[str, str]:
    """Return the collations of a table's columns by the column's name."""
    found = {}
    for part in listed(create_table):
        tokens = [token for token in _TOKEN.findall(part) if not token.isspace()]
        if "COLLATE" in tokens[1:]:
            name = tokens[tokens.index("COLLATE") + 1 :]
            end = next((n for n, each in enumerate(name) if n % 2 and each != "."), len(name))
            found[unquoted(tokens[0])] = "".join(map(unquoted, name[:end]))
    return found


def uncast(expression: str, data_type: str) -> str:
    """Return a generated column's expression without the casts DuckDB puts around it."""
    parts = listed(expression)
    ending = f" AS {data_type}"
    if len(parts) == 1 and expression == f"CAST({parts[0]})" and parts[0].endswith(ending):
        return uncast(parts[0].removesuffix(ending), data_type)
    return expression


def indexed_column(expression: str) -> str | None:
    """Return the column an index covers by `expression`, None if that computes something."""
    for form in (_WHERE, _NULLS_EQUAL):
        if match := form.fullmatch(expression):
            expression = match[1]
    return unquoted(expression) if _IDENTIFIER.fullmatch(expression) else None


def is_conditional(expression: str) -> bool:
    """Say whether an index leaves out rows by `expression`."""
    return bool(_WHERE.fullmatch(expression))


def mentions(sql: str, column: str) -> bool:
    """Say whether an expression names `column`."""
    return rename_identifier(sql, column, f"{column}?") != sql


def rename_identifier(sql: str, old: str, new: str) -> str:
    """Rename the column `old` in an expression; literals, functions and types keep their names."""
    quoted = '"{}"'.format(new.replace('"', '""'))
    tokens = _TOKEN.findall(sql)
    said = [(number, token) for number, token in enumerate(tokens) if not token.isspace()]
    for place, (number, token) in enumerate(said):
        bare = not token.startswith('"')
        following = said[place + 1][1] if place + 1 < len(said) else ""
        before = said[place - 1][1].upper() if place else ""
        if bare and (following == "(" or before == "AS"):
            continue
        if unquoted(token).lower() == old.lower():
            tokens[number] = quoted
    return "".join(tokens)
