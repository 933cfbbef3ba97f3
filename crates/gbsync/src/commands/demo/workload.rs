//! What the shop of the measurement does: receipts made, edited and voided, each as one operation.
//!
//! Invariant: after every whole operation the books balance: each receipt has payments and a financial entry that add up to
//! its total, nothing points at a receipt that is not there, and stock plus what was sold is what was received. So anything
//! else that a database shows is an operation torn apart.

use super::random::Random;
use gbsync_core::change::{Edit, Payload};
use gbsync_core::id::{GroupType, RecordKey};
use gbsync_core::lay::lay;
use gbsync_core::wire::OperationLine;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const PRODUCTS: u64 = 8;
const RECEIVED: i64 = 10_000;
/// Edits and voids prefer receipts this young: people correct what they have just done.
const RECENT: u64 = 12;

/// The rows of a database by record.
pub(super) type Rows = BTreeMap<RecordKey, Payload>;

/// `count` operations, the first of which puts goods on the shelf.
pub(super) fn operations(seed: u64, count: usize) -> Vec<OperationLine> {
    let mut shop = Shop { random: Random::new(seed, 0), receipts: Vec::new(), made: 0 };
    let mut operations = vec![intake()];
    while operations.len() < count {
        operations.push(shop.next_operation());
    }
    operations.truncate(count);
    operations
}

/// The rows that whole operations leave, one after the other.
pub(super) fn rows_after(operations: &[OperationLine]) -> Rows {
    let mut rows = Rows::new();
    for (key, edit) in operations.iter().flat_map(|operation| &operation.edits) {
        match lay(edit, rows.get(key), None).expect("the shop edits only what is there") {
            Some(payload) => rows.insert(key.clone(), payload),
            None => rows.remove(key),
        };
    }
    rows
}

struct Shop {
    random: Random,
    receipts: Vec<Receipt>,
    made: u64,
}

#[derive(Clone)]
struct Receipt {
    no: u64,
    lines: Vec<Line>,
    payments: Vec<i64>,
}

#[derive(Clone)]
struct Line {
    product: u64,
    quantity: i64,
    price_cents: i64,
}

impl Shop {
    fn next_operation(&mut self) -> OperationLine {
        match self.random.below(100) {
            _ if self.receipts.is_empty() => self.create(),
            0..50 => self.create(),
            50..85 => self.edit(),
            _ => self.void(),
        }
    }

    fn create(&mut self) -> OperationLine {
        self.made += 1;
        let lines = (0..=self.random.below(3)).map(|_| self.line()).collect();
        let mut receipt = Receipt { no: self.made, lines, payments: Vec::new() };
        receipt.pay_the_rest(self.random.percent(40));
        let mut edits = receipt.edits();
        edits.extend(receipt.stock_edits(&[]));
        let operation = operation("receipt-create", &receipt, edits);
        self.receipts.push(receipt);
        operation
    }

    fn edit(&mut self) -> OperationLine {
        let place = self.recent();
        let before = self.receipts[place].clone();
        let line = self.line();
        let receipt = &mut self.receipts[place];
        receipt.lines.push(line);
        receipt.pay_the_rest(false);
        let mut edits = receipt.edits();
        edits.extend(receipt.stock_edits(&before.lines));
        operation("receipt-edit", receipt, edits)
    }

    fn void(&mut self) -> OperationLine {
        let place = self.recent();
        let receipt = self.receipts.remove(place);
        let mut edits: Vec<_> = receipt.edits().into_iter().map(|(key, _)| (key, Edit::Delete)).collect();
        edits.extend(Receipt { lines: Vec::new(), ..receipt.clone() }.stock_edits(&receipt.lines));
        operation("receipt-void", &receipt, edits)
    }

    fn recent(&mut self) -> usize {
        let age = self.random.below(RECENT.min(self.receipts.len() as u64));
        self.receipts.len() - 1 - usize::try_from(age).expect("an age below the number of receipts")
    }

    fn line(&mut self) -> Line {
        let product = self.random.below(PRODUCTS);
        let quantity = 1 + i64::try_from(self.random.below(5)).expect("below 5");
        let price_cents = 199 + 150 * i64::try_from(product).expect("below the number of products");
        Line { product, quantity, price_cents }
    }
}

