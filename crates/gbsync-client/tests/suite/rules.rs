//! The rules of a schema on devices: held against an operation before it is sealed, and what the server refuses undone whole.

use crate::common::{Device, Faulty, World, is_push};
use gbsync_client::{BoxFuture, Error, GroupState, Request, Response, Sealed, SyncOptions, Transport, TransportError};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const SHOP: &str = r#"
version = 1
[entities.customers]
fields.name = "text"
[entities.products]
fields.name = "text"
[entities.receipts]
ungrouped = "refuse"
unique = [["no"]]
fields.no = "text"
fields.total = { type = "decimal", scale = 2, required = true }
fields.customerId = { type = "text", references = "customers" }
[entities.payments]
fields.receiptId = { type = "text", required = true, references = "receipts", on_delete = "cascade" }
fields.amount = { type = "decimal", scale = 2, required = true }
[entities.entries]
fields.receiptId = { type = "text", required = true, references = "receipts", on_delete = "ignore" }
[entities.stock]
fields.quantity = { type = "integer", counter = true, min = 0 }
[operations.receipt-create]
shape = { receipts = "1", payments = "0..", stock = "0.." }
"#;

fn shop() -> (World, Device, Device) {
    let world = World::under(SHOP);
    let (a, b) = (world.device_under("a", SHOP), world.device_under("b", SHOP));
    (world, a, b)
}

