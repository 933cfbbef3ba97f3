//! What a collector is told: a push is followed from the program that asked for it, over the device, to the COMMIT and the verdict
//! of each group, and nothing of it holds anybody up.

mod collector;

use crate::shop::{Ran, Serving, Shop, receipt};
use collector::{Collector, said};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// A trace and a span of somebody's program.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

const FILE: &str = "data = \"server\"\nlisten = \"127.0.0.1:0\"\n";
const SERVER: &str = "gbsync-server";
const PUSH: &str = "POST /v1/spaces/{space}/push";

/// Runs a server by a file and variables.
fn serve(shop: &Shop, file: &str, variables: &[(&str, &str)]) -> Serving {
    shop.write("server.toml", file);
    let mut command = shop.command(&["serve", "--config", "server.toml"]);
    command.envs(variables.iter().copied());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}")).to_owned();
    Serving { child, url, stdout }
}

/// `gbsync sync` under variables.
fn sync(shop: &Shop, file: &str, variables: &[(&str, &str)]) -> Ran {
    let mut command = shop.command(&["sync", file]);
    Ran::of(command.envs(variables.iter().copied()).output().unwrap())
}

fn group(shop: &Shop, file: &str) -> String {
    shop.value(file, "SELECT group_id FROM gbsync_group").as_str().unwrap().to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn endpoint(collector: &Collector) -> String {
    format!("{FILE}[telemetry]\nendpoint = \"{}/v1/traces\"\n", collector.url)
}

#[test]
fn a_trace_of_the_devices_program_goes_on_in_the_server_to_the_commit_and_the_verdict_of_each_group() {
    let (collector, shop) = (Collector::start(), Shop::new());
    let file = endpoint(&collector) + "[log]\nformat = \"json\"\nfilter = \"gbsync_server=debug\"\n";
    let server = serve(&shop, &file, &[]);
    let token = shop.token();
    for device in ["till.db", "other.db"] {
        shop.run(&["init", device, "--server", &server.url, "--space", "shop", "--token", &token]).done();
        shop.apply(device, &receipt("r-1"));
    }
    let parent = format!("00-{TRACE}-{SPAN}-01");
    sync(&shop, "till.db", &[("TRACEPARENT", &parent)]).done();
    // A receipt of the same name: refused.
    sync(&shop, "other.db", &[("TRACEPARENT", "what is no trace's name")]).done();
    let ran = server.terminate();
    assert_eq!(ran.code, Some(0));

    let told = collector.collected();
    let pushes = told.named(SERVER, PUSH);
    assert_eq!(pushes.len(), 2, "{:?}", told.names());
    let (first, second): (Vec<_>, Vec<_>) = pushes.into_iter().partition(|push| hex(&push.trace_id) == TRACE);
    let (first, second) = (first[0], second[0]);
    assert_eq!(hex(&first.parent_span_id), SPAN);
    assert_eq!(hex(&second.parent_span_id), "", "what is no trace begins one");
    let asked = ["http.route", "http.response.status_code", "space", "groups"].map(|key| said(first, key));
    assert_eq!(asked, ["/v1/spaces/{space}/push", "200", "shop", "1"]);
    assert!(!said(first, "device").is_empty() && said(first, "device") != said(second, "device"));
    for stage in ["gather", "decide", "commit"] {
        for push in [first, second] {
            let of_push = told.named(SERVER, stage).into_iter().filter(|span| span.parent_span_id == push.span_id);
            let spans: Vec<_> = of_push.collect();
            // The receipt that is there was taken for new, and decided once more.
            let times = if push.span_id == second.span_id && stage != "gather" { 2 } else { 1 };
            assert_eq!(spans.len(), times, "{stage}");
            assert!(spans[0].start_time_unix_nano >= push.start_time_unix_nano && spans[0].trace_id == push.trace_id);
        }
    }
    let groups = told.named(SERVER, "group");
    let of = |push: &[u8]| *groups.iter().find(|span| span.parent_span_id == push).unwrap();
    let keys = ["syncGroupId", "syncGroupType", "verdict", "code", "seq", "is_duplicate"];
    let accepted = keys.map(|key| said(of(&first.span_id), key));
    let id = group(&shop, "till.db");
    assert_eq!(accepted, [id.as_str(), "receipt-create", "accepted", "", "1", "false"]);
    let rejected = keys.map(|key| said(of(&second.span_id), key));
    let id = group(&shop, "other.db");
    assert_eq!(rejected, [id.as_str(), "receipt-create", "rejected", "conflict", "", "false"]);
    for secret in [token.as_str(), "1.00", "Bearer", "receiptId"] {
        assert!(!told.holds(secret), "{secret} was sent to the collector");
    }

    let lines = ran.stderr.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let push = lines.filter(|line| line["route"] == "/v1/spaces/{space}/push").collect::<Vec<_>>();
    let ids: Vec<_> = push.iter().map(|line| (line["trace_id"].as_str(), line["span_id"].as_str())).collect();
    let expected = [first, second].map(|push| (hex(&push.trace_id), hex(&push.span_id)));
    assert_eq!(ids, expected.each_ref().map(|(trace, span)| (Some(trace.as_str()), Some(span.as_str()))), "{}", ran.stderr);
}

#[test]
fn a_device_with_a_collector_tells_its_round_and_each_request_and_the_server_goes_on_below_them() {
    let (collector, shop) = (Collector::start(), Shop::new());
    let server = serve(&shop, FILE, &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &format!("{}/v1/traces", collector.url))]);
    shop.init("till.db", &server.url);
    shop.apply("till.db", &receipt("r-1"));
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let variables =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()), ("OTEL_SERVICE_NAME", "till-7"), ("TRACEPARENT", &parent)];
    sync(&shop, "till.db", &variables).done();
    assert_eq!(server.terminate().code, Some(0));
    let told = collector.collected();
    let round = told.one("till-7", "sync");
    assert_eq!((hex(&round.trace_id).as_str(), hex(&round.parent_span_id).as_str()), (TRACE, SPAN));
    let push = told.one(SERVER, PUSH);
    let sent = told.named("till-7", "POST").into_iter().find(|sent| sent.span_id == push.parent_span_id).unwrap();
    assert_eq!(sent.parent_span_id, round.span_id);
    assert_eq!(["url.path", "http.response.status_code"].map(|key| said(sent, key)), ["/v1/spaces/shop/push", "200"]);
    assert_eq!(told.one(SERVER, "group").parent_span_id, push.span_id);
    assert!(told.spans.iter().all(|(_, span)| hex(&span.trace_id) == TRACE), "{:?}", told.names());
}

