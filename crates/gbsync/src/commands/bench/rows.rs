//! The rows of every measurement: sales of five records, the same bytes for `gbsync` and for raw SQLite.
//!
//! Ids are sequential numbers behind the till's, as documents are numbered in shops (`receipt-03-0000017`), so both sides
//! append to their trees; payloads have 95 to 185 bytes, as an app would write them, not in canonical form.

use gbsync_core::change::{Edit, Payload};
use gbsync_core::id::{GroupType, RecordKey};
use gbsync_core::limits::Limits;
use gbsync_core::wire::OperationLine;

/// Records of one sale.
pub(super) const RECORDS: u64 = 5;

/// One record as an app hands it over.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// Its kind.
    pub(super) entity: &'static str,
    /// Its id.
    pub(super) id: String,
    /// Its JSON.
    pub(super) payload: String,
}

/// One sale.
#[derive(Debug, Clone)]
pub(super) struct Sale {
    /// The receipt's id.
    pub(super) root: String,
    /// The receipt, its two lines, its payment and its financial entry.
    pub(super) rows: [Row; RECORDS as usize],
}

/// The sales number `from` to `from + count - 1` of a till.
pub(super) fn sales(till: u64, from: u64, count: u64) -> Vec<Sale> {
    (from..from + count).map(|no| sale(till, no)).collect()
}

fn sale(till: u64, no: u64) -> Sale {
    let number = format!("{till:02}-{no:07}");
    let receipt = format!("receipt-{number}");
    let (first, second) = (199 + no % 800, 350 + no % 90);
    let (total, customer) = (2 * first + second, no % 5_000);
    let (minute, second_of) = (no / 60 % 60, no % 60);
    let at = format!("2026-06-03T20:{minute:02}:{second_of:02}Z");
    let euros = |cents: u64| format!("{}.{:02}", cents / 100, cents % 100);
    let line = |line: u64, quantity: u64, cents: u64| Row {
        entity: "receipt_lines",
        id: format!("line-{number}-{line}"),
        payload: format!(
            r#"{{"receiptId":"{receipt}","productId":"product-{:05}","name":"Paper roll 80x80","quantity":{quantity},"price":"{}"}}"#,
            (no * 7 + line) % 20_000,
            euros(cents)
        ),
    };
    let rows = [
        Row {
            entity: "receipts",
            id: receipt.clone(),
            payload: format!(
                r#"{{"no":"R-{number}","customerId":"customer-{customer:05}","cashier":"cashier-{}","soldAt":"{at}","currency":"EUR","status":"paid","total":"{}","tax":"{}","note":""}}"#,
                no % 9,
                euros(total),
                euros(total * 19 / 119)
            ),
        },
        line(1, 2, first),
        line(2, 1, second),
        Row {
            entity: "payments",
            id: format!("payment-{number}"),
            payload: format!(
                r#"{{"receiptId":"{receipt}","method":"card","terminal":"terminal-{till:02}","amount":"{}","paidAt":"{at}"}}"#,
                euros(total)
            ),
        },
        Row {
            entity: "financial_entries",
            id: format!("entry-{number}"),
            payload: format!(
                r#"{{"receiptId":"{receipt}","account":"4400","amount":"{}","bookedAt":"{at}"}}"#,
                euros(total)
            ),
        },
    ];
    Sale { root: receipt, rows }
}

impl Sale {
    /// The sale as a line of an operations file, to fill an outbox with.
    pub(super) fn operation_line(&self) -> OperationLine {
        let edit = |row: &Row| {
            let payload = Payload::parse(&row.payload, &Limits::default()).expect("the bench's payloads are small objects");
            (RecordKey::new(row.entity, &row.id).expect("the bench's ids are valid"), Edit::Upsert(payload))
        };
        OperationLine {
            group_type: Some(GroupType::new("receipt-create").expect("a valid type")),
            root: self.root.clone(),
            group_id: None,
            edits: self.rows.iter().map(edit).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_as_large_as_said_and_no_two_records_share_an_id() {
        let sales = sales(3, 1, 500);
        let rows: Vec<&Row> = sales.iter().flat_map(|sale| &sale.rows).collect();
        assert!(rows.iter().all(|row| (95..=185).contains(&row.payload.len())));
        let ids: std::collections::BTreeSet<_> = rows.iter().map(|row| (row.entity, &row.id)).collect();
        assert_eq!(ids.len(), rows.len());
        assert!(sales.iter().all(|sale| sale.operation_line().edits.len() as u64 == RECORDS));
    }
}
