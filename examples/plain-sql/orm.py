"""The same till from SQLAlchemy: ordinary models, add, update and upsert. Two session events open and close the operation.

    python3 orm.py till.db
"""

import decimal
import sys
import time

from sqlalchemy import ForeignKey, Integer, String, create_engine, event, select, text
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.types import TypeDecorator


class Money(TypeDecorator):
    """An exact decimal: text on the way to SQLite and back, never a float."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return None if value is None else str(value)

    def process_result_value(self, value, dialect):
        return None if value is None else decimal.Decimal(value)


class Base(DeclarativeBase):
    pass


class Product(Base):
    __tablename__ = "products"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    price: Mapped[decimal.Decimal] = mapped_column(Money)


class Stock(Base):
    __tablename__ = "stock"
    id: Mapped[str] = mapped_column(primary_key=True)
    productId: Mapped[str] = mapped_column(ForeignKey("products.id"))
    quantity: Mapped[int] = mapped_column(Integer)


class Receipt(Base):
    __tablename__ = "receipts"
    id: Mapped[str] = mapped_column(primary_key=True)
    no: Mapped[str | None]
    total: Mapped[decimal.Decimal] = mapped_column(Money)
    note: Mapped[str | None]
    # The engine deletes the payments of a deleted receipt: SQLAlchemy leaves them alone.
    payments: Mapped[list["Payment"]] = relationship(back_populates="receipt", passive_deletes="all")


class Payment(Base):
    __tablename__ = "payments"
    id: Mapped[str] = mapped_column(primary_key=True)
    receiptId: Mapped[str] = mapped_column(ForeignKey("receipts.id"))
    amount: Mapped[decimal.Decimal] = mapped_column(Money)
    receipt: Mapped[Receipt] = relationship(back_populates="payments")


class Entry(Base):
    __tablename__ = "entries"
    id: Mapped[str] = mapped_column(primary_key=True)
    receiptId: Mapped[str]
    amount: Mapped[decimal.Decimal] = mapped_column(Money)


def connect(path):
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 10})

    @event.listens_for(engine, "connect")
    def with_foreign_keys(connection, _):
        connection.execute("PRAGMA foreign_keys = ON")

    return engine


@event.listens_for(Session, "after_begin")
def open_operation(session, transaction, connection):
    if operation := session.info.get("operation"):
        connection.execute(text("INSERT INTO gbsync_operation(type, root) VALUES (:type, :root)"), operation)


@event.listens_for(Session, "before_commit")
def close_operation(session):
    if "operation" in session.info:
        session.flush()
        session.execute(text("DELETE FROM gbsync_operation"))


def operation(engine, kind, root):
    """A session whose commit is one group."""
    return Session(engine, info={"operation": {"type": kind, "root": root}}, expire_on_commit=False)


def accepted(engine, kind, root):
    """Waits for the server's verdict."""
    for _ in range(600):
        with engine.connect() as till:
            sql = "SELECT state, code, message FROM gbsync_group WHERE type = :t AND root = :r ORDER BY device_seq DESC LIMIT 1"
            row = till.execute(text(sql), {"t": kind, "r": root}).first()
        if row and row.state == "accepted":
            return print(f"  {kind} {root}: accepted as one group")
        if row and row.state == "parked":
            raise SystemExit(f"{kind} {root} was refused: {row.code}: {row.message}")
        time.sleep(0.05)
    raise SystemExit(f"{kind} {root} was not decided within 30 s; does `gbsync sync --watch` run on this file?")


def expect(what, seen, promised):
    if seen != promised:
        raise SystemExit(f"{what}: promised {promised!r}, seen {seen!r}")
    print(f"  {what}: {seen}")


def main(path):
    engine = connect(path)
    money = decimal.Decimal

    print("upsert: on_conflict_do_update")
    for name in ("Pensil", "Pencil"):
        values = {"id": "pencil", "name": name, "price": money("2.5")}
        with Session(engine) as session, session.begin():
            upsert = insert(Product).values(values)
            session.execute(upsert.on_conflict_do_update(index_elements=["id"], set_={"name": upsert.excluded.name}))
    with Session(engine) as session, session.begin():
        session.add(Stock(id="pencil", productId="pencil", quantity=5))
    with Session(engine) as session:
        expect("the price, exact", session.get(Product, "pencil").price, money("2.50"))

    print("add: a sale")
    with operation(engine, "receipt-create", "o-1") as session, session.begin():
        receipt = Receipt(id="o-1", total=money("5.00"))
        receipt.payments = [Payment(id="o-1-p1", amount=money("5.00"))]
        session.add_all([receipt, Entry(id="o-1-e1", receiptId="o-1", amount=money("5.00"))])
        session.get(Stock, "pencil").quantity -= 2
    accepted(engine, "receipt-create", "o-1")

    print("update: one more pencil and a note")
    with operation(engine, "receipt-edit", "o-1") as session, session.begin():
        receipt = session.get(Receipt, "o-1")
        expect("the number, allotted by the engine", receipt.no is not None, True)
        receipt.total, receipt.note = money("7.50"), "gift wrapped"
        receipt.payments.append(Payment(id="o-1-p2", amount=money("2.50")))
        session.add(Entry(id="o-1-e2", receiptId="o-1", amount=money("2.50")))
        session.get(Stock, "pencil").quantity -= 1
    accepted(engine, "receipt-edit", "o-1")

    print("delete: a second receipt is voided")
    with operation(engine, "receipt-create", "o-2") as session, session.begin():
        session.add(Receipt(id="o-2", total=money("2.50"), payments=[Payment(id="o-2-p1", amount=money("2.50"))]))
        session.add(Entry(id="o-2-e1", receiptId="o-2", amount=money("2.50")))
    accepted(engine, "receipt-create", "o-2")
    with operation(engine, "receipt-void", "o-2") as session, session.begin():
        session.delete(session.get(Receipt, "o-2"))
        session.add(Entry(id="o-2-void", receiptId="o-2", amount=money("-2.50")))
    accepted(engine, "receipt-void", "o-2")

    with Session(engine) as session:
        expect("payments in all", session.scalars(select(Payment.id).order_by(Payment.id)).all(), ["o-1-p1", "o-1-p2"])
        expect("pencils on the shelf", session.get(Stock, "pencil").quantity, 2)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