impl Receipt {
    fn total_cents(&self) -> i64 {
        self.lines.iter().map(|line| line.quantity * line.price_cents).sum()
    }

    /// Adds what is missing to the total: in one payment, or in two.
    fn pay_the_rest(&mut self, in_two: bool) {
        let rest = self.total_cents() - self.payments.iter().sum::<i64>();
        let first = if in_two { rest / 2 } else { 0 };
        self.payments.extend([first, rest - first].into_iter().filter(|cents| *cents != 0));
    }

    fn id(&self) -> String {
        format!("receipt-{:05}", self.no)
    }

    /// The receipt, its payments and its financial entry, in the order in which an app would save them.
    fn edits(&self) -> Vec<(RecordKey, Edit)> {
        let (id, total_cents) = (self.id(), self.total_cents());
        let line = |line: &Line| json!({ "product": product_id(line.product), "quantity": line.quantity, "priceCents": line.price_cents });
        let lines: Vec<Value> = self.lines.iter().map(line).collect();
        let receipt = json!({ "no": self.no, "customer": "walk-in", "lines": lines, "totalCents": total_cents });
        let mut edits = vec![upsert("receipts", &id, &receipt)];
        for (index, amount_cents) in self.payments.iter().enumerate() {
            let method = if index == 0 { "card" } else { "cash" };
            let payment = json!({ "receiptId": id, "method": method, "amountCents": amount_cents });
            edits.push(upsert("payments", &format!("payment-{:05}-{index}", self.no), &payment));
        }
        let entry = json!({ "receiptId": id, "account": "4400", "amountCents": total_cents });
        edits.push(upsert("financial_entries", &format!("entry-{:05}", self.no), &entry));
        edits
    }

    /// What leaves the shelf, or comes back to it, against the lines as they were.
    fn stock_edits(&self, before: &[Line]) -> Vec<(RecordKey, Edit)> {
        let mut deltas: BTreeMap<u64, i64> = BTreeMap::new();
        for line in before {
            *deltas.entry(line.product).or_default() += line.quantity;
        }
        for line in &self.lines {
            *deltas.entry(line.product).or_default() -= line.quantity;
        }
        let moved = deltas.into_iter().filter(|(_, delta)| *delta != 0);
        moved
            .map(|(product, delta)| {
                (key("stock", &product_id(product)), Edit::Increment(payload(&json!({ "quantity": delta }))))
            })
            .collect()
    }
}

fn intake() -> OperationLine {
    let goods = |product| upsert("stock", &product_id(product), &json!({ "quantity": RECEIVED, "received": RECEIVED }));
    OperationLine {
        group_type: Some(group_type("stock-intake")),
        root: "intake-1".into(),
        group_id: None,
        edits: (0..PRODUCTS).map(goods).collect(),
    }
}

fn operation(kind: &str, receipt: &Receipt, edits: Vec<(RecordKey, Edit)>) -> OperationLine {
    OperationLine { group_type: Some(group_type(kind)), root: receipt.id(), group_id: None, edits }
}

fn upsert(entity: &str, id: &str, value: &Value) -> (RecordKey, Edit) {
    (key(entity, id), Edit::Upsert(payload(value)))
}

fn product_id(product: u64) -> String {
    format!("product-{product:02}")
}

fn group_type(text: &str) -> GroupType {
    GroupType::new(text).expect("the workload's types are valid")
}

fn key(entity: &str, id: &str) -> RecordKey {
    RecordKey::new(entity, id).expect("the workload's ids are valid")
}

fn payload(value: &Value) -> Payload {
    Payload::parse(&value.to_string(), &gbsync_core::limits::Limits::default())
        .expect("the workload's payloads are small objects")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_workload_with_every_kind_of_operation() {
        let (first, again) = (operations(3, 100), operations(3, 100));
        assert_eq!(first, again);
        for kind in ["stock-intake", "receipt-create", "receipt-edit", "receipt-void"] {
            let is_kind =
                |operation: &&OperationLine| operation.group_type.as_ref().is_some_and(|text| text.as_str() == kind);
            assert!(first.iter().any(|operation| is_kind(&operation)), "{kind} is missing");
        }
    }
}
