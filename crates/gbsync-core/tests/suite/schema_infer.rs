//! A first schema from data.

use expect_test::{Expect, expect};
use gbsync_core::limits::Limits;
use gbsync_core::schema::{Schema, infer};
use gbsync_core::wire::OperationLine;

fn check(lines: &str, expected: Expect) {
    let lines: Vec<OperationLine> =
        lines.lines().map(|line| OperationLine::parse(line.trim(), &Limits::default()).unwrap()).collect();
    let inferred = infer(&lines);
    let toml = inferred.to_toml();
    assert_eq!(Schema::parse(&toml).map_err(|problems| format!("{problems}\n{toml}")), Ok(inferred.schema));
    let text: String = toml.lines().skip(2).map(|line| format!("{line}\n")).collect();
    expected.assert_eq(&text);
}

#[test]
fn types_references_counters_and_shapes_come_from_the_data() {
    check(
        r#"{"changes":[{"entity":"customers","id":"c1","action":"upsert","payload":{"name":"Ada","born":"1815-12-10","vip":true,"tags":["x"]}}]}
           {"changes":[{"entity":"customers","id":"c2","action":"upsert","payload":{"name":"Grace","born":null,"vip":false,"parentId":"c1"}}]}
           {"type":"sell","root":"r1","changes":[{"entity":"receipts","id":"r1","action":"upsert","payload":{"total":"12.5","customerId":"c1","madeAt":"2026-06-03T20:52:59Z"}},{"entity":"payments","id":"p1","action":"upsert","payload":{"receiptId":"r1","amount":12.5,"zip":"12345"}},{"entity":"stock","id":"s1","action":"upsert","payload":{"quantity":9,"weight":0.123456}},{"entity":"stock","id":"s1","action":"increment","payload":{"quantity":-1}}]}
           {"type":"sell","root":"r2","changes":[{"entity":"receipts","id":"r2","action":"upsert","payload":{"total":"0.125","customerId":"c2","madeAt":"2026-06-03T20:52:59Z"}},{"entity":"payments","id":"p2","action":"upsert","payload":{"receiptId":"r2","amount":1,"zip":"00345"}},{"entity":"payments","id":"p3","action":"upsert","payload":{"receiptId":"r2","amount":1,"zip":"99999"}}]}
           {"changes":[{"entity":"customers","id":"c2","action":"patch","payload":{"name":null}}]}"#,
        expect![[r#"
            version = 1

            [entities.customers]
            fields.born = "date"
            fields.name = "text"
            fields.parentId = { type = "text", references = "customers" }
            fields.tags = "json"
            fields.vip = { type = "boolean", required = true }

            [entities.payments]
            # changed in operations only; ungrouped = "refuse" would keep it so
            fields.amount = { type = "decimal", scale = 1, required = true }
            fields.receiptId = { type = "text", required = true, references = "receipts" }
            fields.zip = { type = "text", required = true }

            [entities.receipts]
            # changed in operations only; ungrouped = "refuse" would keep it so
            fields.customerId = { type = "text", required = true, references = "customers" }
            fields.madeAt = { type = "timestamp", required = true }
            fields.total = { type = "decimal", scale = 3, required = true }

            [entities.stock]
            # changed in operations only; ungrouped = "refuse" would keep it so
            fields.quantity = { type = "integer", required = true, counter = true }
            fields.weight = { type = "real", required = true }

            [operations.sell]
            # seen 2 times
            shape = { payments = "1..", receipts = "1", stock = "0..1" } # payments: 1 to 2
        "#]],
    );
}

#[test]
fn what_cannot_be_said_becomes_a_remark() {
    check(
        r#"{"changes":[{"entity":"order","id":"o1","action":"upsert","payload":{"n":1}}]}
           {"changes":[{"entity":"items","id":"1","action":"upsert","payload":{"a b":1,"mixed":1,"nothing":null,"orderId":"o1","agentId":"1","price":"1.50","price_minor":150,"count":1}}]}
           {"changes":[{"entity":"agents","id":"1","action":"upsert","payload":{"mixed":"x"}}]}
           {"changes":[{"entity":"items","id":"2","action":"upsert","payload":{"mixed":"x","agentsId":"7","count":2,"ownerId":"1"}}]}
           {"changes":[{"entity":"items","id":"2","action":"increment","payload":{"count":2}}]}
           {"changes":[{"entity":"items","id":"2","action":"patch","payload":{"count":2}}]}
           {"type":"order it","root":"1","changes":[{"entity":"order","id":"o1","action":"delete"}]}"#,
        expect![[r#"
            # the entity "order" cannot be declared under this name, and would be refused
            version = 1

            [entities.agents]
            fields.mixed = { type = "text", required = true }

            [entities.items]
            # the field "a b" cannot be declared under this name; it stays undeclared
            fields.agentId = { type = "text", references = "agents" }
            fields.agentsId = "text" # looks like a reference to agents, but some values are no ids of it
            fields.count = { type = "integer", required = true } # was incremented and set; a counter is only incremented, so the increments will be refused
            fields.mixed = { type = "json", required = true } # values of several types were seen
            fields.nothing = "json" # only null was seen
            fields.orderId = "text"
            fields.ownerId = "text" # may refer to agents, items; add references = "…" if so
            fields.price = { type = "decimal", scale = 2 }

            [operations."order it"]
            # it changes an entity that cannot be declared, so it has no shape
        "#]],
    );
}
