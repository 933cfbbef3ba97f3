//! A push costs the same number of round trips to PostgreSQL however much it holds.

use super::common::*;
use super::outcome::{Stand, stand};
use gbsync_core::schema::Schema;

/// Pushes after which every connection of a node has met every statement.
const WARM: usize = 20;
/// Every record refers to another, and has a value that no other may have.
const SCHEMA: &str = r#"
version = 1
[entities.receipts]
fields.total = "text"
[entities.payments]
unique = [["no"]]
fields.no = "text"
fields.receiptId = { type = "text", required = true, references = "receipts" }
"#;

/// A node, and how many groups it was sent.
struct Pushing {
    stand: Stand,
    sent: u64,
}

impl Pushing {
    async fn push(&mut self, groups: usize, records: usize) {
        let groups: Vec<TestGroup> = (0..groups)
            .map(|_| {
                self.sent += 1;
                let payment = |number: usize| {
                    let id = format!("p-{}-{number}", self.sent);
                    upsert("payments", &id, 0, &format!(r#"{{"no":"{id}","receiptId":"r"}}"#))
                };
                let payments: Vec<String> = (0..records).map(payment).collect();
                TestGroup::of(&format!("g-{}", self.sent), self.sent, &payments)
            })
            .collect();
        let verdicts = self.stand.app.push(&groups).await.verdicts();
        assert!(verdicts.iter().all(|verdict| verdict == "accepted") && verdicts.len() == groups.len(), "{verdicts:?}");
    }

    /// The least of several pushes: what a node does beside a push may add to one.
    async fn least(&mut self, groups: usize, records: usize) -> u64 {
        let mut least = u64::MAX;
        for _ in 0..3 {
            self.stand.proxy.count_round_trips();
            self.push(groups, records).await;
            least = least.min(self.stand.proxy.round_trips());
        }
        least
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_of_four_thousand_records_costs_as_many_round_trips_as_one_of_a_single_record() {
    let rules = Schema::parse(SCHEMA).unwrap_or_else(|problems| panic!("{problems}"));
    for schema in [None, Some(rules)] {
        let has_rules = schema.is_some();
        let stand = stand(&[], |config| (config.schema, config.writers) = (schema, 1)).await;
        assert_eq!(stand.app.push(&[receipt("g-1", 1, "r")]).await.verdicts(), ["accepted"]);
        let mut pushing = Pushing { stand, sent: 1 };
        // A connection prepares each statement once in its life.
        for _ in 0..WARM {
            pushing.push(1, 1).await;
        }
        let (small, large) = (pushing.least(1, 1).await, pushing.least(200, 20).await);
        assert!((1..=5).contains(&small), "{small} round trips of a push: is that what is counted?");
        assert_eq!(large, small, "with rules: {has_rules}");
    }
}
