//! What the people of this shop do, each as one operation. `gbsync.toml` says what each must look like.

use gbsync_client::{Client, Error, Operation, Sealed};
use gbsync_core::id::GroupId;

/// One product on a receipt.
#[derive(Clone, Copy)]
pub struct Item {
    pub product: &'static str,
    pub count: i64,
    pub cents: i64,
}

impl Item {
    fn total(self) -> String {
        money(self.count * self.cents)
    }
}

/// Cents as a decimal: money never passes through a float.
fn money(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100)
}

/// `receipt-create`: the receipt, its payment, its entry in the books, and what left the shelf. The number is allotted when
/// the operation is sealed.
pub fn sell(till: &Client, receipt: &str, item: Item) -> Result<Sealed, Error> {
    till.operation("receipt-create", receipt, |op| write_sale(op, receipt, item))
}

/// The same in the place of a sale that was refused: of both at most one is ever accepted.
pub fn sell_instead(till: &Client, refused: &GroupId, receipt: &str, item: Item) -> Result<Sealed, Error> {
    till.amend(refused, |op| write_sale(op, receipt, item))
}

fn write_sale(op: &mut Operation, receipt: &str, item: Item) -> Result<(), Error> {
    let total = item.total();
    op.upsert("receipts", receipt, format!(r#"{{"total":"{total}"}}"#))?;
    op.upsert(
        "payments",
        &format!("{receipt}-p1"),
        format!(r#"{{"receiptId":"{receipt}","amount":"{total}","method":"cash"}}"#),
    )?;
    op.upsert(
        "entries",
        &format!("{receipt}-e1"),
        format!(r#"{{"receiptId":"{receipt}","amount":"{total}","account":"sales"}}"#),
    )?;
    op.increment("stock", item.product, format!(r#"{{"quantity":{}}}"#, -item.count))
}

/// `receipt-edit`: the customer takes one more; `before` is what was on the receipt.
pub fn sell_one_more(till: &Client, receipt: &str, before: Item) -> Result<Sealed, Error> {
    let (total, more) = (money((before.count + 1) * before.cents), money(before.cents));
    till.operation("receipt-edit", receipt, |op| {
        op.patch("receipts", receipt, format!(r#"{{"total":"{total}"}}"#))?;
        op.upsert(
            "payments",
            &format!("{receipt}-p2"),
            format!(r#"{{"receiptId":"{receipt}","amount":"{more}","method":"card"}}"#),
        )?;
        op.upsert(
            "entries",
            &format!("{receipt}-e2"),
            format!(r#"{{"receiptId":"{receipt}","amount":"{more}","account":"sales"}}"#),
        )?;
        op.increment("stock", before.product, r#"{"quantity":-1}"#)
    })
}

/// `receipt-edit`: a note on the receipt.
pub fn note(till: &Client, receipt: &str, text: &str) -> Result<Sealed, Error> {
    till.operation("receipt-edit", receipt, |op| op.patch("receipts", receipt, format!(r#"{{"note":"{text}"}}"#)))
}

/// `receipt-void`: the receipt is deleted and its payments go with it by themselves; the books get a reversal, the shelf its
/// items.
pub fn void(till: &Client, receipt: &str, items: Item) -> Result<Sealed, Error> {
    let reversal = money(-items.count * items.cents);
    till.operation("receipt-void", receipt, |op| {
        op.delete("receipts", receipt)?;
        op.upsert(
            "entries",
            &format!("{receipt}-void"),
            format!(r#"{{"receiptId":"{receipt}","amount":"{reversal}","account":"sales"}}"#),
        )?;
        op.increment("stock", items.product, format!(r#"{{"quantity":{}}}"#, items.count))
    })
}
