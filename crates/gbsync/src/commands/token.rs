//! `gbsync token`: who may speak for which space. Works on the server's store, also while servers run on it.

use super::store::{self, StoreArguments};
use crate::config;
use crate::exit::{Exit, Failure};
use crate::output::{Output, table};
use anyhow::Result;
use gbsync_core::id::{Actor, DeviceId, Role, Scope, SpaceId};
use gbsync_core::scope::ScopeSet;
use gbsync_core::wire::ActAs;
use gbsync_server::{NewToken, TokenInfo, Tokens};
use serde_json::json;

const EXAMPLE: &str = "\
Examples:
  gbsync token create --data ./server --space shop --role cashier --actor cashier-7 --expires 30d
  gbsync token list --data ./server
  gbsync token revoke --data ./server ID";

const CREATE_EXAMPLE: &str = "\
Examples:
  GBSYNC_TOKEN=$(gbsync token create --data ./server --space shop --role cashier --actor cashier-7 --expires 12h)
  gbsync token create --data ./server --space shop --actor till-3 --device 0192d4e0 --act-as cashier-7 --act-as manager-1
  gbsync token create --data ./server --space shop --role cashier --scope store-north

The token is printed once and alone; the server keeps only its hash. A space that is new is made.

What is sent for somebody whom the token may act as is decided by that one's roles, which gbsync actor set says. A token \
without --actor and --act-as speaks in any name with its own roles: give it to a device that one person uses.";

const LIST_EXAMPLE: &str = "\
Example:
  gbsync token list --data ./server";

const REVOKE_EXAMPLE: &str = "\
Examples:
  gbsync token revoke --data ./server 0192d4e0
  gbsync token revoke --data ./server --jwt 7f9c2ba4-e88f

A running server refuses the token from the next request on. `gbsync token list` shows the ids; of a token that another party \
signed, --jwt is its claim jti.";

/// Make, list and revoke tokens in a server's store
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Make a token for a space, and the space if it is new
    #[command(after_help = CREATE_EXAMPLE)]
    Create(Create),
    /// List every token's id, space and rights; the tokens themselves are not kept
    #[command(after_help = LIST_EXAMPLE)]
    List(List),
    /// Revoke a token
    #[command(after_help = REVOKE_EXAMPLE)]
    Revoke(Revoke),
}

#[derive(clap::Args)]
struct Create {
    #[command(flatten)]
    store: StoreArguments,
    /// The space that the token opens
    #[arg(long, value_parser = config::space)]
    space: SpaceId,
    /// A role of the bearer; may be given several times
    #[arg(long = "role", value_name = "NAME", value_parser = config::role)]
    roles: Vec<Role>,
    /// The person or service that the bearer acts as
    #[arg(long, value_name = "NAME", value_parser = config::actor)]
    actor: Option<Actor>,
    /// The one device that may use the token
    #[arg(long, value_name = "ID", value_parser = config::device)]
    device: Option<DeviceId>,
    /// Somebody whose groups it may send too, or * for everybody whose roles are known; may be given several times
    #[arg(long, value_name = "NAME", value_parser = config::act_as)]
    act_as: Vec<ActAs>,
    /// A scope whose records it sees and may write, beside those that everybody sees; may be given several times. All when absent
    #[arg(long = "scope", value_name = "NAME", value_parser = config::scope)]
    scopes: Vec<Scope>,
    /// How long it is valid, like 12h or 30d; for ever when absent
    #[arg(long, value_name = "TIME", value_parser = config::duration_ms)]
    expires: Option<u64>,
}

#[derive(clap::Args)]
struct List {
    #[command(flatten)]
    store: StoreArguments,
}

#[derive(clap::Args)]
struct Revoke {
    #[command(flatten)]
    store: StoreArguments,
    /// The token's id, or the beginning of it if that is unique
    #[arg(required_unless_present = "jwt")]
    id: Option<String>,
    /// The claim jti of a token that another party signed
    #[arg(long, value_name = "JTI", conflicts_with = "id")]
    jwt: Option<String>,
}

/// Runs the verb.
///
/// # Errors
/// A failure that says what to do.
pub fn run(arguments: &Arguments, output: &Output) -> Result<Exit> {
    match &arguments.verb {
        Verb::Create(arguments) => create(arguments, output),
        Verb::List(arguments) => list(arguments, output),
        Verb::Revoke(arguments) => revoke(arguments, output),
    }
    .map(|()| Exit::Done)
}

