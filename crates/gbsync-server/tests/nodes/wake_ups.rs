//! Who waits at one node for what is pushed at another: woken by NOTIFY, and by polling where that is lost.
//!
//! The node that waits reaches PostgreSQL through a proxy that ends the connection of whoever listens, or of whoever polls, so
//! that each way is seen to do it alone.

use super::outcome::{Stand, stand};
use super::proxy::Proxy;
use super::{another, common::*, push};
use gbsync_server::Server;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a node says to listen, and what it says to poll.
const LISTEN: &str = "LISTEN ";
const POLL: &str = "SELECT space, head FROM spaces WHERE space = ANY";
/// How long it may take by NOTIFY at best: a quarter of the time between two polls.
const AT_ONCE: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(20);

/// A node that waits behind a proxy, and one beside it.
struct Pair {
    waiting: Arc<TestApp>,
    proxy: Proxy,
    other: Server,
    pushed: u64,
}

impl Pair {
    async fn start(refused: &'static [&'static str]) -> Self {
        let Stand { app, proxy, .. } = stand(refused, |_| {}).await;
        let other = another(&app, |_| {}).await;
        Self { waiting: Arc::new(app), proxy, other, pushed: 0 }
    }

    /// How long after a push at one node the other answers who waits there for so many seconds; `None` where nothing came.
    async fn time(&mut self, wait_s: u64) -> Option<Duration> {
        let (waiting, after, asked) = (Arc::clone(&self.waiting), self.pushed, Instant::now());
        let waiting = tokio::spawn(async move {
            let page = waiting.get(&format!("/log?after={after}&wait={wait_s}")).await;
            (page.json(), Instant::now())
        });
        // Until it waits, and until whoever polls was cut off.
        tokio::time::sleep(Duration::from_millis(1_300)).await;
        assert!(!waiting.is_finished());
        self.pushed += 1;
        let id = format!("g{}", self.pushed);
        let answer = push(&self.waiting, &self.other, "till-1", &[receipt(&id, self.pushed, &id)]).await;
        assert_eq!(answer.verdicts(), ["accepted"]);
        let pushed = Instant::now();
        let (page, woken) = waiting.await.unwrap();
        // At the end of its time the request is answered with what is there then, and nobody was woken.
        (woken - asked < Duration::from_secs(wait_s)).then(|| {
            assert_eq!(page["groups"][0]["syncGroupId"], id.as_str());
            woken.saturating_duration_since(pushed)
        })
    }
}

async fn cut_off(proxy: &Proxy) {
    let begun = Instant::now();
    while proxy.cuts() == 0 {
        assert!(begun.elapsed() < PATIENCE, "nobody was cut off");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_at_one_node_is_woken_at_once_by_a_push_at_another_without_polling() {
    let mut pair = Pair::start(&[POLL]).await;
    let mut best = PATIENCE;
    for _ in 0..5 {
        best = best.min(pair.time(20).await.expect("it was woken"));
    }
    assert!(pair.proxy.cuts() > 0, "nobody polled, so nobody was cut off");
    assert!(best < AT_ONCE, "{best:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_where_nobody_listens_is_woken_by_polling() {
    let mut pair = Pair::start(&[LISTEN]).await;
    cut_off(&pair.proxy).await;
    for _ in 0..3 {
        let took = pair.time(20).await.expect("it was woken");
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
}

/// What shows that the two tests above see what they say.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_where_nobody_listens_or_polls_is_not_woken() {
    let mut pair = Pair::start(&[LISTEN, POLL]).await;
    cut_off(&pair.proxy).await;
    assert_eq!(pair.time(6).await, None);
}
