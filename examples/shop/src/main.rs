//! A shop with a server, two tills and an office, told as a story. `cargo run -p shop` runs it; it ends with 1 when anything
//! is not as said.

#![expect(clippy::print_stdout, reason = "the story is told on standard output")]

mod sale;
mod shop;

use anyhow::{Context, Result, bail};
use gbsync_core::schema::Schema;
use sale::Item;
use shop::{Shop, Till};

const SCHEMA: &str = include_str!("../gbsync.toml");

fn main() -> Result<()> {
    let shop = Shop::open(Schema::parse(SCHEMA)?)?;
    let anna = shop.till("anna", "anna", "cashier")?;
    let ben = shop.till("ben", "ben", "cashier")?;
    let office = shop.till("office", "olga", "manager")?;

    open_the_shop(&office, [&anna, &ben])?;
    a_sale_is_one_operation(&anna, &ben)?;
    a_receipt_is_edited(&anna, &ben)?;
    a_cashier_may_not_void(&anna)?;
    the_office_voids(&office, &anna)?;
    the_last_pen_is_sold_twice(&anna, &ben)?;
    everybody_has_the_same(&shop, [&anna, &ben, &office])?;
    shop.close()
}

fn open_the_shop(office: &Till, tills: [&Till; 2]) -> Result<()> {
    chapter("The office fills the shelf");
    for (id, name, price, quantity) in
        [("roll", "Paper roll", "4.00", 10), ("pen", "Pen", "2.50", 1), ("pencil", "Pencil", "2.50", 5)]
    {
        office.client.operation("product-create", id, |op| {
            op.upsert("products", id, format!(r#"{{"name":"{name}","price":"{price}"}}"#))?;
            op.upsert("stock", id, format!(r#"{{"productId":"{id}","quantity":{quantity}}}"#))
        })?;
    }
    office.sync()?;
    for till in tills {
        till.sync()?;
        check("a till has the products in a table", till.sql("SELECT count(*) FROM products")?, "3")?;
    }
    Ok(())
}

const TWO_ROLLS: Item = Item { product: "roll", count: 2, cents: 400 };
const THREE_ROLLS: Item = Item { count: 3, ..TWO_ROLLS };
const ONE_PEN: Item = Item { product: "pen", count: 1, cents: 250 };
const ONE_PENCIL: Item = Item { product: "pencil", ..ONE_PEN };

fn a_sale_is_one_operation(anna: &Till, ben: &Till) -> Result<()> {
    chapter("Anna sells two rolls offline: receipt, payment, entry and stock are one operation");
    sale::sell(&anna.client, "r-1", TWO_ROLLS)?;
    let number = anna.sql("SELECT no FROM receipts WHERE id = 'r-1'")?;
    check("the number was allotted without the server", number.ends_with("-000001").to_string(), "true")?;
    anna.sync()?;
    ben.sync()?;
    check("Ben sees the same number", ben.sql("SELECT no FROM receipts WHERE id = 'r-1'")?, &number)?;
    check("and the money, exact", ben.sql("SELECT total FROM receipts WHERE id = 'r-1'")?, "8.00")?;
    let places = "SELECT count(DISTINCT version) FROM gbsync_records WHERE id IN ('r-1', 'r-1-p1', 'r-1-e1')";
    check("all of it came with one position of the log", ben.sql(places)?, "1")?;
    check("eight rolls are left", ben.sql("SELECT quantity FROM stock WHERE id = 'roll'")?, "8")
}

fn a_receipt_is_edited(anna: &Till, ben: &Till) -> Result<()> {
    chapter("The customer takes one more: a receipt-edit");
    sale::sell_one_more(&anna.client, "r-1", TWO_ROLLS)?;
    anna.sync()?;
    ben.sync()?;
    check("Ben sees the new total", ben.sql("SELECT total FROM receipts WHERE id = 'r-1'")?, "12.00")?;
    check("and both payments", ben.sql("SELECT group_concat(amount, ' + ') FROM payments")?, "8.00 + 4.00")?;
    let alone = anna.client.operation("receipt-edit", "r-1", |op| op.patch("receipts", "r-1", r#"{"total":"99.00"}"#));
    let refused = alone.err().map_or_else(|| "nothing".into(), |error: gbsync_client::Error| error.to_string());
    check(
        "a total without its payment is refused at once, on the till",
        refused.contains("payments-cover-total").to_string(),
        "true",
    )
}

fn a_cashier_may_not_void(anna: &Till) -> Result<()> {
    chapter("Anna, a cashier, tries to void the receipt");
    let void = sale::void(&anna.client, "r-1", THREE_ROLLS)?;
    check("her till shows it voided until the server answers", anna.sql("SELECT count(*) FROM receipts")?, "0")?;
    anna.sync()?;
    let parked = anna.client.parked_group(&void.group_id)?.context("the void is parked")?;
    check("the server refuses the whole operation", parked.group.code.unwrap_or_default(), "not_permitted")?;
    check(
        "receipt and payments are back",
        anna.sql("SELECT count(*) FROM receipts JOIN payments ON receiptId = receipts.id")?,
        "2",
    )?;
    check("and the shelf is as it was", anna.sql("SELECT quantity FROM stock WHERE id = 'roll'")?, "7")?;
    anna.client.discard(&void.group_id, "voiding is the office's business")?;
    anna.sync()?;
    Ok(())
}

fn the_office_voids(office: &Till, anna: &Till) -> Result<()> {
    chapter("The office voids it");
    office.sync()?;
    sale::void(&office.client, "r-1", THREE_ROLLS)?;
    office.sync()?;
    anna.sync()?;
    check("the receipt is gone", anna.sql("SELECT count(*) FROM receipts")?, "0")?;
    check("its payments went with it", anna.sql("SELECT count(*) FROM payments")?, "0")?;
    check(
        "the books keep every entry",
        anna.sql("SELECT group_concat(amount, ' ') FROM (SELECT amount FROM entries ORDER BY id)")?,
        "8.00 4.00 -12.00",
    )?;
    check("and come out even", anna.sql("SELECT sum(amount_minor) FROM entries")?, "0")?;
    check("ten rolls are on the shelf", anna.sql("SELECT quantity FROM stock WHERE id = 'roll'")?, "10")
}

fn the_last_pen_is_sold_twice(anna: &Till, ben: &Till) -> Result<()> {
    chapter("Anna and Ben, both offline, sell the last pen");
    ben.sync()?;
    sale::sell(&anna.client, "r-2", ONE_PEN)?;
    let refused = sale::sell(&ben.client, "r-3", ONE_PEN)?;
    sale::note(&ben.client, "r-3", "gift wrapped")?;
    anna.sync()?;
    ben.sync()?;
    let why = ben.sql("SELECT sync_state || ': ' || sync_message FROM receipts_all WHERE id = 'r-3'")?;
    say(&format!("Ben's receipt in receipts_all: {why}"));
    let parked = ben.client.parked_group(&refused.group_id)?.context("the sale is parked")?;
    check("the rule at fault", parked.rule.unwrap_or_default(), "stock.quantity")?;
    check("Ben's sale left his tables whole", ben.sql("SELECT count(*) FROM receipts WHERE id = 'r-3'")?, "0")?;
    check("with its payment and its entry", ben.sql("SELECT count(*) FROM payments WHERE receiptId = 'r-3'")?, "0")?;
    check(
        "and with the note that was written on it",
        ben.sql("SELECT count(*) FROM gbsync_group WHERE state = 'parked'")?,
        "2",
    )?;
    for till in [anna, ben] {
        check("no pen is left, and none is owed", till.sql("SELECT quantity FROM stock WHERE id = 'pen'")?, "0")?;
    }
    say("Ben's customer takes a pencil");
    sale::sell_instead(&ben.client, &refused.group_id, "r-3", ONE_PENCIL)?;
    ben.sync()?;
    ben.sync()?;
    anna.sync()?;
    check("the amended sale got through", anna.sql("SELECT total FROM receipts WHERE id = 'r-3'")?, "2.50")?;
    check("the note followed by itself", anna.sql("SELECT note FROM receipts WHERE id = 'r-3'")?, "gift wrapped")?;
    check("a pencil left the shelf", anna.sql("SELECT quantity FROM stock WHERE id = 'pencil'")?, "4")?;
    check("nothing is parked any more", ben.sql("SELECT count(*) FROM gbsync_group WHERE state = 'parked'")?, "0")
}

fn everybody_has_the_same(shop: &Shop, tills: [&Till; 3]) -> Result<()> {
    chapter("In the evening everybody has the same, byte for byte");
    let server = shop.digest()?;
    for till in tills {
        till.sync()?;
        check("cursor, records and digest are the server's", till.digest()?, &server)?;
    }
    Ok(())
}

fn chapter(title: &str) {
    println!("\n{title}");
}

fn say(sentence: &str) {
    println!("    {sentence}");
}

/// Tells what was seen, and ends the story when it is not what was promised.
fn check(sentence: &str, seen: String, promised: &str) -> Result<()> {
    if seen != promised {
        bail!("{sentence}: promised {promised}, seen {seen}");
    }
    println!("  ok  {sentence}: {seen}");
    Ok(())
}
