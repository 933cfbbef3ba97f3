//! `gbsync rejections`: what a server refused, and closing it, for the back office.

use crate::config::{environment_token, server_url, space, token_in_file};
use crate::exit::{Exit, Failure};
use crate::output::{Output, table};
use anyhow::{Context, Result};
use gbsync_client::{FixedToken, HttpTransport, Method, Request, Transport};
use gbsync_core::id::SpaceId;
use gbsync_core::wire::Problem;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

const EXAMPLE: &str = "\
Examples:
  export GBSYNC_TOKEN=$(gbsync token create --data ./server --space shop --role admin --actor ann)
  gbsync rejections list --server http://127.0.0.1:4680 --space shop
  gbsync rejections show ID --server http://127.0.0.1:4680 --space shop
  gbsync rejections discard ID --reason 'rung up twice' --server http://127.0.0.1:4680 --space shop";
const LIST: &str = "\
Examples:
  gbsync rejections list --state all --server http://127.0.0.1:4680 --space shop";
const SHOW: &str = "\
Examples:
  gbsync rejections show ID --server http://127.0.0.1:4680 --space shop";
const AMEND: &str = "\
Examples:
  gbsync rejections amend ID --changes changes.json --reason 'wrong price' --server http://127.0.0.1:4680 --space shop

The file holds a JSON array of changes as in an operations file, without bases.";
const DISCARD: &str = "\
Examples:
  gbsync rejections discard ID --reason 'rung up twice' --server http://127.0.0.1:4680 --space shop";
const COMPENSATE: &str = "\
Examples:
  gbsync rejections compensate ID --type receipt-void --root r-1 --changes changes.json --reason 'paid back' \\
    --server http://127.0.0.1:4680 --space shop";
/// How long a request may take.
const TIMEOUT_MS: u64 = 60_000;

