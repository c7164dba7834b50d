"""Brings what `edgecv store merge` wrote to ClickHouse, and forgets what was forgotten: python load.py STORE DSN

DSN is such as `clickhouse://user:password@host/edgecv`. The store stays what it is: a run that breaks off, or comes twice, or two
stores with the same events leave each event once. Needs clickhouse-connect and pyarrow.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from pathlib import Path

import clickhouse_connect
import pyarrow as pa
import pyarrow.parquet

TABLES = Path(__file__).with_name("tables.sql")


def load(store: Path, dsn: str) -> int:
    """The number of rows that were sent."""
    client = clickhouse_connect.get_client(dsn=dsn)
    text = "\n".join(line for line in TABLES.read_text().splitlines() if not line.startswith("--"))
    for statement in filter(str.strip, text.split(";")):
        client.command(statement)
    known = {row[0] for row in client.query("SELECT mark FROM loaded").result_rows}
    manifest = json.loads((store / "manifest.json").read_text())
    sent = 0
    for part in manifest["parts"]:
        for table, file in (("events", part["events"]), ("detections", part["detections"])):
            if file is not None and file["sha256"] not in known:
                sent += send(client, table, part["tenant"], (store / file["path"]).read_bytes(), file["sha256"])
    for gone in manifest["forgotten"]:
        if gone["id"] not in known:
            forget(client, gone)
    client.close()
    return sent


def send(client: clickhouse_connect.driver.Client, table: str, tenant: str, content: bytes, sha256: str) -> int:
    if hashlib.sha256(content).hexdigest() != sha256:
        raise SystemExit("A file of the store is not what its manifest says: run edgecv store verify.")
    rows = pa.parquet.read_table(io.BytesIO(content))
    rows = rows.add_column(0, "tenant", pa.array([tenant] * len(rows), pa.string()))
    client.insert_arrow(table, rows)
    client.insert("loaded", [[sha256]], column_names=["mark"])  # after its rows: what breaks off here comes again
    return len(rows)


def forget(client: clickhouse_connect.driver.Client, gone: dict[str, object]) -> None:
    """The store files an event by its own time, or by that at which it came in when its clock was wrong."""
    moment = "if(time BETWEEN received - INTERVAL 31 DAY AND received + INTERVAL 1 HOUR, time, received)"
    for table in ("events", "detections"):
        client.command(
            f"DELETE FROM {table} WHERE tenant = {{tenant:String}} AND device = {{device:String}} "  # noqa: S608
            f"AND toUnixTimestamp64Micro({moment}) >= {{from_us:Int64}} AND toUnixTimestamp64Micro({moment}) < {{to_us:Int64}}",
            parameters={name: gone[name] for name in ("tenant", "device", "from_us", "to_us")},
        )
    client.insert("loaded", [[gone["id"]]], column_names=["mark"])


if __name__ == "__main__":
    print(load(Path(sys.argv[1]), sys.argv[2]), "rows sent")
