"""Generate the catalogue of MLflow's database schema from a real MLflow.

    PYTHON generate.py --postgres-bin DIR > catalogue.jsonl
    PYTHON generate.py --refresh-releases

PYTHON is the interpreter of an environment that holds MLflow with SQLAlchemy, alembic and psycopg2. The first form
lets MLflow's own migrations build its schema on a private PostgreSQL server and on SQLite, one revision at a time, and
describes what stands there after each. The second form rewrites `releases.json`, which tells the releases of MLflow
by the revision they end at; it reads MLflow's packages, which it fetches with pip.

The catalogue is one JSON object a line: a header, the table definitions (each distinct one once, numbered in the
order in which history brings them), then one line a revision that lists its tables by these numbers. A definition
holds what is needed to build the table such that `pg_dump --schema-only` cannot tell it from MLflow's own.
"""

import argparse
import contextlib
import json
import os
import pwd
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import types
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

TRACKING_MIGRATIONS = ("mlflow/store/db_migrations/", "mlflow/alembic/")  # the second in 1.0.0 only
AUTH_MIGRATIONS = "mlflow/server/auth/db/migrations/"
RELEASES = Path(__file__).with_name("releases.json")
FORMAT = 1

LOGICAL_TYPES = {
    "integer": "int4",
    "bigint": "int8",
    "double precision": "float",
    "boolean": "bool",
    "character varying": "text",
    "text": "text",
    "json": "json",
    "bytea": "bytes",
    "date": "date",
}
REFERENTIAL_ACTIONS = {"a": None, "r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}
INDEX_ORDERS = {0: "", 1: " DESC NULLS LAST", 2: " NULLS FIRST", 3: " DESC"}


# --- MLflow's two migration histories -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One of MLflow's migration histories: that of the tracking store or that of basic-auth."""

    name: str
    version_table: str
    config: Callable[[str], object]
    create_initial_tables: Callable[[object], None]


def lines() -> list[Line]:
    """Both lines of the installed MLflow."""
    import mlflow

    # The packages above basic-auth's migrations start a whole server on import: have them hold their folder only.
    for package in ("server", "server/auth"):
        module = types.ModuleType(f"mlflow.{package.replace('/', '.')}")
        module.__path__ = [str(Path(mlflow.__file__).parent / package)]
        sys.modules[module.__name__] = module
    import mlflow.server.auth.db.utils as auth
    import mlflow.store.db.utils as tracking
    from mlflow.store.tracking.dbmodels.initial_models import Base

    keep_order_of_constraints()
    return [
        Line("tracking", "alembic_version", tracking._get_alembic_config, Base.metadata.create_all),
        Line("auth", "alembic_version_auth", auth._get_alembic_config, lambda engine: None),
    ]


def keep_order_of_constraints() -> None:
    """Have alembic keep the order of a table's constraints where it copies the table, as it does on SQLite.

    It walks a set of objects there, so that MLflow's own DDL differs in that order from run to run.
    """
    from alembic.operations.batch import ApplyBatchImpl
    from sqlalchemy.util import OrderedSet

    grab_elements = ApplyBatchImpl._grab_table_elements

    def grab_in_order(batch):
        batch.table.constraints = OrderedSet(sorted(batch.table.constraints, key=lambda c: c._creation_order))
        grab_elements(batch)

    ApplyBatchImpl._grab_table_elements = grab_in_order


def build_step_by_step(line: Line, engine) -> Iterator:
    """Build the schema of `line` in the empty database of `engine`, yielding each revision once it stands."""
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    line.create_initial_tables(engine)
    config = line.config(engine.url.render_as_string(hide_password=False))
    script = ScriptDirectory.from_config(config)
    for revision in reversed(list(script.walk_revisions())):
        # What alembic's `command.upgrade` does, but with the scripts loaded once.
        def steps(current, _context, target=revision.revision):
            return script._upgrade_revs(target, current)

        with engine.begin() as connection:
            config.attributes["connection"] = connection
            with EnvironmentContext(config, script, fn=steps, destination_rev=revision.revision):
                script.run_env()
        yield revision


# --- A private PostgreSQL -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def private_postgres(programs: Path) -> Iterator[dict]:
    """A PostgreSQL server of our own on a Unix socket, gone with its data afterwards; yields how to connect to it."""
    account = {}
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")  # PostgreSQL refuses to run as root
        account = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    with tempfile.TemporaryDirectory(prefix="mlflow-catalogue-", ignore_cleanup_errors=True) as folder:
        if account:
            os.chown(folder, account["user"], account["group"])
        data = os.path.join(folder, "data")
        common = {"cwd": folder, "stdout": subprocess.DEVNULL, **account}
        initdb = ["-D", data, "-U", "mlflow", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run([programs / "initdb", *initdb], check=True, **common)
        settings = {"listen_addresses": "", "unix_socket_directories": folder, "fsync": "off"}
        options = [option for key, value in settings.items() for option in ("-c", f"{key}={value}")]
        server = subprocess.Popen([programs / "postgres", "-D", data, *options], stderr=subprocess.DEVNULL, **common)
        try:
            where = {"host": folder, "port": 5432, "user": "mlflow"}
            wait_for_postgres(server, where)
            yield where
        finally:
            server.send_signal(signal.SIGINT)  # ends without waiting for its clients
            server.wait()


def wait_for_postgres(server: subprocess.Popen, where: dict) -> None:
    """Return once the server takes connections; raise if it ends or takes more than a minute."""
    import psycopg2

    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg2.connect(dbname="postgres", **where).close()
            return
        except psycopg2.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@contextlib.contextmanager
def scratch_database(where: dict, name: str) -> Iterator:
    """An SQLAlchemy engine on a new database of the server at `where`, which is dropped at the end."""
    import psycopg2
    import sqlalchemy

    def administer(statement: str) -> None:
        connection = psycopg2.connect(dbname="postgres", **where)
        connection.autocommit = True
        connection.cursor().execute(statement)
        connection.close()

    administer(f'CREATE DATABASE "{name}" TEMPLATE template0')
    query = {"host": where["host"], "port": str(where["port"])}
    url = sqlalchemy.URL.create("postgresql+psycopg2", username=where["user"], database=name, query=query)
    engine = sqlalchemy.create_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()
        administer(f'DROP DATABASE "{name}"')


@contextlib.contextmanager
def scratch_sqlite() -> Iterator:
    """An SQLAlchemy engine on a new SQLite file, which is removed at the end."""
    import sqlalchemy

    with tempfile.TemporaryDirectory(prefix="mlflow-catalogue-") as folder:
        engine = sqlalchemy.create_engine(f"sqlite:///{folder}/mlflow.db")
        try:
            yield engine
        finally:
            engine.dispose()


# --- CHECK constraints: their source --------------------------------------------------------------------------------


class CheckSources:
    """The CHECK expressions that MLflow wrote.

    PostgreSQL prints a CHECK in a form that it prints differently again once that form is executed, so the catalogue
    keeps what MLflow sent. Each candidate is tried on a copy of the table: the one taken is proven to give what stands.
    """

    def __init__(self):
        from sqlalchemy import Engine, event

        self._expressions: list[str] = []
        self._proven: dict[tuple[str, str, str], str] = {}
        event.listen(Engine, "before_cursor_execute", self._hear)

    def _hear(self, connection, _cursor, statement, _parameters, _context, _many):
        if connection.dialect.name == "postgresql" and re.match(r"\s*(CREATE|ALTER) TABLE", statement):
            for found in re.finditer(r"\bCHECK\s*(?=\()", statement):
                expression = statement[found.end() + 1 : closing_parenthesis(statement, found.end())]
                if expression not in self._expressions:
                    self._expressions.append(expression)

    def expression(self, cursor, table: str, definition: str) -> str:
        """The expression that makes PostgreSQL print `definition` for a CHECK on `table`."""
        key = (table, definition)
        if key not in self._proven:
            own = definition[definition.index("(") + 1 : closing_parenthesis(definition, definition.index("("))]
            candidates = [*self._expressions, own]
            self._proven[key] = next(e for e in candidates if self._gives(cursor, table, e, definition))
        return self._proven[key]

    @staticmethod
    def _gives(cursor, table: str, expression: str, definition: str) -> bool:
        import psycopg2

        cursor.execute("SAVEPOINT probe")
        try:
            cursor.execute(f'CREATE TEMP TABLE probe (LIKE public."{table}")')
            cursor.execute(f"ALTER TABLE probe ADD CONSTRAINT probe CHECK ({expression})")
            cursor.execute("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'probe'")
            return cursor.fetchone()[0] == definition
        except psycopg2.errors.UndefinedColumn:
            return False
        finally:
            cursor.execute("ROLLBACK TO SAVEPOINT probe")


def closing_parenthesis(text: str, opening: int) -> int:
    """The place of the parenthesis that closes the one at `opening`, quoted text skipped."""
    depth = 0
    for token in re.finditer(r"'[^']*'|\"[^\"]*\"|[()]", text[opening:]):
        depth += {"(": 1, ")": -1}.get(token.group(), 0)
        if depth == 0:
            return opening + token.start()
    raise ValueError(f"unbalanced parentheses: {text}")


def without_parentheses(expression: str) -> str:
    """The expression without parentheses around the whole of it."""
    while expression.startswith("(") and closing_parenthesis(expression, 0) == len(expression) - 1:
        expression = expression[1:-1]
    return expression


# --- Reading PostgreSQL ---------------------------------------------------------------------------------------------

COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated,
       pg_get_expr(d.adbin, d.adrelid), pg_get_serial_sequence(quote_ident(c.relname), a.attname),
       a.attcollation = t.typcollation, c.oid, a.attnum
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
ORDER BY c.relname COLLATE "C", a.attnum
"""

CONSTRAINTS = """
SELECT r.relname, k.contype, k.conname, names(k.conrelid, k.conkey), f.relname, names(k.confrelid, k.confkey),
       k.confdeltype, k.confupdtype, pg_get_constraintdef(k.oid),
       NOT k.condeferrable AND k.convalidated AND k.confmatchtype IN ('s', ' ')
         AND (k.contype <> 'c' OR NOT k.connoinherit)
FROM pg_constraint k
JOIN pg_class r ON r.oid = k.conrelid
LEFT JOIN pg_class f ON f.oid = k.confrelid
WHERE k.connamespace = 'public'::regnamespace AND k.contype IN ('p', 'u', 'f', 'c')
ORDER BY r.relname COLLATE "C", k.conname COLLATE "C"
"""

INDEXES = """
SELECT t.relname, c.relname, i.indisunique, m.amname,
       ARRAY(SELECT pg_get_indexdef(i.indexrelid, n, false) FROM generate_series(1, i.indnkeyatts) n ORDER BY n),
       i.indoption::int2[]::int4[],
       ARRAY(SELECT pg_get_indexdef(i.indexrelid, n, false)
             FROM generate_series(i.indnkeyatts + 1, i.indnatts) n ORDER BY n),
       pg_get_expr(i.indpred, i.indrelid), pg_get_indexdef(i.indexrelid)
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_class t ON t.oid = i.indrelid
JOIN pg_am m ON m.oid = c.relam
WHERE c.relnamespace = 'public'::regnamespace
  AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u'))
ORDER BY t.relname COLLATE "C", c.relname COLLATE "C"
"""

TRIGGERS = """
SELECT c.relname, t.tgname, pg_get_triggerdef(t.oid), pg_get_functiondef(t.tgfoid)
FROM pg_trigger t
JOIN pg_class c ON c.oid = t.tgrelid
WHERE c.relnamespace = 'public'::regnamespace AND NOT t.tgisinternal
ORDER BY c.relname COLLATE "C", t.tgname COLLATE "C"
"""

COLUMN_NAMES = """
CREATE FUNCTION pg_temp.names(relation oid, numbers int2[]) RETURNS text[] LANGUAGE sql AS $$
    SELECT array_agg(a.attname::text ORDER BY n.place)
    FROM unnest(numbers) WITH ORDINALITY n(number, place)
    JOIN pg_attribute a ON a.attrelid = relation AND a.attnum = n.number
$$
"""


class NotNullNames:
    """The names that PostgreSQL 18 gives to NOT NULL constraints.

    It makes them from the names of table and column and keeps them when one of these is renamed. Older servers take
    such a name and forget it, so it is told from the name that the column bore when it was first seen NOT NULL.
    """

    def __init__(self):
        self._names: dict[tuple[int, int], str] = {}

    def other_than_usual(self, place: tuple[int, int], table: str, column: str, not_null: bool) -> str | None:
        """The name where it is not the one that the column would get today."""
        usual = f"{table}_{column}_not_null"
        if not not_null:
            self._names.pop(place, None)
            return None
        name = self._names.setdefault(place, usual)
        return name if name != usual else None


def postgres_tables(engine, checks: CheckSources, not_nulls: NotNullNames) -> dict[str, dict]:
    """Every table of the database, by name: its columns and its `postgres` part."""
    connection = engine.raw_connection()
    try:
        with connection.cursor() as cursor:
            cursor.execute(COLUMN_NAMES)
            return read_postgres(cursor, checks, not_nulls)
    finally:
        connection.rollback()
        connection.close()


def read_postgres(cursor, checks: CheckSources, not_nulls: NotNullNames) -> dict[str, dict]:
    """`postgres_tables` on an open cursor that has the function `names`."""

    def rows(query: str) -> list[tuple]:
        cursor.execute(query)
        return cursor.fetchall()

    tables: dict[str, dict] = {}
    for table, name, type_, not_null, identity, generated, default, sequence, plain, *place in rows(COLUMNS):
        require(plain, f"{table}.{name} has a collation of its own")
        column = postgres_column(name, type_, not_null, identity, generated, default, sequence)
        column["not_null_name"] = not_nulls.other_than_usual(tuple(place), table, name, not_null)
        tables.setdefault(table, {"columns": [], "postgres": {}})["columns"].append(column)

    for table, kind, name, keys, other, references, on_delete, on_update, definition, plain in rows(
        CONSTRAINTS.replace("names(", "pg_temp.names(")
    ):
        require(plain, f"constraint {name} of {table} is of a kind that the catalogue cannot tell: {definition}")
        parts = tables[table]["postgres"]
        if kind == "p":
            parts["primary_key"] = {"name": name, "columns": keys}
        elif kind == "u":
            parts.setdefault("unique", []).append({"name": name, "columns": keys})
        elif kind == "c":
            expression = checks.expression(cursor, table, definition)
            parts.setdefault("checks", []).append({"name": name, "expression": expression})
        else:
            actions = {"on_delete": REFERENTIAL_ACTIONS[on_delete], "on_update": REFERENTIAL_ACTIONS[on_update]}
            key = {"name": name, "columns": keys, "table": other, "references": references, **actions}
            parts.setdefault("foreign_keys", []).append(compact(key))

    for table, name, unique, method, keys, orders, include, where, definition in rows(INDEXES):
        index = compact({
            "name": name,
            "unique": unique,
            "method": method,
            "keys": [key + INDEX_ORDERS[order] for key, order in zip(keys, orders)],
            "include": include,
            "where": where,
        })
        require(index_statement(table, index) == definition, f"index {name} is more than its parts: {definition}")
        tables[table]["postgres"].setdefault("indexes", []).append(index)

    for table, name, definition, function in rows(TRIGGERS):
        trigger = {
            "name": name,
            "definition": unqualified(definition, f" ON public.{table} "),
            "function": unqualified(function, "FUNCTION public.").rstrip("\n"),
        }
        tables[table]["postgres"].setdefault("triggers", []).append(trigger)
    return tables


def postgres_column(name, type_, not_null, identity, generated, default, sequence) -> dict:
    """One column as PostgreSQL has it; `serial` stands for the default that takes the next value of its sequence."""
    require(identity in ("", "d") and generated in ("", "s"), f"column {name} is of an unknown kind")
    sequence = sequence and sequence.removeprefix("public.")
    serial = bool(sequence) and not identity
    if serial:
        takes_next = default == f"nextval('{sequence}'::regclass)"
        require(takes_next, f"column {name} has a sequence and the default {default}")
    return {
        "name": name,
        "type": LOGICAL_TYPES[type_.partition("(")[0]],
        "postgres": type_,
        "not_null": not_null,
        "default": None if serial or generated else default,
        "serial": sequence if serial else None,
        "identity": "by default" if identity else None,
        "sequence": sequence if identity else None,
        "generated": without_parentheses(default) if generated else None,
    }


def index_statement(table: str, index: dict) -> str:
    """The statement that makes the index, as PostgreSQL prints it."""
    unique = "UNIQUE " if index.get("unique") else ""
    keys = ", ".join(index["keys"])
    statement = f"CREATE {unique}INDEX {index['name']} ON public.{table} USING {index['method']} ({keys})"
    if "include" in index:
        statement += f" INCLUDE ({', '.join(index['include'])})"
    if "where" in index:
        statement += f" WHERE {index['where']}"
    return statement


def unqualified(definition: str, place: str) -> str:
    """The definition with the schema taken out of its one `place`."""
    require(definition.count("public.") == 1 and place in definition, f"not where expected: {place} in {definition}")
    return definition.replace("public.", "")


# --- Reading SQLite -------------------------------------------------------------------------------------------------


def sqlite_tables(engine) -> dict[str, dict]:
    """Every table of the database, by name: its columns and its `sqlite` part, which is SQLite's own DDL."""
    import sqlalchemy

    tables = {}
    with engine.connect() as connection:
        inspector = sqlalchemy.inspect(connection)
        for kind, name, table, sql in sqlite_objects(connection):
            if kind == "table":
                tables[name] = {"columns": sqlite_columns(connection, inspector, name), "sqlite": {"create": sql}}
            else:
                part = {"index": "indexes", "trigger": "triggers"}[kind]
                tables[table]["sqlite"].setdefault(part, []).append(sql)
    return tables


def sqlite_objects(connection) -> list[tuple]:
    """The rows of `sqlite_master` that hold a statement, tables first."""
    query = "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite~_%' "
    query += "ESCAPE '~' ORDER BY type <> 'table', type, name"
    return [tuple(row) for row in connection.exec_driver_sql(query)]


def sqlite_columns(connection, inspector, table: str) -> list[dict]:
    """The columns of one table as SQLite has them, in their order."""
    columns = []
    for row in connection.exec_driver_sql(f'PRAGMA table_xinfo("{table}")').mappings():
        column = {"name": row["name"], "type": row["type"], "not_null": bool(row["notnull"])}
        if row["hidden"]:
            require(row["hidden"] == 3, f"{table}.{row['name']} is hidden but not stored")
            reflected = next(c for c in inspector.get_columns(table) if c["name"] == row["name"])
            column["generated"] = without_parentheses(reflected["computed"]["sqltext"])
            column["type"] = row["type"].removesuffix(" GENERATED ALWAYS")
        columns.append(column)
    return columns


# --- The catalogue --------------------------------------------------------------------------------------------------


def table_definition(name: str, postgres: dict, sqlite: dict) -> dict:
    """One table of both engines; they must agree on the columns and their order."""
    names = [[column["name"] for column in engine["columns"]] for engine in (postgres, sqlite)]
    require(names[0] == names[1], f"the columns of {name} differ, PostgreSQL and SQLite: {names}")
    columns = []
    for ours, theirs in zip(postgres["columns"], sqlite["columns"]):
        column = {key: ours.pop(key) for key in ("name", "type", "postgres")}
        column |= {"sqlite": theirs["type"], **compact(ours)}
        if theirs["not_null"] != ours["not_null"]:
            column["not_null_sqlite"] = theirs["not_null"]
        if theirs.get("generated") != ours["generated"]:
            column["generated_sqlite"] = theirs.get("generated")
        columns.append(column)
    return {"name": name, "columns": columns, "postgres": postgres["postgres"], "sqlite": sqlite["sqlite"]}


def catalogue(where: dict, releases: dict) -> Iterator[dict]:
    """The lines of the catalogue."""
    import mlflow

    checks = CheckSources()
    numbers: dict[str, int] = {}
    definitions, entries = [], []
    for line in lines():
        not_nulls = NotNullNames()
        with scratch_database(where, f"catalogue_{line.name}") as postgres, scratch_sqlite() as sqlite:
            steps = zip(build_step_by_step(line, postgres), build_step_by_step(line, sqlite), strict=True)
            for revision, _ in steps:
                ours, theirs = postgres_tables(postgres, checks, not_nulls), sqlite_tables(sqlite)
                require(ours.keys() == theirs.keys(), f"the tables differ: {ours.keys() ^ theirs.keys()}")
                tables = []
                for name in sorted(ours):
                    definition = table_definition(name, ours[name], theirs[name])
                    key = json.dumps(definition)
                    if key not in numbers:
                        numbers[key] = len(numbers) + 1
                        definitions.append({"table": numbers[key], **definition})
                    tables.append(numbers[key])
                entries.append({
                    "line": line.name,
                    "revision": revision.revision,
                    "previous": revision.down_revision,
                    **made_by(line, revision.revision, releases),
                    "tables": tables,
                })
    yield {"format": FORMAT, "mlflow": mlflow.__version__}
    yield from definitions
    yield from entries


def made_by(line: Line, revision: str, releases: dict) -> dict:
    """The releases that end at the revision, and the version tables that they and the installed MLflow use."""
    versions = [version for version, heads in releases.items() if heads[line.name] == revision]
    version_tables = [line.version_table]
    for version in versions:
        table = releases[version].get(f"{line.name}_version_table", line.version_table)
        if table not in version_tables:
            version_tables.append(table)
    return {"version_tables": version_tables, "releases": versions}


def compact(mapping: dict) -> dict:
    """The mapping without the keys whose value says nothing: null, false, empty."""
    return {key: value for key, value in mapping.items() if value not in (None, False, [])}


def require(condition: bool, otherwise: str) -> None:
    """Stop where MLflow has something that the catalogue's format cannot tell."""
    if not condition:
        raise SystemExit(f"generate.py: {otherwise}")


# --- Releases by revision -------------------------------------------------------------------------------------------


def refresh_releases() -> dict[str, dict]:
    """For each stable MLflow from 1.0.0 on, where its migrations end, read from its package.

    A package is fetched only where it can tell something new: the histories only grow, so all releases between two that
    end at the same revisions end there as well.
    """
    whole, skinny = released("mlflow"), set(released("mlflow-skinny"))
    found: dict[str, dict] = {}

    def head(version: str) -> dict:
        if version not in found:
            found[version] = heads_in_package("mlflow-skinny" if version in skinny else "mlflow", version)
            print(version, found[version], file=sys.stderr)
        return found[version]

    def fill(first: int, last: int) -> None:
        if head(whole[first]) == head(whole[last]):
            found.update((version, head(whole[first])) for version in whole[first:last])
        elif last - first > 1:
            middle = (first + last) // 2
            fill(first, middle)
            fill(middle, last)

    fill(0, len(whole) - 1)
    return {version: found[version] for version in whole}


def released(package: str) -> list[str]:
    """The stable versions of a package from 1.0 on, oldest first, as pip tells them."""
    command = [sys.executable, "-m", "pip", "index", "versions", package]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    versions = re.search(r"Available versions: (.*)", listing).group(1).split(", ")
    return [version for version in reversed(versions) if re.fullmatch(r"[1-9]\d*(\.\d+)+", version)]


def heads_in_package(package: str, version: str) -> dict:
    """The last revision of each line in the package of one release, and the name of basic-auth's version table."""
    sources = python_sources(package, version)
    heads = {"tracking": head_of(sources, TRACKING_MIGRATIONS), "auth": None}
    environment = sources.get(AUTH_MIGRATIONS + "env.py")
    if environment is not None:
        table = re.search(r'version_table="(\w+)"', environment)
        heads["auth"] = head_of(sources, (AUTH_MIGRATIONS,))
        heads["auth_version_table"] = table.group(1) if table else "alembic_version"
    return heads


def python_sources(package: str, version: str) -> dict[str, str]:
    """The Python files of migrations in the wheel of one release, or in its source archive where it has no wheel."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download"]
        options = ["--no-deps", "--no-cache-dir", "--ignore-requires-python", "--dest", folder]
        subprocess.run([*pip, *options, f"{package}=={version}"], check=True)
        file = next(Path(folder).iterdir())
        if file.suffix == ".whl":
            with zipfile.ZipFile(file) as wheel:
                return {name: wheel.read(name).decode() for name in wheel.namelist() if is_migration(name)}
        with tarfile.open(file) as archive:
            return {
                member.name.partition("/")[2]: archive.extractfile(member).read().decode()
                for member in archive
                if is_migration(member.name)
            }


def is_migration(name: str) -> bool:
    """Whether a file of a package belongs to one of the two lines."""
    folders = (*TRACKING_MIGRATIONS, AUTH_MIGRATIONS)
    return name.endswith(".py") and any(folder in name for folder in folders)


def head_of(sources: dict[str, str], folders: tuple[str, ...]) -> str:
    """The revision in `folders` that no other follows."""
    revisions, followed = set(), set()
    for name, source in sources.items():
        if name.startswith(folders) and "/versions/" in name and not name.endswith("__init__.py"):
            revisions.add(re.search(r"^revision\s*(?::.*)?=\s*[\"'](\w+)[\"']", source, re.M).group(1))
            followed.update(re.findall(r"^down_revision\s*(?::.*)?=\s*[\"'](\w+)[\"']", source, re.M))
    heads = revisions - followed
    require(len(heads) == 1, f"{folders} has the heads {sorted(heads)}")
    return heads.pop()


def main() -> None:
    """Print the catalogue, or refresh the releases."""
    parser = argparse.ArgumentParser(description="Generate the catalogue of MLflow's database schema.")
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--postgres-bin", type=Path, help="the folder of PostgreSQL's programs")
    task.add_argument("--refresh-releases", action="store_true", help="rewrite releases.json instead")
    arguments = parser.parse_args()
    if arguments.refresh_releases:
        lines = [f"{json.dumps(version)}: {json.dumps(heads)}" for version, heads in refresh_releases().items()]
        RELEASES.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        return
    releases = json.loads(RELEASES.read_text())
    with private_postgres(arguments.postgres_bin) as where:
        for entry in catalogue(where, releases):
            print(json.dumps(entry, separators=(",", ":"), ensure_ascii=False))


if __name__ == "__main__":
    main()