fn stocked(a: &Device, b: &Device, quantity: i64) {
    a.client.upsert("stock", "roll", format!(r#"{{"quantity":{quantity}}}"#)).unwrap();
    a.client.upsert("products", "roll", r#"{"name":"Roll"}"#).unwrap();
    a.sync();
    b.sync();
}

fn sell(device: &Device, receipt: &str, item: &str) -> Result<Sealed, Error> {
    device.client.operation("receipt-create", receipt, |op| {
        op.upsert("receipts", receipt, r#"{"total":"2.5"}"#)?;
        op.upsert("payments", &format!("p-{receipt}"), format!(r#"{{"receiptId":"{receipt}","amount":"2.50"}}"#))?;
        op.increment("stock", item, r#"{"quantity":-1}"#)
    })
}

#[test]
fn of_two_offline_sales_of_the_last_item_one_is_parked_whole_and_the_stock_is_right_everywhere() {
    let (world, a, b) = shop();
    stocked(&a, &b, 1);
    sell(&a, "r-a", "roll").unwrap();
    sell(&b, "r-b", "roll").unwrap();
    assert_eq!(a.sync().accepted, 1);
    let report = b.sync();
    assert_eq!(report.parked.len(), 1);
    assert_eq!(report.parked[0].code.as_deref(), Some("bound_violation"));
    a.sync();
    for device in [&a, &b] {
        assert_eq!(device.read("stock", "roll").unwrap(), r#"{"quantity":0}"#);
        assert_eq!(device.read("receipts", "r-a").unwrap(), r#"{"total":"2.50"}"#);
        assert_eq!(device.read("receipts", "r-b"), None);
        assert_eq!(device.read("payments", "p-r-b"), None);
        assert_eq!(device.digest(), world.digest());
    }
}

#[test]
fn a_till_renames_a_product_while_others_sell_it_without_a_conflict() {
    let (world, a, b) = shop();
    stocked(&a, &b, 10);
    a.client.patch("products", "roll", r#"{"name":"Paper roll"}"#).unwrap();
    for sale in 0..3 {
        sell(&b, &format!("r-{sale}"), "roll").unwrap();
    }
    b.sync();
    a.sync();
    b.sync();
    assert!(a.states().iter().chain(&b.states()).all(|(state, _)| *state == GroupState::Accepted));
    assert_eq!(b.read("products", "roll").unwrap(), r#"{"name":"Paper roll"}"#);
    assert_eq!(a.read("stock", "roll").unwrap(), r#"{"quantity":7}"#);
    assert_eq!((a.digest(), b.digest()), (world.digest(), world.digest()));
}

#[test]
fn of_two_edits_of_one_receipt_one_is_parked_with_the_record_as_it_is() {
    let (_world, a, b) = shop();
    stocked(&a, &b, 10);
    sell(&a, "r1", "roll").unwrap();
    a.sync();
    b.sync();
    let edit = |device: &Device, total: &str| {
        let patch = format!(r#"{{"total":"{total}"}}"#);
        device.client.operation::<Error>("receipt-edit", "r1", |op| op.patch("receipts", "r1", patch)).unwrap()
    };
    edit(&a, "3.00");
    edit(&b, "4.00");
    a.sync();
    let report = b.sync();
    assert_eq!(report.parked[0].code.as_deref(), Some("conflict"));
    let verdict = report.parked[0].verdict.as_deref().unwrap();
    assert!(verdict.contains(r#""code":"version_conflict""#) && verdict.contains(r#""total":"3.00""#), "{verdict}");
    assert_eq!(b.read("receipts", "r1").unwrap(), r#"{"total":"3.00"}"#);
}

#[test]
fn a_group_with_one_bad_reference_is_refused_alone_and_those_behind_it_are_accepted_in_the_same_flush() {
    let (world, a, b) = shop();
    a.client.upsert("customers", "c1", r#"{"name":"Ann"}"#).unwrap();
    a.sync();
    b.sync();
    b.client.delete("customers", "c1").unwrap();
    b.sync();
    // This till has not heard of it.
    a.client
        .operation::<Error>("receipt-create", "bad", |op| op.upsert("receipts", "bad", r#"{"total":"1","customerId":"c1"}"#))
        .unwrap();
    for sale in 0..20 {
        let id = format!("r-{sale}");
        a.client.operation::<Error>("receipt-create", &id, |op| op.upsert("receipts", &id, r#"{"total":"1.00"}"#)).unwrap();
    }
    let report = a.sync();
    assert_eq!((report.accepted, report.parked.len(), report.waiting), (20, 1, 0));
    assert_eq!(report.parked[0].code.as_deref(), Some("dangling_reference"));
    assert_eq!(a.read("receipts", "bad"), None);
    assert_eq!(a.digest(), world.digest());
}

#[test]
fn an_operation_that_breaks_a_rule_is_refused_before_it_is_sealed_and_leaves_nothing() {
    let (_world, a, b) = shop();
    stocked(&a, &b, 1);
    let before = a.client.status().unwrap().sealed_through;
    let broken = |write: &dyn Fn(&mut gbsync_client::Operation) -> Result<(), Error>| {
        let error = a.client.operation("receipt-create", "r1", |op| write(op)).unwrap_err();
        let Error::RuleViolated { rule, index, .. } = &error else { panic!("{error:?}") };
        (error.code(), rule.clone().unwrap_or_default(), *index)
    };
    assert_eq!(
        broken(&|op| op.upsert("receipts", "r1", r#"{"no":"1"}"#)),
        ("schema_violation", "receipts.total".into(), Some(0))
    );
    assert_eq!(
        broken(&|op| op.upsert("receipts", "r1", r#"{"total":"1.005"}"#)),
        ("schema_violation", "receipts.total".into(), Some(0))
    );
    assert_eq!(
        broken(&|op| {
            op.upsert("receipts", "r1", r#"{"total":"1"}"#)?;
            op.upsert("payments", "p1", r#"{"receiptId":"r2","amount":"1"}"#)
        }),
        ("dangling_reference", "payments.receiptId".into(), Some(1))
    );
    assert_eq!(
        broken(&|op| {
            op.upsert("receipts", "r1", r#"{"total":"1"}"#)?;
            op.increment("stock", "roll", r#"{"quantity":-2}"#)
        }),
        ("bound_violation", "stock.quantity".into(), Some(1))
    );
    assert_eq!(broken(&|op| op.increment("stock", "roll", r#"{"quantity":-1}"#)).0, "shape_violation");
    assert_eq!(a.client.status().unwrap().sealed_through, before);
    assert_eq!(a.read("receipts", "r1"), None);
    assert_eq!(a.read("stock", "roll").unwrap(), r#"{"quantity":1}"#);
}

#[test]
fn a_number_that_another_record_has_is_refused_before_it_is_sealed() {
    let (_world, a, _) = shop();
    let create =
        |id: &str| a.client.operation("receipt-create", id, |op| op.upsert("receipts", id, r#"{"no":"7","total":"1.00"}"#));
    create("r1").unwrap();
    let error: Error = create("r2").unwrap_err();
    assert_eq!((error.code(), error.to_string().contains("receipts.no")), ("duplicate_value", true));
}

#[test]
fn a_record_that_needs_an_operation_is_not_written_alone() {
    let (_world, a, _) = shop();
    let error = a.client.upsert("receipts", "r1", r#"{"total":"1.00"}"#).unwrap_err();
    assert_eq!(error.code(), "shape_violation");
    assert!(matches!(&error, Error::RuleViolated { rule: Some(rule), .. } if rule == "receipts.ungrouped"), "{error:?}");
    assert_eq!(a.read("receipts", "r1"), None);
}

#[test]
fn what_a_group_refers_to_comes_before_it_and_what_refers_to_a_record_before_its_delete() {
    let (_world, a, _) = shop();
    let seal = |root: &str, write: &dyn Fn(&mut gbsync_client::Operation) -> Result<(), Error>| {
        a.client.operation("edit", root, |op| write(op)).unwrap().group_id
    };
    let customer = seal("c1", &|op| op.upsert("customers", "c1", r#"{"name":"Ann"}"#));
    let receipt = seal("r1", &|op| op.upsert("receipts", "r1", r#"{"total":"1.00","customerId":"c1"}"#));
    let parted = seal("r1", &|op| op.patch("receipts", "r1", r#"{"customerId":null}"#));
    let gone = seal("c1", &|op| op.delete("customers", "c1"));
    let waits_for = |id: &gbsync_core::id::GroupId| -> String {
        a.query(&format!("SELECT coalesce(depends_on, '[]') FROM gbsync_outbox WHERE group_id = '{id}'"))
    };
    assert!(waits_for(&receipt).contains(customer.as_str()));
    assert!(waits_for(&gone).contains(parted.as_str()), "{}", waits_for(&gone));
    assert_eq!(a.sync().accepted, 4);
}

#[test]
fn a_decimal_is_shown_with_the_digits_of_its_scale_and_sent_as_it_was_written() {
    let (_world, a, b) = shop();
    stocked(&a, &b, 1);
    sell(&a, "r1", "roll").unwrap();
    assert_eq!(a.read("receipts", "r1").unwrap(), r#"{"total":"2.50"}"#);
    a.sync();
    assert!(a.transport.pushes().concat().contains(r#""payload":{"total":"2.5"}"#));
    assert_eq!(a.read("receipts", "r1").unwrap(), r#"{"total":"2.50"}"#);
}

#[test]
fn an_entry_may_be_written_for_a_receipt_that_was_deleted_before_and_for_none_that_never_was() {
    let (_world, a, b) = shop();
    stocked(&a, &b, 10);
    sell(&a, "r-1", "roll").unwrap();
    a.sync();
    let void: Result<Sealed, Error> = a.client.operation("receipt-void", "r-1", |op| op.delete("receipts", "r-1"));
    void.unwrap();
    a.client.upsert("entries", "e-1", r#"{"receiptId":"r-1"}"#).unwrap();
    assert_eq!(a.sync().parked, []);
    b.sync();
    b.client.upsert("entries", "e-2", r#"{"receiptId":"r-1"}"#).unwrap();
    let error = b.client.upsert("entries", "e-3", r#"{"receiptId":"r-9"}"#).unwrap_err();
    assert_eq!(error.code(), "dangling_reference");
    assert_eq!(b.sync().parked, []);
}

/// A network on which each push takes longer than the one after it.
struct Overtaking<'f> {
    through: &'f Faulty,
    pushes: AtomicU32,
}

impl Transport for Overtaking<'_> {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Response, TransportError>> {
        let before = if is_push(&request) { self.pushes.fetch_add(1, Ordering::Relaxed) } else { u32::MAX };
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(300 >> before.min(16))).await;
            self.through.send(request).await
        })
    }
}

#[test]
fn a_sale_does_not_overtake_the_delivery_that_it_needs() {
    let (world, a, b) = shop();
    stocked(&a, &b, 0);
    a.client.increment("stock", "roll", r#"{"quantity":5}"#).unwrap();
    a.client.increment("stock", "roll", r#"{"quantity":-3}"#).unwrap();
    let through = Overtaking { through: &a.transport, pushes: AtomicU32::new(0) };
    let options = SyncOptions { batch_records: Some(1), ..SyncOptions::default() };
    let report = world.runtime.block_on(a.client.sync(&through, &options)).unwrap();
    assert_eq!((report.accepted, report.parked), (2, Vec::new()));
    assert_eq!(through.pushes.into_inner(), 2, "each went by itself");
    assert_eq!(a.read("stock", "roll").unwrap(), r#"{"quantity":2}"#);
}