#[test]
fn nothing_is_told_where_nobody_asks_and_what_no_client_follows_is_a_matter_of_chance() {
    let (collector, shop) = (Collector::start(), Shop::new());
    let address = collector.url.clone();
    let disabled = [("OTEL_EXPORTER_OTLP_ENDPOINT", address.as_str()), ("OTEL_SDK_DISABLED", "true")];
    for (file, variables) in
        [(FILE.to_owned(), &[] as &[_]), (FILE.to_owned(), &disabled), (endpoint(&collector), &disabled[1..])]
    {
        let server = serve(&shop, &file, variables);
        if !shop.path("till.db").exists() {
            shop.init("till.db", "http://127.0.0.1:9");
        }
        assert_eq!(server.terminate().code, Some(0));
    }
    let server = serve(&shop, &(endpoint(&collector) + "per_mille = 0\n"), &[]);
    shop.init("a.db", &server.url);
    shop.init("b.db", &server.url);
    sync(&shop, "a.db", &[]).done();
    assert_eq!(collector.collected().names(), []);
    sync(&shop, "b.db", &[("TRACEPARENT", &format!("00-{TRACE}-{SPAN}-00"))]).done();
    sync(&shop, "b.db", &[("TRACEPARENT", &format!("00-{TRACE}-{SPAN}-01"))]).done();
    assert_eq!(server.terminate().code, Some(0));
    let told = collector.collected();
    assert!(!told.spans.is_empty(), "a trace that a client keeps is kept");
    assert_eq!(told.named(SERVER, "GET /v1/spaces/{space}").len(), 1, "{:?}", told.names());
}

#[test]
fn a_collector_that_never_answers_holds_neither_a_push_nor_the_end_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let shop = Shop::new();
    let flag = format!("{FILE}[telemetry]\nendpoint = \"http://{}/v1/traces\"\n", silent.local_addr().unwrap());
    let server = serve(&shop, &flag, &[("OTEL_BSP_SCHEDULE_DELAY", "50"), ("OTEL_BSP_MAX_QUEUE_SIZE", "8")]);
    shop.init("till.db", &server.url);
    for n in 0..4 {
        shop.apply("till.db", &receipt(&format!("r-{n}")));
        let started = Instant::now();
        sync(&shop, "till.db", &[]).done();
        assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    }
    assert_eq!(shop.digest("till.db"), shop.server_digest());
    let started = Instant::now();
    assert_eq!(server.terminate().code, Some(0));
    assert!(started.elapsed() < Duration::from_secs(13), "{:?}", started.elapsed());
}

#[test]
fn an_address_that_is_none_is_refused_in_the_file_and_a_note_in_the_environment() {
    let shop = Shop::new();
    for address in ["somewhere", "127.0.0.1:4318", "ftp://127.0.0.1/v1/traces"] {
        let ran = shop.run(&["serve", "--data", "server", "--telemetry-endpoint", address, "--json"]).json_error(1);
        assert_eq!(ran["code"], "telemetry");
        let message = ran["message"].as_str().unwrap();
        assert!(message.starts_with("telemetry.endpoint: ") && message.contains(address), "{message}");
    }
    assert!(!shop.path("server").exists());
    let server = serve(&shop, FILE, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317")]);
    let ran = server.terminate();
    assert_eq!(ran.code, Some(0));
    assert!(ran.stderr.contains("OTEL_EXPORTER_OTLP_ENDPOINT: nothing can be sent to"), "{}", ran.stderr);
    let printed = shop.run(&["serve", "--config", "server.toml", "--print-config"]).done();
    for line in ["[telemetry]", "# endpoint =", "# per_mille ="] {
        assert!(printed.lines().any(|printed| printed == line), "{line} is missing in:\n{printed}");
    }
}
