"""A till without a binding: Python's own sqlite3 writes whole operations into a device's file.

    python3 shop.py till.db

`gbsync sync --watch till.db` runs beside it and carries what is committed here. docs/sql.md says what each sentence does.
"""

import contextlib
import sqlite3
import sys
import time


def connect(path):
    """A connection on which this program itself says BEGIN and COMMIT."""
    till = sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=10, isolation_level=None)
    # Without it a COMMIT could leave an operation open; the first INSERT into gbsync_operation would say so.
    till.execute("PRAGMA foreign_keys = ON")
    return till


@contextlib.contextmanager
def operation(till, kind, root):
    """What is written inside is one group: it arrives everywhere whole, or nowhere."""
    till.execute("BEGIN IMMEDIATE")
    try:
        till.execute("INSERT INTO gbsync_operation(type, root) VALUES (?, ?)", (kind, root))
        yield
        till.execute("DELETE FROM gbsync_operation")
        till.execute("COMMIT")
    except BaseException:
        if till.in_transaction:
            till.execute("ROLLBACK")
        raise


def decided(till, kind, root):
    """Waits for the server's verdict on an operation: 'accepted' or 'parked', and why."""
    for _ in range(600):
        sql = "SELECT state, code, message FROM gbsync_group WHERE type = ? AND root = ? ORDER BY device_seq DESC LIMIT 1"
        row = till.execute(sql, (kind, root)).fetchone()
        if row and row[0] in ("accepted", "parked"):
            return row
        time.sleep(0.05)
    raise SystemExit(f"{kind} {root} was not decided within 30 s; does `gbsync sync --watch` run on this file?")


def accepted(till, kind, root):
    state, code, message = decided(till, kind, root)
    if state != "accepted":
        raise SystemExit(f"{kind} {root} was refused: {code}: {message}")
    print(f"  {kind} {root}: accepted as one group")


def value(till, sql, *parameters):
    return till.execute(sql, parameters).fetchone()[0]


def expect(what, seen, promised):
    if seen != promised:
        raise SystemExit(f"{what}: promised {promised!r}, seen {seen!r}")
    print(f"  {what}: {seen}")


def fill_the_shelf(till):
    print("upsert: outside an operation each row is a group of one")
    upsert = "INSERT INTO products(id, name, price) VALUES (?, ?, ?) ON CONFLICT(id) DO UPDATE SET name = excluded.name"
    for name in ("Paper rol", "Paper roll"):
        expect("rows written by the upsert", till.execute(upsert, ("roll", name, 4)).rowcount, 1)
    till.execute("INSERT INTO stock(id, productId, quantity) VALUES ('roll', 'roll', 10)")
    expect("the price, given as 4", value(till, "SELECT price FROM products WHERE id = 'roll'"), "4.00")


def sell(till):
    print("sale: receipt, payment, entry and stock between an INSERT and a DELETE")
    with operation(till, "receipt-create", "s-1"):
        till.execute("INSERT INTO receipts(id, total) VALUES ('s-1', 8.0)")
        till.execute("INSERT INTO payments(id, receiptId, amount, method) VALUES ('s-1-p1', 's-1', '8', 'cash')")
        till.execute("INSERT INTO entries(id, receiptId, amount, account) VALUES ('s-1-e1', 's-1', '8.00', 'sales')")
        till.execute("UPDATE stock SET quantity = quantity - 2 WHERE id = 'roll'")
    accepted(till, "receipt-create", "s-1")
    expect("the number", value(till, "SELECT no FROM receipts WHERE id = 's-1'").endswith("-000001"), True)
    expect("the total, given as 8.0", value(till, "SELECT total FROM receipts WHERE id = 's-1'"), "8.00")


def edit(till):
    print("edit: one more roll")
    with operation(till, "receipt-edit", "s-1"):
        till.execute("UPDATE receipts SET total = '12.00' WHERE id = 's-1'")
        till.execute("INSERT INTO payments(id, receiptId, amount, method) VALUES ('s-1-p2', 's-1', 4, 'card')")
        till.execute("INSERT INTO entries(id, receiptId, amount, account) VALUES ('s-1-e2', 's-1', 4, 'sales')")
        till.execute("UPDATE stock SET quantity = quantity - 1 WHERE id = 'roll'")
    accepted(till, "receipt-edit", "s-1")


def void(till):
    print("void: the receipt is deleted, its payments go with it, the books are reversed")
    with operation(till, "receipt-void", "s-1"):
        till.execute("DELETE FROM receipts WHERE id = 's-1'")
        till.execute("INSERT INTO entries(id, receiptId, amount, account) VALUES ('s-1-void', 's-1', -12, 'sales')")
        till.execute("UPDATE stock SET quantity = quantity + 3 WHERE id = 'roll'")
    accepted(till, "receipt-void", "s-1")
    expect("payments of the receipt", value(till, "SELECT count(*) FROM payments WHERE receiptId = 's-1'"), 0)
    expect("rolls on the shelf", value(till, "SELECT quantity FROM stock WHERE id = 'roll'"), 10)


def refused(till, what, *sentences):
    """Runs sentences that must fail; what SQLite says is what a person reads."""
    try:
        for sentence in sentences:
            till.execute(sentence)
    except sqlite3.Error as error:
        print(f"  {what}: {error}")
        return str(error)
    finally:
        if till.in_transaction:
            till.execute("ROLLBACK")
    raise SystemExit(f"{what} was not refused")


def what_errors_look_like(path, till):
    print("what errors look like: an SQLite error with a sentence, and nothing half written")
    open_one = "INSERT INTO gbsync_operation(type, root) VALUES ('receipt-create', 's-9')"
    careless = sqlite3.connect(path, timeout=10, isolation_level=None)
    said = refused(careless, "no pragma", "BEGIN", open_one)
    expect("it says what to do", "PRAGMA foreign_keys" in said, True)
    careless.close()
    refused(till, "COMMIT with the operation open", "BEGIN", open_one, "COMMIT")
    refused(till, "a second operation", "BEGIN", open_one, open_one)
    refused(till, "a sale outside an operation", "INSERT INTO receipts(id, total) VALUES ('s-9', 1)")
    refused(till, "a price that does not fit", "UPDATE products SET price = '4.005' WHERE id = 'roll'")
    refused(till, "the exact integer is read-only", "UPDATE products SET price_minor = 1 WHERE id = 'roll'")
    expect("receipts", value(till, "SELECT count(*) FROM receipts WHERE id = 's-9'"), 0)
    expect("the price", value(till, "SELECT price FROM products WHERE id = 'roll'"), "4.00")


def a_rule_is_broken(till):
    print("a broken rule: the engine undoes the operation and keeps it, with the reason")
    with operation(till, "receipt-create", "s-2"):
        till.execute("INSERT INTO receipts(id, total) VALUES ('s-2', '5.00')")
        till.execute("INSERT INTO payments(id, receiptId, amount) VALUES ('s-2-p1', 's-2', '4.00')")
    state, code, message = decided(till, "receipt-create", "s-2")
    expect("its state", state, "parked")
    print(f"  {code}: {message}")
    expect("receipts", value(till, "SELECT count(*) FROM receipts WHERE id = 's-2'"), 0)
    expect("receipts_all", value(till, "SELECT sync_state FROM receipts_all WHERE id = 's-2'"), "parked")


def main(path):
    till = connect(path)
    fill_the_shelf(till)
    sell(till)
    edit(till)
    void(till)
    what_errors_look_like(path, till)
    a_rule_is_broken(till)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
