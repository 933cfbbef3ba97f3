//! What became of a COMMIT whose answer never came.

use super::common::*;
use super::proxy::{Cut, Proxy};
use gbsync_cluster::Cluster;
use gbsync_server::{Server, ServerConfig, StoreLocation};

/// A node that reaches PostgreSQL through the proxy.
pub struct Stand {
    pub proxy: Proxy,
    pub app: TestApp,
}

/// The same where whoever says one of these texts is cut off.
pub async fn stand(refused: &'static [&'static str], change: impl FnOnce(&mut ServerConfig)) -> Stand {
    let cluster = Cluster::shared().unwrap();
    let proxy = Proxy::start(cluster.socket_folder(), refused);
    let encoded = |folder: &std::path::Path| {
        percent_encoding::utf8_percent_encode(folder.to_str().unwrap(), percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    let direct = cluster.store();
    let url = direct.replace(&encoded(cluster.socket_folder()), &encoded(proxy.folder()));
    assert_ne!(url, direct);
    let store = StoreLocation::Postgres(direct);
    let token = token(&store, SPACE, None, None);
    let mut config = config(StoreLocation::Postgres(url));
    change(&mut config);
    let server = Server::start(config).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let app = TestApp { folder, store, cluster: Some(cluster), server: Some(server), token, http: http() };
    Stand { proxy, app }
}

/// A group and one that is refused: both verdicts are final, and told as those of the first time.
async fn push_over(cut: Cut) {
    let Stand { proxy, app } = stand(&[], |_| {}).await;
    assert_eq!(app.push(&[receipt("g1", 1, "r-1")]).await.verdicts(), ["accepted"]);
    proxy.cut_next(cut);
    let groups = [receipt("g2", 2, "r-2"), receipt("g3", 3, "r-1")];
    let answer = app.push(&groups).await;
    assert_eq!(answer.verdicts(), ["accepted", "rejected conflict"], "{cut:?}");
    assert_eq!(proxy.cuts(), 1, "nothing was cut");
    let result = |index| answer.result(index);
    assert_eq!((result(0)["seq"].as_u64(), result(0)["duplicate"].as_bool()), (Some(2), Some(false)), "{cut:?}");
    assert_eq!(app.stored("SELECT count(*), max(seq) FROM log"), ["2", "2"], "{cut:?}");
    assert_eq!(app.stored("SELECT count(*) FROM groups"), ["3"], "{cut:?}");
    let again = app.push(&groups).await;
    assert_eq!((again.result(0)["seq"].as_u64(), again.result(0)["duplicate"].as_bool()), (Some(2), Some(true)), "{cut:?}");
    assert_eq!(app.counters().failed_transactions, 0, "{cut:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_was_lost_is_found_and_answered_as_the_first_time() {
    push_over(Cut::After).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_never_arrived_is_found_missing_and_done_again() {
    push_over(Cut::Before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_takes_effect_after_the_connection_was_lost_is_waited_for() {
    push_over(Cut::Late).await;
}
