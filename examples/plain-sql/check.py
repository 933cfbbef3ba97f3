"""Looks at the other device, with SQL alone.

    python3 check.py watch OTHER.db          looks again and again until it is told to stop: is anything there by halves?
    python3 check.py end TILL.db OTHER.db    at the end: did each operation arrive, as one group?
"""

import signal
import sqlite3
import sys
import time

HALVES = """
    SELECT 'a payment without its receipt', id FROM payments WHERE receiptId NOT IN (SELECT id FROM receipts)
    UNION ALL
    SELECT 'a receipt whose payments do not cover it', id FROM receipts
     WHERE total_minor IS NOT (SELECT sum(amount_minor) FROM payments WHERE receiptId = receipts.id)
    UNION ALL
    SELECT 'a receipt without its entries', id FROM receipts
     WHERE total_minor IS NOT (SELECT sum(amount_minor) FROM entries WHERE receiptId = receipts.id)
"""


def read(path):
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)


def watch(path):
    """Looks until SIGTERM; every look is a query of its own, as any program makes it."""
    is_done = []
    signal.signal(signal.SIGTERM, lambda *_: is_done.append(True))
    other, looks, states = read(path), 0, set()
    while not is_done:
        halves = other.execute(HALVES).fetchall()
        if halves:
            raise SystemExit(f"seen by halves on {path}: {halves}")
        states.add(other.execute("SELECT group_concat(id || ':' || total, ' ') FROM receipts").fetchone()[0])
        looks += 1
        time.sleep(0.002)
    print(f"{looks} looks at {path} while it was written: {len(states)} different states, each whole")


# Receipts, payments and entries that an operation wrote and that nothing changed later.
WRITTEN = {
    "receipt-edit o-1": ["o-1", "o-1-p2", "o-1-e2"],
    "receipt-create o-1": ["o-1-p1", "o-1-e1"],
}
# Every operation that shop.py and orm.py say was accepted.
OPERATIONS = [
    "receipt-create o-1", "receipt-create o-2", "receipt-create s-1", "receipt-edit o-1", "receipt-edit s-1",
    "receipt-void o-2", "receipt-void s-1",
]
ROWS = {"products": 2, "stock": 2, "receipts": 1, "payments": 2, "entries": 7}


def end(till_path, other_path):
    till, other = read(till_path), read(other_path)
    groups = till.execute("SELECT coalesce(type || ' ' || root, 'single'), state FROM gbsync_group ORDER BY device_seq").fetchall()
    accepted = sorted(name for name, state in groups if state == "accepted" and name != "single")
    require("the operations of the till", accepted, OPERATIONS)
    for name, ids in WRITTEN.items():
        marks = ", ".join("?" * len(ids))
        sql = f"SELECT count(*), count(DISTINCT version) FROM gbsync_records WHERE id IN ({marks})"
        require(f"records and positions of the log of {name}", other.execute(sql, ids).fetchone(), (len(ids), 1))
    # Positions of the log are numbered without gaps, one a group: as many as groups were accepted, and not one more.
    count = sum(state == "accepted" for _, state in groups)
    require("positions of the log that the other device has seen", cursor(other), count)
    for table, rows in ROWS.items():
        for name, device in (("till", till), ("other device", other)):
            require(f"{table} on the {name}", device.execute(f"SELECT count(*) FROM {table}").fetchone()[0], rows)
    print(f"{len(OPERATIONS)} operations and {count - len(OPERATIONS)} single rows arrived, each as one group")


def cursor(device):
    return device.execute("SELECT cursor FROM gbsync_state").fetchone()[0]


def require(what, seen, promised):
    if seen != promised:
        raise SystemExit(f"{what}: promised {promised!r}, seen {seen!r}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["watch", path]:
            watch(path)
        case ["end", till_path, other_path]:
            end(till_path, other_path)
        case _:
            raise SystemExit(__doc__)