fn create(arguments: &Create, output: &Output) -> Result<()> {
    let Create { store, space, roles, actor, device, act_as, scopes, expires } = arguments;
    let tokens = Tokens::open(store.location()?).map_err(|error| config::server_failure(&error))?;
    let new = NewToken {
        space: space.clone(),
        roles: roles.clone(),
        actor: actor.clone(),
        device: device.clone(),
        act_as: act_as.iter().cloned().reduce(both),
        scopes: match scopes.is_empty() {
            true => ScopeSet::All,
            false => ScopeSet::These(scopes.iter().cloned().collect()),
        },
        lifetime_ms: *expires,
    };
    let created = tokens.create(new).map_err(|error| config::server_failure(&error))?;
    if output.is_json() {
        output.json(&json!({ "token": created.token, "id": created.id, "space": space.as_str() }));
    } else {
        output.line(&created.token);
        output.note(format_args!("token {} for space {space}; it is not shown again", created.id));
    }
    Ok(())
}

fn both(one: ActAs, other: ActAs) -> ActAs {
    match (one, other) {
        (ActAs::These(one), ActAs::These(other)) => ActAs::These(one.union(&other).cloned().collect()),
        _ => ActAs::Anyone,
    }
}

fn list(arguments: &List, output: &Output) -> Result<()> {
    let tokens = Tokens::open(arguments.store.existing()?).map_err(|error| config::server_failure(&error))?;
    let tokens = tokens.list().map_err(|error| config::server_failure(&error))?;
    if output.is_json() {
        output.json(&tokens.iter().map(info_json).collect::<Vec<_>>());
    } else if tokens.is_empty() {
        output.note("no tokens yet; make one with gbsync token create");
    } else {
        let rows: Vec<_> = tokens.iter().map(info_row).collect();
        output.line(table(
            &["ID", "SPACE", "ROLES", "ACTOR", "DEVICE", "ACT AS", "SCOPES", "CREATED", "EXPIRES", "REVOKED"],
            &rows,
        ));
    }
    Ok(())
}

fn revoke(arguments: &Revoke, output: &Output) -> Result<()> {
    let tokens = Tokens::open(arguments.store.existing()?).map_err(|error| config::server_failure(&error))?;
    let id = match (&arguments.id, &arguments.jwt) {
        (_, Some(jti)) => {
            tokens.revoke_jwt(jti).map_err(|error| config::server_failure(&error))?;
            return said(jti, output);
        }
        (Some(id), None) => id,
        (None, None) => unreachable!("clap demands one of them"),
    };
    if !tokens.revoke(id).map_err(|error| config::server_failure(&error))? {
        let failure = Failure::new("token_not_found", format!("no token has the id {id}"));
        return Err(failure.help(format!("gbsync token list {}", store::argument(&arguments.store.location()?))).into());
    }
    said(id, output)
}

fn said(id: &str, output: &Output) -> Result<()> {
    if output.is_json() {
        output.json(&json!({ "revoked": id }));
    } else {
        output.note(format_args!("token {id} is revoked"));
    }
    Ok(())
}

fn info_json(token: &TokenInfo) -> serde_json::Value {
    json!({
        "id": token.id,
        "space": token.space.as_str(),
        "roles": token.roles.iter().map(Role::as_str).collect::<Vec<_>>(),
        "actor": token.actor.as_ref().map(Actor::as_str),
        "device": token.device.as_ref().map(DeviceId::as_str),
        "actAs": match &token.act_as {
            None => serde_json::Value::Null,
            Some(ActAs::Anyone) => json!("*"),
            Some(ActAs::These(actors)) => json!(actors.iter().map(Actor::as_str).collect::<Vec<_>>()),
        },
        "scopes": match &token.scopes {
            ScopeSet::All => serde_json::Value::Null,
            ScopeSet::These(scopes) => json!(scopes.iter().map(Scope::as_str).collect::<Vec<_>>()),
        },
        "createdAt": token.created_at.as_str(),
        "expiresAt": token.expires_at.as_ref().map(|time| time.as_str()),
        "revokedAt": token.revoked_at.as_ref().map(|time| time.as_str()),
    })
}

fn info_row(token: &TokenInfo) -> Vec<String> {
    let or_dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
    let roles = token.roles.iter().map(Role::as_str).collect::<Vec<_>>().join(",");
    vec![
        token.id.to_string(),
        token.space.to_string(),
        or_dash(Some(roles.as_str()).filter(|roles| !roles.is_empty())),
        or_dash(token.actor.as_ref().map(Actor::as_str)),
        or_dash(token.device.as_ref().map(DeviceId::as_str)),
        match &token.act_as {
            None => "-".into(),
            Some(ActAs::Anyone) => "*".into(),
            Some(ActAs::These(actors)) => actors.iter().map(Actor::as_str).collect::<Vec<_>>().join(","),
        },
        match &token.scopes {
            ScopeSet::All => "-".into(),
            ScopeSet::These(scopes) => scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(","),
        },
        token.created_at.to_string(),
        or_dash(token.expires_at.as_ref().map(|time| time.as_str())),
        or_dash(token.revoked_at.as_ref().map(|time| time.as_str())),
    ]
}
