//! What people of the shop do, in operations whose parts prove each other.
//!
//! Who made a receipt alone changes what it costs, so that in every state of every file, confirmed or not, a receipt costs what
//! its payments pay and its entries book, and a product has lost one piece for each first entry that names it. Others only
//! write notes on it, which conflict with that and get operations refused.

use crate::hands::Hand;
use crate::shop::Dice;
use serde_json::{Value, json};

/// Products and how many of each there are at first; the last one runs out.
pub const PRODUCTS: [(&str, u64); 4] = [("tea", 1_000_000), ("roll", 1_000_000), ("jam", 1_000_000), ("rare", 12)];
/// Records of a stock-take: more than one request holds.
const COUNTED: u64 = 300;

/// One operation. Its root is its own and says who does it, and a sale's also what is sold.
pub struct Deed {
    pub root: String,
    act: Act,
}

enum Act {
    Sale { product: &'static str, parts: Vec<i64> },
    Payment { receipt: String, cents: i64 },
    Note { receipt: String },
    Void { receipt: String },
    Price { product: &'static str, cents: i64 },
    StockTake,
}

/// What a writer knows and can.
pub struct Terms<'a> {
    pub device: &'a str,
    /// Receipts that the device shows.
    pub receipts: &'a [String],
    /// Whether it looks at a record inside the operation.
    pub reads: bool,
    /// Whether it may delete: plain SQL shows what follows from that a moment later.
    pub voids: bool,
}

impl Deed {
    pub fn draw(dice: &mut Dice, number: u64, terms: &Terms<'_>) -> Self {
        let one = |dice: &mut Dice, ids: Vec<&String>| match ids.len() as u64 {
            0 => None,
            count => Some(ids[dice.below(count) as usize].clone()),
        };
        let is_own = |id: &&String| id.starts_with(terms.device);
        let own = one(dice, terms.receipts.iter().filter(is_own).collect());
        let any = one(dice, terms.receipts.iter().collect());
        let product = PRODUCTS[dice.below(4) as usize].0;
        let cents = |dice: &mut Dice| 1 + dice.below(9_999) as i64;
        let act = match (dice.below(100), own, any) {
            (0..15, Some(receipt), _) if terms.reads => Act::Payment { receipt, cents: cents(dice) },
            (15..21, Some(receipt), _) if terms.reads && terms.voids => Act::Void { receipt },
            (21..33, _, Some(receipt)) => Act::Note { receipt },
            (33..38, ..) => Act::Price { product, cents: cents(dice) },
            (38..41, ..) => Act::StockTake,
            _ => Act::Sale { product, parts: (0..=dice.below(3)).map(|_| cents(dice)).collect() },
        };
        let device = terms.device;
        let root = match &act {
            Act::Sale { product, .. } => format!("{device}{number}-{product}"),
            _ => format!("{device}{number}"),
        };
        Self { root, act }
    }

    pub fn group_type(&self) -> &'static str {
        match &self.act {
            Act::Sale { .. } => "receipt-create",
            Act::Payment { .. } | Act::Note { .. } => "receipt-edit",
            Act::Void { .. } => "receipt-void",
            Act::Price { .. } => "product-edit",
            Act::StockTake => "stock-take",
        }
    }

    /// Writes it by a hand.
    pub fn write(&self, hand: &mut dyn Hand, has_schema: bool) -> Result<(), String> {
        let root = &self.root;
        match &self.act {
            Act::Sale { product, parts } => {
                let total: i64 = parts.iter().sum();
                hand.upsert("receipts", root, &json!({ "total": money(total) }))?;
                for (n, cents) in parts.iter().enumerate() {
                    hand.upsert("payments", &format!("{root}-p{n}"), &part(root, *cents))?;
                }
                hand.upsert("entries", &format!("{root}-e0"), &part(root, total - parts[0]))?;
                hand.upsert("entries", &format!("{root}-e1"), &part(root, parts[0]))?;
                hand.increment("stock", product, &json!({ "quantity": -1 }))
            }
            Act::Payment { receipt, cents } => {
                let total = cents_of(&hand.total(receipt)?.ok_or("the receipt has gone")?);
                hand.patch("receipts", receipt, &json!({ "total": money(total + cents) }))?;
                hand.upsert("payments", &format!("{root}-p"), &part(receipt, *cents))?;
                hand.upsert("entries", &format!("{root}-e"), &part(receipt, *cents))
            }
            Act::Note { receipt } => {
                hand.total(receipt)?.ok_or("the receipt has gone")?;
                hand.patch("receipts", receipt, &json!({ "note": root }))
            }
            Act::Void { receipt } => {
                let total = cents_of(&hand.total(receipt)?.ok_or("the receipt has gone")?);
                let payments = if has_schema { Vec::new() } else { hand.payments(receipt)? };
                payments.iter().try_for_each(|payment| hand.delete("payments", payment))?;
                hand.delete("receipts", receipt)?;
                hand.upsert("entries", &format!("{root}-r"), &part(receipt, -total))
            }
            Act::Price { product, cents } => hand.patch("products", product, &json!({ "price": money(*cents) })),
            Act::StockTake => (0..COUNTED).try_for_each(|n| {
                let pad = "counted twice, by two people, at night, with the lights on, and written down once more";
                let payload = json!({ "take": root, "records": COUNTED, "note": format!("{n}: {pad}") });
                hand.upsert("counts", &format!("{root}-{n}"), &payload)
            }),
        }
    }
}

/// What is there before anybody does anything, as lines of an operations file.
pub fn shelf() -> String {
    let line = |(product, quantity): (&str, u64)| {
        let change = |entity: &str, payload: Value| json!({ "entity": entity, "id": product, "action": "upsert", "payload": payload });
        let changes = [
            change("products", json!({ "name": product, "price": "2.50" })),
            change("stock", json!({ "productId": product, "quantity": quantity })),
        ];
        format!("{}\n", json!({ "type": "product-create", "root": product, "changes": changes }))
    };
    PRODUCTS.into_iter().map(line).collect()
}

fn part(receipt: &str, cents: i64) -> Value {
    json!({ "receiptId": receipt, "amount": money(cents) })
}

fn money(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100)
}

fn cents_of(money: &str) -> i64 {
    money.replace('.', "").parse().unwrap()
}
