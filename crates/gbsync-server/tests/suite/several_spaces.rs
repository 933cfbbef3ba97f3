//! Pushes of several spaces that wait for a busy writer share a transaction, and what becomes of one is nothing to another.

use crate::common::*;
use gbsync_server::FaultPoint;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SPACES: [&str; 4] = ["north", "east", "south", "west"];
/// How long it takes at most until a push waits for a writer.
const ON_ITS_WAY: Duration = Duration::from_millis(300);

/// What stands between a transaction and its COMMIT.
#[derive(Default)]
struct Gate {
    is_closed: AtomicBool,
    /// Whether the next transaction that comes to it open fails.
    is_broken: AtomicBool,
}

impl Gate {
    /// Whether this COMMIT fails.
    fn pass(&self) -> bool {
        if !self.is_closed.load(Ordering::SeqCst) {
            return self.is_broken.swap(false, Ordering::SeqCst);
        }
        while self.is_closed.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

struct Shops {
    app: Arc<TestApp>,
    gate: Arc<Gate>,
    tokens: Vec<String>,
}

impl Shops {
    /// A server with two writers where the store has several, and shops each of which sold something.
    async fn open() -> Self {
        let gate = Arc::new(Gate::default());
        let of_server = Arc::clone(&gate);
        let app = TestApp::with(move |config| {
            config.writers = 2;
            config.fault = Some(FaultPoint(Arc::new(move || of_server.pass())));
        })
        .await;
        let tokens = SPACES.iter().map(|space| token(&app.store, space, None, None)).collect();
        let shops = Self { app: Arc::new(app), gate, tokens };
        for shop in 0..SPACES.len() {
            assert_eq!(shops.push(shop, 1).await.verdicts(), ["accepted"]);
        }
        shops
    }

    async fn push(&self, shop: usize, number: u64) -> Answer {
        let group = receipt(&format!("g-{number}"), number, &format!("r-{number}"));
        let url = self.app.url(&format!("/v1/spaces/{}/push", SPACES[shop]));
        let request = self.app.http.post(url).bearer_auth(&self.tokens[shop]);
        Answer::of(request.header("content-type", "application/json").body(envelope("till", "e1", &[group]))).await
    }

    /// Lets the pushes of two shops hold all writers, and those of the two others wait; how all were answered.
    async fn push_all_while_writers_are_busy(&self, then_break: bool) -> Vec<Answer> {
        self.gate.is_closed.store(true, Ordering::SeqCst);
        let late = |shop| async move {
            tokio::time::sleep(ON_ITS_WAY).await;
            self.push(shop, 2).await
        };
        let opened = async {
            tokio::time::sleep(2 * ON_ITS_WAY).await;
            self.gate.is_broken.store(then_break, Ordering::SeqCst);
            self.gate.is_closed.store(false, Ordering::SeqCst);
        };
        let (a, b, c, d, ()) = tokio::join!(self.push(0, 2), self.push(1, 2), late(2), late(3), opened);
        vec![a, b, c, d]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_writer_shares_a_transaction_whatever_its_space() {
    let shops = Shops::open().await;
    let before = shops.app.counters();
    for answer in shops.push_all_while_writers_are_busy(false).await {
        assert_eq!(answer.verdicts(), ["accepted"]);
        assert_eq!(answer.result(0)["seq"], 2);
    }
    let after = shops.app.counters();
    assert_eq!(after.pushes - before.pushes, 4);
    assert!(after.transactions - before.transactions <= 3, "{before:?} {after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_several_spaces_that_fails_costs_none_of_them_its_push() {
    let shops = Shops::open().await;
    for answer in shops.push_all_while_writers_are_busy(true).await {
        assert_eq!(answer.verdicts(), ["accepted"]);
    }
    assert!(!shops.gate.is_broken.load(Ordering::SeqCst), "no transaction failed");
    assert_eq!(shops.app.counters().failed_transactions, 0);
}