/// Look at what a server refused, and amend, discard or compensate it
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Args)]
struct Office {
    /// The server
    #[arg(long, value_name = "URL", value_parser = server_url)]
    server: String,
    /// The space
    #[arg(long, value_name = "S", value_parser = space)]
    space: SpaceId,
    /// A token with the role admin; GBSYNC_TOKEN beats it
    #[arg(long, value_name = "T", conflicts_with = "token_file")]
    token: Option<String>,
    /// A file with such a token
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Decision {
    /// The rejected group
    id: String,
    /// Why
    #[arg(long)]
    reason: String,
    /// Who decides, when the token has no actor
    #[arg(long)]
    actor: Option<String>,
    #[command(flatten)]
    office: Office,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// List rejected groups
    #[command(after_help = LIST)]
    List {
        /// Which: open, closed or all
        #[arg(long, default_value = "open", value_parser = ["open", "closed", "all"])]
        state: String,
        /// The id of the last one seen
        #[arg(long, value_name = "ID")]
        after: Option<String>,
        /// The most to list
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u64,
        #[command(flatten)]
        office: Office,
    },
    /// Show one with its changes and the reason of each
    #[command(after_help = SHOW)]
    Show {
        /// The rejected group
        id: String,
        #[command(flatten)]
        office: Office,
    },
    /// Make other changes take effect in its place
    #[command(after_help = AMEND)]
    Amend {
        /// A file with a JSON array of changes
        #[arg(long, value_name = "PATH")]
        changes: PathBuf,
        #[command(flatten)]
        decision: Decision,
    },
    /// Close one that nobody wants
    #[command(after_help = DISCARD)]
    Discard {
        #[command(flatten)]
        decision: Decision,
    },
    /// Make up for it with another operation
    #[command(after_help = COMPENSATE)]
    Compensate {
        /// The type of that operation
        #[arg(long = "type", value_name = "TYPE")]
        group_type: String,
        /// What it is about
        #[arg(long)]
        root: String,
        /// A file with a JSON array of changes
        #[arg(long, value_name = "PATH")]
        changes: PathBuf,
        #[command(flatten)]
        decision: Decision,
    },
}

/// Runs the verb.
///
/// # Errors
/// A failure that says what to do.
pub async fn run(arguments: &Arguments, output: &Output) -> Result<Exit> {
    match &arguments.verb {
        Verb::List { state, after, limit, office } => {
            let mut path = format!("?state={state}&limit={limit}");
            if let Some(after) = after {
                path.push_str(&format!("&after={}", encoded(after)));
            }
            list(&office.ask(Method::Get, &path, None).await?, output)?;
        }
        Verb::Show { id, office } => {
            output.line(office.ask(Method::Get, &format!("/{}", encoded(id)), None).await?);
        }
        Verb::Amend { changes, decision } => decision.close("amend", "", Some(changes), output).await?,
        Verb::Discard { decision } => decision.close("discard", "", None, output).await?,
        Verb::Compensate { group_type, root, changes, decision } => {
            let members = format!("\"type\":{},\"root\":{},", json!(group_type), json!(root));
            decision.close("compensate", &members, Some(changes), output).await?;
        }
    }
    Ok(Exit::Done)
}

impl Office {
    async fn ask(&self, method: Method, rest: &str, body: Option<Vec<u8>>) -> Result<String> {
        let in_file = || self.token_file.as_deref().map(token_in_file).transpose();
        let token = match environment_token().or_else(|| self.token.clone()) {
            Some(token) => token,
            None => in_file()?.ok_or_else(|| {
                let failure = Failure::new("no_token", "a token with the role admin is needed");
                failure.help("gbsync token create --data DIR --space SPACE --role admin --actor YOU makes one")
            })?,
        };
        let lost = |error: gbsync_client::TransportError| Failure::new("not_reached", error.message).exit(Exit::NotReached);
        let transport = HttpTransport::new(&self.server, Arc::new(FixedToken(token))).map_err(lost)?;
        let path = format!("/v1/spaces/{}/rejections{rest}", encoded(self.space.as_str()));
        let answer =
            transport.send(Request { method, path, body, timeout_ms: TIMEOUT_MS, token: None }).await.map_err(lost)?;
        if answer.status == 200 {
            return String::from_utf8(answer.body).context("the answer is not UTF-8");
        }
        Err(match Problem::parse(&answer.body) {
            Ok(problem) => Failure::new(problem.code.as_str(), problem.detail),
            Err(_) => Failure::new("not_an_answer", format!("status {} without an answer of the protocol", answer.status)),
        }
        .into())
    }
}

impl Decision {
    async fn close(&self, verb: &str, members: &str, changes: Option<&PathBuf>, output: &Output) -> Result<()> {
        let changes = match changes {
            None => String::new(),
            // As they are: numbers must arrive as written.
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
                format!("\"changes\":{},", text.trim())
            }
        };
        let actor = self.actor.as_ref().map(|actor| format!("\"actor\":{},", json!(actor))).unwrap_or_default();
        let body = format!("{{{members}{changes}{actor}\"reason\":{}}}", json!(self.reason));
        let rest = format!("/{}/{verb}", encoded(&self.id));
        let answer = self.office.ask(Method::Post, &rest, Some(body.into_bytes())).await?;
        let read: Value = serde_json::from_str(&answer).context("the answer is no JSON")?;
        let of = |pointer: &str| read.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        if read["resolution"].is_null() {
            return Err(Failure::new(of("/result/code"), of("/result/message")).help("nothing was changed").into());
        }
        match output.is_json() {
            true => output.line(answer),
            false => output.line(format_args!("{} {}, entry {} of the log", self.id, of("/resolution/as"), read["seq"])),
        }
        Ok(())
    }
}

fn list(answer: &str, output: &Output) -> Result<()> {
    if output.is_json() {
        output.line(answer);
        return Ok(());
    }
    let read: Value = serde_json::from_str(answer).context("the answer is no JSON")?;
    let rejections = read["rejections"].as_array().map(Vec::as_slice).unwrap_or_default();
    if rejections.is_empty() {
        output.note("nothing is listed: there is no such rejection");
        return Ok(());
    }
    let row = |rejected: &Value| -> Vec<String> {
        let names = ["/syncGroupId", "/state", "/actor", "/decidedAt", "/code", "/resolution/as", "/message"];
        names.iter().map(|name| rejected.pointer(name).and_then(Value::as_str).unwrap_or("-").to_owned()).collect()
    };
    let headings = ["GROUP", "STATE", "ACTOR", "REFUSED", "CODE", "CLOSED AS", "MESSAGE"];
    output.line(table(&headings, &rejections.iter().map(row).collect::<Vec<_>>()));
    Ok(())
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
